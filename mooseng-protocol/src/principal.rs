//! Who sends a request: a role and an identity, proved when the connection was opened ([`crate::handshake`]), and the keys
//! by which roles are proved.
//!
//! ```text
//! cluster's key ──HMAC("MooseNG principals 1", key)──► secret ──HMAC(secret, "master" ‖ 1)──────► a master's key
//!                                                             ├─HMAC(secret, "chunkserver" ‖ 1)─► …
//!                                                             ├─HMAC(secret, "admin" ‖ 1)───────► …
//!                                                             └─HMAC(secret, "client" ‖ 1)──────► …
//! ```
//!
//! This is HKDF (RFC 5869) with HMAC-SHA-256, one block for each role. No key of a role leads to another, or back to the
//! cluster's, which alone signs tokens.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::pb;
use crate::rpc;
use crate::status::CallError;

const SALT: &[u8; 20] = b"MooseNG principals 1";

/// What a part of the cluster is to the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// A mount, or a program that uses the client's library.
    Client,
    /// A master.
    Master,
    /// A chunkserver.
    Chunkserver,
    /// The administrator's command line.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Client, Self::Master, Self::Chunkserver, Self::Admin];

    /// The role that a message names; `None` if it names none that is known.
    #[must_use]
    pub fn said(role: pb::Role) -> Option<Self> {
        match role {
            pb::Role::Unknown => None,
            pb::Role::Client => Some(Self::Client),
            pb::Role::Master => Some(Self::Master),
            pb::Role::Chunkserver => Some(Self::Chunkserver),
            pb::Role::Admin => Some(Self::Admin),
        }
    }

    /// Its name, for people and for deriving its key.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Master => "master",
            Self::Chunkserver => "chunkserver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Client => Self::Client,
            Role::Master => Self::Master,
            Role::Chunkserver => Self::Chunkserver,
            Role::Admin => Self::Admin,
        }
    }
}

/// The sender of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// What it is. Proved.
    pub role: Role,
    /// How it calls itself.
    pub name: String,
    /// A master's id, a listening client's session, else 0; as it says itself.
    pub node: u64,
    /// The id that a client's sessions are known by; all zero if it has shown none. `None` for one that speaks for all
    /// clients, which nobody becomes by a handshake.
    pub client: Option<[u8; 16]>,
}

impl Principal {
    /// The sender of this Hello; `None` if it names no role.
    #[must_use]
    pub fn of(hello: &pb::Hello) -> Option<Self> {
        let role = Role::said(hello.role())?;
        let client = Some(hello.client_id[..].try_into().unwrap_or_default());
        Some(Self { role, name: hello.name.clone(), node: hello.node_id, client })
    }

    /// Whether it may use a session of this client.
    #[must_use]
    pub fn may_be(&self, client: [u8; 16]) -> bool {
        self.client.is_none_or(|own| own == client)
    }

    /// Whether this request is one for its role.
    pub fn may_send(&self, kind: u16) -> Result<(), CallError> {
        if rpc::senders(kind).contains(&self.role) {
            Ok(())
        } else {
            Err(CallError::Forbidden { role: self.role, kind })
        }
    }
}

/// What proves a role; overwritten when it is dropped.
#[derive(Clone)]
pub struct PrincipalKey(Zeroizing<[u8; 32]>);

impl PrincipalKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The key's bytes, to be written into a file for the part that is to have it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        hmac(&self.0[..])
    }
}

impl fmt::Debug for PrincipalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrincipalKey(..)")
    }
}

/// The keys of all roles: what a part has that has the cluster's key.
#[derive(Clone, Debug)]
pub struct Keyring {
    client: PrincipalKey,
    master: PrincipalKey,
    chunkserver: PrincipalKey,
    admin: PrincipalKey,
}

