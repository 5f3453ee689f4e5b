//! What is done by itself, every second: whether the disks are there and how much room they have, what goes from quarantine, copies
//! to check and to make clean, memory to give back. Whatever may wait for a disk is done by that disk's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::connection::Service;
use crate::copy_events::CopyEvents;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// A copy that was not written for this long is made clean.
const IDLE: Duration = Duration::from_secs(10);

/// What goes on at a disk; one that hangs is not asked again.
#[derive(Debug, Default)]
struct Going {
    looking: Arc<AtomicBool>,
    tidying: Arc<AtomicBool>,
}

/// Keeps house until the end is near.
pub(crate) fn keep_house(service: &Arc<Service>, events: &CopyEvents) {
    let going: Vec<Going> = service.pools.iter().map(|_| Going::default()).collect();
    while !events.stopping() {
        for (number, going) in going.iter().enumerate() {
            look_after(service, number, going);
            keep_on(service, number);
        }
        clean_idle(service);
        service.store.report_failed_disks();
        for pool in &service.pools {
            pool.write_buffers.trim();
            pool.read_buffers.trim();
        }
        events.wait_for_stop(ROUND);
    }
}

/// Looks whether a disk is there, and what is to go from its quarantine.
fn look_after(service: &Arc<Service>, number: usize, going: &Going) {
    let (Some(disk), Some(pool)) = (service.store.disks().get(number), service.pools.get(number)) else {
        return;
    };
    if disk.failed() {
        return;
    }
    if !going.looking.swap(true, Ordering::AcqRel) {
        let (disk, done) = (Arc::clone(disk), Arc::clone(&going.looking));
        let look = move || {
            disk.look();
            done.store(false, Ordering::Release);
        };
        if pool.try_submit(None, look).is_err() {
            going.looking.store(false, Ordering::Release);
        }
    }
    if !going.tidying.swap(true, Ordering::AcqRel) {
        let (disk, done) = (Arc::clone(disk), Arc::clone(&going.tidying));
        let unix_s = service.now().unix_s;
        let tidy = move || {
            disk.tidy_quarantine(unix_s);
            done.store(false, Ordering::Release);
        };
        if pool.submit_background(tidy).is_err() {
            going.tidying.store(false, Ordering::Release);
        }
    }
}

/// Has what is to be checked on a disk read by its threads, if they are not at it.
pub(crate) fn keep_on(service: &Arc<Service>, number: usize) {
    let (Some(keeper), Some(pool)) = (service.keepers.get(number), service.pools.get(number)) else { return };
    if !keeper.begin() {
        return;
    }
    let for_job = Arc::clone(service);
    if pool.submit_background(move || check_piece(&for_job, number)).is_err() {
        keeper.rest();
    }
}

/// Checks a piece, and queues the next one behind whatever waits.
fn check_piece(service: &Arc<Service>, number: usize) {
    let (Some(keeper), Some(pool)) = (service.keepers.get(number), service.pools.get(number)) else { return };
    let more = keeper.step(&service.store, &service.events, service.now());
    let for_job = Arc::clone(service);
    if !more || pool.continue_background(move || check_piece(&for_job, number)).is_err() {
        keeper.rest();
    }
}

fn clean_idle(service: &Arc<Service>) {
    for chunk in service.store.idle_chunks(service.clock.monotonic(), IDLE) {
        let Some(pool) = service.pool(&chunk) else { continue };
        let (id, clock) = (chunk.id(), Arc::clone(&service.clock));
        let clean = move || {
            if let Err(error) = chunk.clean_if_idle(clock.monotonic(), IDLE) {
                tracing::warn!(%error, "copy not made clean");
            }
        };
        if pool.try_submit(Some(id), clean).is_err() {
            tracing::debug!(copy = %id, "disk is busy: the next round finds the idle copy again");
        }
    }
}
