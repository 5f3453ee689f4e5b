//! A client: speaks the protocol, and tells the oracle what it was answered.

mod audit;
mod background;
mod call;
mod data;
mod edge;
mod journal;
mod names;
mod process;
mod shared;
mod slate;
mod unlinked;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use mooseng_types::{CellId, FsError};

pub(crate) use audit::audit;
use background::Together;
use call::Caller;
pub(crate) use data::Content;
use data::Written;
use process::Process;

use crate::invariants::same_answer;
use crate::oracle::{Model, NameOp, NodeId, Op, Oracle, Private};
use crate::plant::Plant;
use crate::task::Port;

/// Nodes of a client's directory beyond which it makes no more.
const NODES_MAX: usize = 14;
/// The longest file, in bytes: a few blocks.
const FILE_MAX: u64 = 150_000;

/// What an operation that could not go on means: the session is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expired;

/// One life of a client.
#[derive(Debug)]
pub(crate) struct Client {
    call: Caller,
    oracle: Rc<RefCell<Oracle>>,
    /// Which client, and which of the private directories is its own.
    number: usize,
    life: usize,
    /// The shared directory and the shared file, as found last.
    directory: shared::Found,
    file: shared::Found,
}

/// Runs a client until the world ends it or its session expires.
pub(crate) async fn run(
    port: Port,
    oracle: Rc<RefCell<Oracle>>,
    number: usize,
    cell: CellId,
    masters: u64,
    plant: Option<Plant>,
) {
    let life = {
        let mut oracle = oracle.borrow_mut();
        let life = oracle.private.len();
        let name = format!("life{life}");
        oracle.private.push(Private { name, founded: false, model: Model::new(), pending: None });
        if oracle.progress.len() <= number {
            oracle.progress.resize(number + 1, 0);
        }
        life
    };
    let process = Process::new(port, Rc::clone(&oracle), cell, masters, plant);
    let mut client = Client {
        call: Caller::new(process.clone()),
        oracle,
        number,
        life,
        directory: shared::Found::default(),
        file: shared::Found::default(),
    };
    // What leaves it open what was done ends this life; the world begins another.
    let program = async move {
        let Expired = client.live().await;
    };
    let parts: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = vec![
        Box::pin(program),
        Box::pin(process.clone().keep_session()),
        Box::pin(process.clone().hear_recalls()),
        Box::pin(process.clone().serve_recalls()),
        Box::pin(process.clone().serve_recalls()),
        Box::pin(process.tidy()),
    ];
    Together::new(parts).await;
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Ok(mut oracle) = self.oracle.try_borrow_mut() {
            oracle.life_ended(self.life, self.call.port.now());
            oracle.idlers.remove(&self.number);
        }
    }
}

impl Client {
    async fn live(&mut self) -> Expired {
        match self.try_to_live().await {
            Err(expired) => expired,
            Ok(never) => match never {},
        }
    }

    async fn try_to_live(&mut self) -> Result<Infallible, Expired> {
        self.call.open_session().await?;
        let name = self.oracle.borrow().private[self.life].name.clone();
        let inode = match self.call.create(self.call.root(), &name, true).await? {
            Ok(attr) => attr.inode,
            Err(error) => {
                self.accuse(format!("applied_once: mkdir of a fresh name was refused: {error}"));
                return Err(Expired);
            }
        };
        {
            let mut oracle = self.oracle.borrow_mut();
            oracle.private[self.life].founded = true;
            oracle.private[self.life].model.set_inode(0, inode);
        }
        // Some only look: they stay with a master as long as it answers.
        let looks = self.call.port.rng(|rng| rng.chance(350));
        // Some make files all the time that are gone when they are closed.
        let opens = self.call.port.rng(|rng| rng.chance(150));
        loop {
            let draw = self.call.port.rng(|rng| match (opens && rng.chance(800), looks) {
                (true, _) => 28,
                (_, true) => rng.below(140),
                (_, false) => rng.below(38),
            });
            match draw {
                80.. => self.shared_name(NameOp::Lookup).await?,
                65..=79 => self.shared_file(true).await?,
                48..=64 => self.shared_directory(true).await?,
                35..=47 => self.peek().await?,
                32..=34 => self.slate().await?,
                30..=31 => self.append().await?,
                28..=29 => self.unlinked().await?,
                24..=27 => self.shared_directory(false).await?,
                21..=23 => self.shared_file(false).await?,
                0..=3 => self.any_shared_name().await?,
                4 => self.list().await?,
                5 => self.slate().await?,
                6..=8 => self.read_back().await?,
                _ => self.change().await?,
            }
            {
                let mut oracle = self.oracle.borrow_mut();
                oracle.answered += 1;
                oracle.progress[self.number] += 1;
            }
            let pause = self.call.port.rng(|rng| rng.ms(0, 30));
            self.call.port.sleep(pause).await;
        }
    }

    fn accuse(&self, what: String) {
        self.oracle.borrow_mut().accuse(format!("client {} life {}: {what}", self.number, self.life));
    }

    fn model(&self) -> Model {
        self.oracle.borrow().private[self.life].model.clone()
    }