impl Keyring {
    /// The keys that follow from the cluster's.
    #[must_use]
    pub fn derive(cluster: &[u8; 32]) -> Self {
        let secret = Zeroizing::new(finish(hmac(SALT).chain_update(cluster)));
        let key = |role: Role| {
            let mac = hmac(&secret[..]).chain_update(role.name()).chain_update([1]);
            PrincipalKey(Zeroizing::new(finish(mac)))
        };
        Self {
            client: key(Role::Client),
            master: key(Role::Master),
            chunkserver: key(Role::Chunkserver),
            admin: key(Role::Admin),
        }
    }

    /// The key of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> &PrincipalKey {
        match role {
            Role::Client => &self.client,
            Role::Master => &self.master,
            Role::Chunkserver => &self.chunkserver,
            Role::Admin => &self.admin,
        }
    }
}

/// HMAC-SHA-256 under a key.
pub(crate) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    // A key of any length is valid for HMAC (RFC 2104), so the other arm is never taken.
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(error) => unreachable!("{error}"),
    }
}

pub(crate) fn finish(mac: Hmac<Sha256>) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Rpc as _;

    #[test]
    fn the_keys_of_roles_never_change() {
        let keys = Keyring::derive(&[7; 32]);
        let start = |role| u32::from_be_bytes(keys.of(role).bytes()[..4].try_into().unwrap());
        assert_eq!(Role::ALL.map(start), [0x0a8b3a99, 0x96d66eda, 0x257c90b3, 0xfed23b4c]);
    }

    #[test]
    fn no_key_is_that_of_another_role_or_cluster_or_the_clusters_own() {
        let mut found = vec![[7; 32], [8; 32]];
        for cluster in [[7; 32], [8; 32]] {
            found.extend(Role::ALL.map(|role| *Keyring::derive(&cluster).of(role).bytes()));
        }
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count);
    }

    #[test]
    fn a_key_is_shown_to_nobody() {
        assert_eq!(format!("{:?}", PrincipalKey::new(&[7; 32])), "PrincipalKey(..)");
        assert!(!format!("{:?}", Keyring::derive(&[7; 32])).contains(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn a_client_that_shows_no_id_has_one_of_its_own_kind_and_not_everybodys() {
        let of = |id: &[u8]| {
            let client_id = bytes::Bytes::copy_from_slice(id);
            Principal::of(&pb::Hello { role: 1, client_id, ..Default::default() }).unwrap()
        };
        assert!(of(&[5; 16]).may_be([5; 16]) && !of(&[5; 16]).may_be([6; 16]));
        for strange in [&[][..], &[5; 15], &[5; 17]] {
            assert!(!of(strange).may_be([5; 16]) && of(strange).may_be([0; 16]));
        }
    }

    #[test]
    fn a_role_sends_what_is_its_own_and_a_refusal_names_both() {
        let of = |role| Principal { role, name: "x".into(), node: 0, client: None };
        let may =
            |kind| Role::ALL.into_iter().filter(|role| of(*role).may_send(kind).is_ok()).collect::<Vec<_>>();
        assert_eq!(may(pb::RaftFrame::KIND), [Role::Master]);
        assert_eq!(may(pb::SnapshotRows::KIND), [Role::Master]);
        assert_eq!(may(pb::HeartbeatRequest::KIND), [Role::Chunkserver]);
        assert_eq!(may(pb::CreateRequest::KIND), [Role::Client]);
        assert_eq!(may(pb::RemoveMasterRequest::KIND), [Role::Admin]);
        assert_eq!(may(pb::ClusterStatusRequest::KIND), [Role::Client, Role::Admin]);
        assert_eq!(may(pb::WriteChunkRequest::KIND), [Role::Client, Role::Chunkserver]);
        assert_eq!(may(pb::Hello::KIND), []);
        assert_eq!(may(0xffff), []);
        let refused = of(Role::Client).may_send(pb::RemoveMasterRequest::KIND).unwrap_err();
        assert_eq!(refused.to_string(), "a client must not send RemoveMasterRequest (0x504)");
    }
}
