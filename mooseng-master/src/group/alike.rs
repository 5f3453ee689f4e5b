//! Are all replicas alike? Each tells the others the rolling hash of its state as it goes; the leader compares, and
//! whoever differs is taken out of service before it answers anything more.

use mooseng_types::MasterId;

use super::digests::Differs;
use super::{Differing, Effect, Group, PeerMessages};
use crate::raft::Role;

impl Group {
    /// Another master says where its state stands.
    pub(super) fn hear_digest(&mut self, said: &PeerMessages) {
        if let Some(differs) = &said.differs
            && differs.member == self.config.id
            && self.digests.noted(differs.index) == Some(differs.theirs)
        {
            self.leave_service(differs.index, differs.theirs, differs.majority);
        }
        let Some(from) = said.messages.first().map(|message| MasterId::from_raw(message.from)) else {
            return;
        };
        let Some((index, digest)) = said.digest.filter(|_| self.node.role() == Role::Leader) else { return };
        self.digests.told(from, index, digest);
        let members: Vec<MasterId> = self.members.members.iter().map(|member| member.id).collect();
        self.digests.retain(&members);
        let Some(Differs { at, member, theirs, majority }) = self.digests.verdict(&members, self.config.id)
        else {
            return;
        };
        tracing::error!(%member, index = at, theirs, majority, "a master's state differs from the others'; it has to leave");
        if member == self.config.id {
            return self.leave_service(at, theirs, majority);
        }
        let differs = Some(Differing { index: at, theirs, majority, member });
        self.effects.push(Effect::Send(member, PeerMessages { differs, ..self.nothing_said() }));
    }

    fn leave_service(&mut self, index: u64, own: u64, others: u64) {
        let id = self.config.id;
        self.door.removed = true;
        self.effects.push(Effect::OutOfService(format!(
            "master {} differs from the others in its state: at or before entry {index} its rolling hash is {own:016x}, theirs {others:016x}",
            id.number()
        )));
    }
}
