//! Durable creates without a mount: many blocking callers, each with a session and a connection of its own.
//! `cargo run --release -p mooseng-client --example wire -- KEY MASTERS CALLERS own|shared|cells:N SECONDS OPERATIONS [TIMES]`
//!
//! KEY is the file with the key of clients, MASTERS are addresses with commas between them. Each caller works in a directory
//! of its own, or all in one; with `cells:N` each in a directory of its own, in turn of the first N cells. Ends after
//! SECONDS, or when all have made OPERATIONS files together. Prints one line: operations, seconds, and the middle and
//! the hundredth worst time of a create in microseconds, and where the first caller's first file is. `cargo xtask bench
//! --suite wire` runs it beside the masters' processor time and syncs. Into the file TIMES goes a line for each create:
//! when it began, in microseconds since 1970, and how many it took.

use std::io::Write as _;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use mooseng_env::secret::Secret;
use mooseng_env::{Clock as _, Entropy as _, SystemClock, SystemEntropy, nonce};
use mooseng_protocol::principal::PrincipalKey;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{convert, handshake, pb};
use mooseng_types::level::SUPPORTED;
use mooseng_types::{CellId, FileKind, InodeId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long no master may lead before the load is given up.
const ELECTION_MAX: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
const CALLERS_MAX: usize = 1024;
const USAGE: &str = "usage: wire KEY MASTERS CALLERS own|shared|cells:N SECONDS OPERATIONS [TIMES]";

/// One session and its connection to the leader.
struct Caller {
    stream: FrameStream,
    session: u64,
    last: u64,
    directory: InodeId,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, masters, callers, layout, seconds, operations, record @ ..] = arguments.as_slice() else {
        anyhow::bail!(USAGE)
    };
    let count = callers.parse::<usize>().context(USAGE)?.clamp(1, CALLERS_MAX);
    let (limit, most) =
        (Duration::from_secs(seconds.parse().context(USAGE)?), operations.parse().context(USAGE)?);
    let cells: u16 = layout.strip_prefix("cells:").map_or(Ok(1), str::parse).context(USAGE)?;
    let cell =
        |number: usize| CellId::from_raw(u16::try_from(number % usize::from(cells.max(1))).unwrap_or(0));
    let key = Secret::load(Path::new(key), USAGE)?;
    let mut callers: Vec<Caller> = (0..count)
        .map(|number| Caller::connect(masters, key.bytes(), cell(number)))
        .collect::<anyhow::Result<_>>()?;
    make_directories(&mut callers, layout == "shared")?;
    let first =
        callers.first().map(|caller| (caller.directory.raw(), caller.next_name())).unwrap_or_default();
    let (barrier, made) = (Barrier::new(count + 1), AtomicU64::new(0));
    let (begun, since_1970, ended) = std::thread::scope(|scope| {
        let threads: Vec<_> = callers
            .into_iter()
            .map(|caller| scope.spawn(|| caller.work(&barrier, &made, limit, most)))
            .collect();
        barrier.wait();
        let (begun, since_1970) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH));
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (begun, since_1970, ended)
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for thread in ended {
        times.extend(thread.map_err(|_| anyhow::anyhow!("a caller panicked"))??);
    }
    if let Some(path) = record.first() {
        write_times(Path::new(path), &times, begun, since_1970?)?;
    }
    let mut times: Vec<Duration> = times.into_iter().map(|(_, took)| took).collect();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default().as_micros();
    writeln!(
        std::io::stdout(),
        "operations={} seconds={seconds:.3} p50_us={} p99_us={} directory={} name={}",
        times.len(),
        at(50),
        at(99),
        first.0,
        first.1
    )?;
    Ok(())
}

fn write_times(
    path: &Path,
    times: &[(Instant, Duration)],
    begun: Instant,
    since_1970: Duration,
) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).context("make the file of times")?);
    for (start, took) in times {
        let start = since_1970 + start.saturating_duration_since(begun);
        writeln!(file, "{} {}", start.as_micros(), took.as_micros())?;
    }
    file.flush().context("write the file of times")
}

fn make_directories(callers: &mut [Caller], shared: bool) -> anyhow::Result<()> {
    let mut name = [0; 8];
    SystemEntropy.fill(&mut name);
    let name = u64::from_ne_bytes(name);
    let mut common = None;
    for (number, caller) in callers.iter_mut().enumerate() {
        caller.directory = match common {
            Some(directory) if shared => directory,
            _ => caller.create(FileKind::Directory, format!("wire-{name:016x}-{number}"))?,
        };
        common = Some(caller.directory);
    }
    Ok(())
}

impl Caller {
    /// A session at whichever master leads; there may be none for a moment.
    fn connect(masters: &str, key: &[u8; 32], cell: CellId) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let mut why = Vec::new();
            for master in masters.split(',') {
                match Self::open(master, key, cell) {
                    Ok(caller) => return Ok(caller),
                    Err(error) => why.push(format!("{master}: {error}")),
                }
            }
            anyhow::ensure!(begun.elapsed() < ELECTION_MAX, "{}", why.join("; "));
            SystemClock::default().sleep(BETWEEN_TRIES);
        }
    }

    fn open(master: &str, key: &[u8; 32], cell: CellId) -> Result<Self, CallError> {
        let mut client_id = [0; 16];
        SystemEntropy.fill(&mut client_id);
        let hello = pb::Hello::new(pb::Role::Client, "wire", None, SUPPORTED);
        let hello = pb::Hello { client_id: client_id.to_vec().into(), ..hello };
        let caller = handshake::Caller::new(hello, PrincipalKey::new(key), nonce);
        let (mut stream, _) = FrameStream::connect(master, &caller, TIMEOUT)?;
        let request = pb::OpenSessionRequest {
            client_id: client_id.to_vec().into(),
            name: "wire".into(),
            cell: cell.raw().into(),
            ..Default::default()
        };
        let session = stream.call(&request, &[], TIMEOUT)?.session;
        Ok(Self { stream, session, last: 0, directory: cell.root() })
    }

    /// Of the next request. All before it are answered.
    fn number(&mut self) -> pb::RequestMeta {
        self.last += 1;
        pb::RequestMeta { session: self.session, seq: self.last, acked_below: self.last }
    }

    fn create(&mut self, kind: FileKind, name: String) -> anyhow::Result<InodeId> {
        let request = pb::CreateRequest {
            meta: Some(self.number()),
            parent: self.directory.raw(),
            name: name.into(),
            kind: kind.raw().into(),
            mode: 0o755,
            ..Default::default()
        };
        let reply = self.stream.call(&request, &[], TIMEOUT).context("create")?;
        Ok(convert::attr(reply.attr)?.inode)
    }

    /// Sessions have numbers of their own, so the names of a shared directory do not meet.
    fn next_name(&self) -> String {
        format!("{}-{}", self.session, self.last)
    }

    /// Creates one after the other; answers when each began and how long it took.
    fn work(
        mut self,
        barrier: &Barrier,
        made: &AtomicU64,
        limit: Duration,
        most: u64,
    ) -> anyhow::Result<Vec<(Instant, Duration)>> {
        let mut times = Vec::new();
        barrier.wait();
        let begun = Instant::now();
        while begun.elapsed() < limit && made.fetch_add(1, Ordering::Relaxed) < most {
            let start = Instant::now();
            self.create(FileKind::File, self.next_name())?;
            times.push((start, start.elapsed()));
        }
        let close = pb::CloseSessionRequest { meta: Some(self.number()) };
        self.stream.call(&close, &[], TIMEOUT).context("close the session")?;
        Ok(times)
    }
}
