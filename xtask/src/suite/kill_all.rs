//! Every process dies at once, at a random instant, under load; after the restart everything acknowledged is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::journal::Journal;
use super::{Context, Outcome};
use crate::cluster::Cluster;
use crate::random::Random;
use crate::{shell, wait};

const THREADS: u64 = 6;
/// The instant of the cut, after the load began.
const CUT_MS_MIN: u64 = 500;
const CUT_MS_MAX: u64 = 4000;
const FSCK_LIMIT: Duration = Duration::from_secs(60);
/// What is shown of a failed audit.
const SHOWN_MAX: usize = 20;

/// How often the power is cut, unless the caller says otherwise.
const ROUNDS: u32 = 3;

pub(super) fn rounds(context: &Context) -> u32 {
    context.rounds.unwrap_or(ROUNDS)
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let seed = context.seed();
    println!("kill_all: seed {seed}");
    let mut random = Random::seeded(seed);
    let mut cluster = context.cluster()?;
    let top = cluster.mount_point().join("kill_all");
    let journals: Vec<Arc<Mutex<Journal>>> = (0..THREADS)
        .map(|thread| {
            let log = context.scratch.join(format!("journal-{thread}.log"));
            let journal = Journal::new(top.join(format!("t{thread}")), &log, random.next())?;
            Ok(Arc::new(Mutex::new(journal)))
        })
        .collect::<Result<_>>()?;
    for round in 1..=rounds(context) {
        let time = Duration::from_millis(CUT_MS_MIN + random.below(CUT_MS_MAX - CUT_MS_MIN));
        load_and_cut(&mut cluster, &journals, time).with_context(|| format!("round {round}"))?;
        cluster.launch().with_context(|| format!("restart of round {round}"))?;
        let wrong =
            audit(&journals).with_context(|| format!("audit of round {round}\n{}", cluster.last_words()))?;
        let total: u64 = journals.iter().map(|journal| wait::lock(journal).acknowledged).sum();
        if !wrong.is_empty() {
            let shown = wrong.get(..SHOWN_MAX.min(wrong.len())).unwrap_or_default().join("\n");
            bail!(
                "round {round}, seed {seed}, {total} operations acknowledged, {} wrong:\n{shown}\n{}",
                wrong.len(),
                cluster.last_words()
            );
        }
        shell::stdout_within(&mut cluster.mooseng(&["fsck"]), FSCK_LIMIT)
            .with_context(|| format!("round {round}"))?;
        println!(
            "kill_all: round {round}: cut after {} ms, {total} operations acknowledged in all, none lost",
            time.as_millis()
        );
    }
    Ok(Outcome::Passed)
}

/// Runs the load until the cut; an error before the cut is a failure, one after it is the cut itself.
fn load_and_cut(cluster: &mut Cluster, journals: &[Arc<Mutex<Journal>>], time: Duration) -> Result<()> {
    let cut = Arc::new(AtomicBool::new(false));
    let before: u64 = journals.iter().map(|journal| wait::lock(journal).acknowledged).sum();
    let threads: Vec<JoinHandle<Result<()>>> = journals
        .iter()
        .map(|journal| {
            let (journal, cut) = (Arc::clone(journal), Arc::clone(&cut));
            std::thread::spawn(move || {
                let mut journal = wait::lock(&journal);
                while !cut.load(Ordering::SeqCst) {
                    if let Err(error) = journal.step()
                        && !cut.load(Ordering::SeqCst)
                    {
                        bail!(
                            "{:?} failed before the cut: {error}",
                            journal.in_flight.as_ref().map(std::mem::discriminant)
                        );
                    }
                }
                Ok(())
            })
        })
        .collect();
    let ran = wait::let_run(time);
    cut.store(true, Ordering::SeqCst);
    cluster.kill_all();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
    }
    ran?;
    let after: u64 = journals.iter().map(|journal| wait::lock(journal).acknowledged).sum();
    ensure!(after > before, "nothing was acknowledged in {} ms", time.as_millis());
    Ok(())
}

fn audit(journals: &[Arc<Mutex<Journal>>]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for journal in journals {
        let mut journal = wait::lock(journal);
        let place = journal.place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = journal.audit().with_context(|| format!("list {place}"))?;
        wrong.extend(found.into_iter().map(|text| format!("{place}/{text}")));
    }
    Ok(wrong)
}
