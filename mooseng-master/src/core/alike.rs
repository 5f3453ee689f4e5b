//! Are all replicas alike? Each tells the others the rolling hash of its state as it goes; the leader compares, and
//! whoever differs is taken out of service before it answers anything more.

use mooseng_protocol::pb;
use mooseng_types::MasterId;

use super::{Effect, MasterCore};
use crate::digests::Differs;
use crate::raft::Role;

impl MasterCore {
    /// Another master says where its state stands.
    pub(super) fn hear_digest(&mut self, messages: &pb::RaftMessages) {
        if let Some(differs) = &messages.differs
            && differs.member == self.config.id.raw()
            && self.digests.noted(differs.index) == Some(differs.yours)
        {
            self.leave_service(differs.index, differs.yours, differs.ours);
        }
        let Some(from) = messages.messages.first().map(|message| MasterId::from_raw(message.from)) else {
            return;
        };
        if messages.digest_index == 0 || self.node.role() != Role::Leader {
            return;
        }
        self.digests.told(from, messages.digest_index, messages.digest);
        let members: Vec<MasterId> = self.group.members.iter().map(|member| member.id).collect();
        self.digests.retain(&members);
        let Some(Differs { at, member, theirs, majority }) = self.digests.verdict(&members, self.config.id)
        else {
            return;
        };
        tracing::error!(%member, index = at, theirs, majority, "a master's state differs from the others'; it has to leave");
        if member == self.config.id {
            return self.leave_service(at, theirs, majority);
        }
        let differs =
            Some(pb::DigestDiffers { index: at, yours: theirs, ours: majority, member: member.raw() });
        self.effects.push(Effect::Send(member, pb::RaftMessages { differs, ..Default::default() }));
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