    /// One change in the client's own directory, which must be answered just as the model says.
    async fn change(&mut self) -> Result<(), Expired> {
        let mut model = self.model();
        let Some(op) = self.choose(&model) else { return Ok(()) };
        self.oracle.borrow_mut().private[self.life].pending = Some(op.clone());
        self.call.port.note(|| format!("life {}: {op:?}", self.life));
        let answer = match &op {
            Op::Write { node, offset, data } => {
                match self.call.write_synced(model.inode(*node), *offset, data).await? {
                    Written::Yes(attr) => Ok(Some(attr)),
                    Written::Lost => {
                        self.call.port.note(|| format!("life {}: {op:?} is told lost", self.life));
                        return self.start_over(model, *node).await;
                    }
                }
            }
            op => self.perform(&model, op).await?,
        };
        self.call.port.note(|| format!("life {}: {op:?} is answered", self.life));
        let expected = model.apply(&op);
        if let (Ok(Some(attr)), Ok(Some(node))) = (&answer, &expected) {
            model.set_inode(*node, attr.inode);
        }
        if let Some(problem) = same_answer(&op, &answer, &expected, &model) {
            self.accuse(problem);
        }
        let mut oracle = self.oracle.borrow_mut();
        oracle.private[self.life].model = model;
        oracle.private[self.life].pending = None;
        Ok(())
    }

    /// A write was told lost: what the file holds is not known until it is cut to nothing.
    async fn start_over(&mut self, mut model: Model, node: NodeId) -> Result<(), Expired> {
        model.lose(node);
        {
            let private = &mut self.oracle.borrow_mut().private[self.life];
            (private.model, private.pending) = (model.clone(), None);
        }
        let cut = self.call.truncate(model.inode(node), 0).await?;
        if cut.is_ok() && model.apply(&Op::Truncate { node, size: 0 }).is_ok() {
            self.oracle.borrow_mut().private[self.life].model = model;
        }
        Ok(())
    }

    /// A change that makes sense, or nearly.
    fn choose(&self, model: &Model) -> Option<Op> {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let port = &self.call.port;
        let name = || port.rng(|rng| rng.pick(&NAMES).copied().unwrap_or("a").to_owned());
        let dirs = model.dirs();
        let dir = port.rng(|rng| rng.pick(&dirs).copied())?;
        let files = model.files();
        let file = port.rng(|rng| rng.pick(&files).copied());
        let crowded = model.nodes.len() >= NODES_MAX;
        let bytes = |most: u64| {
            port.rng(|rng| {
                let count = 1 + rng.below(most);
                rng.bytes(usize::try_from(count).unwrap_or(1))
            })
        };
        let below = |limit: u64| port.rng(|rng| usize::try_from(rng.below(limit)).unwrap_or(0));
        Some(match port.rng(|rng| rng.below(16)) {
            0 if !crowded => Op::Mkdir { dir: 0, name: ["s", "t"][below(2)].to_owned() },
            1..=3 if !crowded => Op::Create { dir, name: name() },
            4 => Op::Unlink { dir, name: name() },
            5 => Op::Rmdir { dir: 0, name: ["s", "t", "a"][below(3)].to_owned() },
            6 => Op::Link { node: file?, dir, name: name() },
            7..=8 => {
                let new_dir = port.rng(|rng| rng.pick(&dirs).copied())?;
                Op::Rename { dir, name: name(), new_dir, new_name: name() }
            }
            9 => Op::Rename { dir: 0, name: "s".into(), new_dir: 0, new_name: "t".into() },
            // Into the metadata past the file's core, as another client would; where it may have a chunk that is refused.
            10..=11 if file.is_some_and(|file| model.file(file).is_some_and(|file| !file.2)) => {
                Op::WriteInline { node: file?, offset: below(3000), data: bytes(1500) }
            }
            10..=14 => {
                let data = if below(3) == 0 { bytes(70_000) } else { bytes(3000) };
                Op::Write { node: file?, offset: below(FILE_MAX - 70_000), data }
            }
            _ => Op::Truncate { node: file?, size: below(if below(2) == 0 { 5000 } else { FILE_MAX }) },
        })
    }

    async fn perform(
        &mut self,
        model: &Model,
        op: &Op,
    ) -> Result<Result<Option<call::Attr>, FsError>, Expired> {
        let inode = |node: &NodeId| model.inode(*node);
        match op {
            Op::Mkdir { dir, name } => self.call.create(inode(dir), name, true).await.map(some),
            Op::Create { dir, name } => self.call.create(inode(dir), name, false).await.map(some),
            Op::Unlink { dir, name } => self.call.unlink(inode(dir), name).await.map(none),
            Op::Rmdir { dir, name } => self.call.rmdir(inode(dir), name).await.map(none),
            Op::Link { node, dir, name } => self.call.link(inode(node), inode(dir), name).await.map(some),
            Op::Rename { dir, name, new_dir, new_name } => {
                self.call.rename((inode(dir), name), (inode(new_dir), new_name)).await.map(none)
            }
            Op::WriteInline { node, offset, data } => {
                self.call.write_inline(inode(node), *offset, data).await.map(some)
            }
            Op::Write { .. } => Ok(Err(FsError::NotSupported)),
            Op::Truncate { node, size } => self.call.truncate(inode(node), *size).await.map(some),
        }
    }

    /// One operation on a name that all clients use.
    async fn any_shared_name(&mut self) -> Result<(), Expired> {
        let op = match self.call.port.rng(|rng| rng.below(4)) {
            0 => NameOp::Create,
            1 => NameOp::Unlink,
            _ => NameOp::Lookup,
        };
        self.shared_name(op).await
    }
}

type Refusable<T> = Result<T, FsError>;

fn some(answer: Refusable<call::Attr>) -> Refusable<Option<call::Attr>> {
    answer.map(Some)
}

fn none(answer: Refusable<()>) -> Refusable<Option<call::Attr>> {
    answer.map(|()| None)
}

/// Between two tries when nothing else can be done.
const RETRY: Duration = Duration::from_millis(60);
