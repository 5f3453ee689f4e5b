//! fsck. It reads every row, so the edge does it on a view of the store, on a thread of its own, while the loop goes on.

use std::sync::Arc;
use std::time::Duration;

use mooseng_meta::Checked;
use mooseng_protocol::frame::Header;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use prost::Message;

use super::outbox::Outbox;
use crate::conn::ConnId;
use crate::group::Group;

/// Requests that may wait for a check to begin.
const WAITING_MAX: usize = 16;
/// Violations that are told one by one; more are counted.
const TOLD_MAX: usize = 1000;

/// Those who wait for a check.
#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: Vec<Waiting>,
    /// Who gets the answer of the check that is under way; nobody, if none is.
    under_way: Vec<(ConnId, Header)>,
}

#[derive(Debug)]
struct Waiting {
    conn: ConnId,
    header: Header,
    /// The last entry applied when it was asked for: the store must have it.
    index: u64,
}

impl Checks {
    /// Has the metadata checked as they are now, or later; answered when that is done.
    pub(super) fn ask(
        &mut self,
        group: &mut Group,
        now: Duration,
        (conn, header): (ConnId, Header),
        out: &mut Outbox,
    ) -> Result<(), CallError> {
        group.must_serve_reads(now)?;
        if self.waiting.len() >= WAITING_MAX {
            return Err(CallError::Unavailable {
                message: "too many checks wait for one that is under way".into(),
            });
        }
        self.waiting.push(Waiting { conn, header, index: group.state().applied_index() });
        self.begin(group, now, out);
        Ok(())
    }

    /// Begins what is asked for, unless one is under way, or the store has yet to get what is to be checked.
    pub(super) fn begin(&mut self, group: &mut Group, now: Duration, out: &mut Outbox) {
        let Some(index) = self.waiting.iter().map(|it| it.index).max() else { return };
        if !self.under_way.is_empty() {
            return;
        }
        if group.durable_index() < index {
            return group.flush(now);
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.under_way = waiting.into_iter().map(|it| (it.conn, it.header)).collect();
        out.check(Arc::clone(group.state().store()));
    }

    /// What a check has found, or why it could not be made.
    pub(super) fn done(&mut self, found: Result<Checked, CallError>, out: &mut Outbox) {
        let reply = found.map(|found| reply(&found).encode_to_vec());
        for (conn, header) in std::mem::take(&mut self.under_way) {
            out.reply(conn, header, reply.as_deref());
        }
    }

    /// This master leads no longer: the next leader is to be asked.
    pub(super) fn refuse_waiting(&mut self, error: &CallError, out: &mut Outbox) {
        for it in std::mem::take(&mut self.waiting) {
            out.reply(it.conn, it.header, Err(error));
        }
    }
}

fn reply(found: &Checked) -> pb::CheckReply {
    let mut violations: Vec<String> =
        found.violations.iter().take(TOLD_MAX).map(ToString::to_string).collect();
    if found.violations.len() > TOLD_MAX {
        violations.push(format!("and {} more", found.violations.len() - TOLD_MAX));
    }
    pb::CheckReply { violations, inodes: found.totals.inodes, chunks: found.totals.chunks }
}

#[cfg(test)]
mod tests {
    use mooseng_meta::check_view;
    use mooseng_protocol::rpc::Rpc;
    use mooseng_types::CellId;

    use super::*;
    use crate::core::testing::{core, framed, principal};
    use crate::core::{Effect, MasterCore, Now};
    use crate::group::testing::{NOW, config};
    use crate::raft::Recovered;
    use crate::{desk, group};

    /// Lets pass what needs no decision of the test: everything but flushes and checks.
    fn settle(core: &mut MasterCore, now: Now) -> Vec<Effect> {
        core.tick(now);
        core.settle(now);
        let mut left = Vec::new();
        for effect in core.take_effects() {
            match effect {
                Effect::Group(_, group::Effect::Persist(batch)) => core.persisted(CellId::ROOT, batch.number),
                Effect::Desk(desk::Effect::Frame(..) | desk::Effect::Check(_))
                | Effect::Group(_, group::Effect::Flush(..)) => left.push(effect),
                _ => {}
            }
        }
        left
    }

    fn flush(core: &mut MasterCore, now: Now, effect: &Effect) {
        let Effect::Group(_, group::Effect::Flush(store, batch)) = effect else {
            panic!("{effect:?} is no flush")
        };
        store.write(batch);
        core.flushed(now, CellId::ROOT);
    }

    /// The only master of a group that serves.
    fn serving() -> (MasterCore, Now) {
        let mut core = core(config(1), Recovered::default());
        let mut now = NOW;
        while core.groups.root().must_serve_reads(now.mono).is_err() {
            now.mono += MasterCore::next_tick();
            for effect in settle(&mut core, now) {
                flush(&mut core, now, &effect);
            }
            assert!(now.mono < Duration::from_secs(60), "it does not serve");
        }
        (core, now)
    }

    fn ask<R: Rpc>(core: &mut MasterCore, now: Now, conn: u64, request: &R) -> Vec<Effect> {
        let header = Header { kind: R::KIND, request: 1, ..Header::default() };
        core.request(now, &principal(R::SENDERS[0]), framed(conn), header, request.encode_to_vec().into());
        settle(core, now)
    }

    #[test]
    fn a_check_waits_for_the_store_and_a_second_one_for_the_first() {
        let (mut core, now) = serving();
        ask(
            &mut core,
            now,
            1,
            &pb::OpenSessionRequest { client_id: vec![1; 16].into(), ..Default::default() },
        );
        settle(&mut core, now);
        let asked = ask(&mut core, now, 1, &pb::CheckRequest {});
        let [needed] = &asked[..] else { panic!("{asked:?}") };
        flush(&mut core, now, needed);
        let begun = settle(&mut core, now);
        let [Effect::Desk(desk::Effect::Check(store))] = &begun[..] else { panic!("{begun:?}") };
        assert_eq!(ask(&mut core, now, 2, &pb::CheckRequest {}).len(), 0);
        core.checked(now, Ok(check_view(store.view().into(), CellId::ROOT).unwrap()));
        let after = settle(&mut core, now);
        assert!(
            matches!(
                after[..],
                [
                    Effect::Desk(desk::Effect::Frame(ConnId::Framed(1), _)),
                    Effect::Desk(desk::Effect::Check(_))
                ]
            ),
            "{after:?}"
        );
        core.checked(now, Err(CallError::Unavailable { message: "no thread".into() }));
        let after = settle(&mut core, now);
        assert!(matches!(after[..], [Effect::Desk(desk::Effect::Frame(ConnId::Framed(2), _))]), "{after:?}");
    }
}
