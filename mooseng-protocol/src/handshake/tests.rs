//! Both sides against each other, with somebody in between who changes what they say.

use std::time::Duration;

use bytes::Bytes;
use mooseng_types::ClusterId;
use mooseng_types::level::SUPPORTED;
use proptest::prelude::*;
use prost::Message as _;

use super::{Caller, HANDSHAKE_MAX, Heard, Nonce, Opening};
use crate::pb;
use crate::principal::{Keyring, Role};
use crate::rpc::Rpc as _;
use crate::status::CallError;

const CLUSTER_KEY: [u8; 32] = [7; 32];
const CALLERS_NONCE: Nonce = [1; 32];
const CALLED_NONCE: Nonce = [2; 32];

fn keys() -> Keyring {
    Keyring::derive(&CLUSTER_KEY)
}

fn caller(role: Role, keys: &Keyring) -> Caller {
    let hello = pb::Hello::new(role.into(), "somebody", Some(ClusterId::from_bytes([3; 16])), SUPPORTED);
    Caller::new(pb::Hello { node_id: 9, ..hello }, keys.of(role).clone(), || CALLERS_NONCE)
}

fn mine() -> pb::HelloReply {
    pb::HelloReply::new("master-1", ClusterId::from_bytes([3; 16]), SUPPORTED)
}

/// The four frames' bodies.
type Bodies = [Vec<u8>; 4];

/// A whole handshake, in which `change` has its way with the body of each frame, by number. What the caller is told in the
/// end, and how far the two came.
fn shake(
    caller: &Caller,
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> (Result<pb::HelloReply, CallError>, Bodies) {
    let mut bodies = Bodies::default();
    let mut pass = |number: usize, body: Vec<u8>| {
        bodies[number] = body;
        change(number, &mut bodies[number]);
        Bytes::from(bodies[number].clone())
    };
    let mut shake = || {
        let bad = |_| CallError::Rejected { message: "malformed".into() };
        let mut opening = Opening::new(Duration::ZERO, CALLED_NONCE);
        let asking = caller.begin();
        let hello = pass(0, asking.hello().encode_to_vec());
        let Heard::Challenge(challenge) = opening.hear(&keys(), pb::Hello::KIND, &hello)? else { panic!() };
        let challenge = pb::Challenge::decode(pass(1, challenge.encode_to_vec())).map_err(bad)?;
        let proving = asking.challenged(&challenge)?;
        let proof = pass(2, proving.proof().encode_to_vec());
        let Heard::Proven(proven) = opening.hear(&keys(), pb::Proof::KIND, &proof)? else { panic!() };
        assert_eq!(proven.principal().node, 9);
        let welcome = pass(3, proven.welcome(&mine()).encode_to_vec());
        proving.welcomed(&pb::Welcome::decode(welcome).map_err(bad)?)
    };
    let outcome = shake();
    (outcome, bodies)
}

#[test]
fn whoever_has_the_key_of_its_role_is_known_and_knows_whom_it_has_called() {
    for role in Role::ALL {
        assert_eq!(shake(&caller(role, &keys()), |_, _| {}).0.unwrap(), mine());
    }
}

#[test]
fn a_wrong_key_or_the_key_of_another_role_proves_nothing_and_the_refusal_says_what_to_do() {
    let strangers = Keyring::derive(&[8; 32]);
    for role in Role::ALL {
        let refused = shake(&caller(role, &strangers), |_, _| {}).0.unwrap_err().to_string();
        assert!(refused.contains("key_file") && !refused.contains("master-1"), "{refused}");
        for other in Role::ALL.into_iter().filter(|other| *other != role) {
            let hello = caller(role, &keys()).hello;
            let pretender = Caller::new(hello, keys().of(other).clone(), || CALLERS_NONCE);
            assert!(shake(&pretender, |_, _| {}).0.is_err(), "a {other} speaks as a {role}");
        }
    }
    let cluster_key = crate::principal::PrincipalKey::new(&CLUSTER_KEY);
    let confused = Caller::new(caller(Role::Client, &keys()).hello, cluster_key, || CALLERS_NONCE);
    assert!(shake(&confused, |_, _| {}).0.is_err(), "a client proves itself by its own key alone");
}

#[test]
fn a_called_side_without_the_key_is_found_out() {
    let (caller, strangers) = (caller(Role::Client, &keys()), Keyring::derive(&[8; 32]));
    let asking = caller.begin();
    // It takes whatever proof comes, and makes a welcome of its own.
    let proving = asking.challenged(&pb::Challenge { nonce: vec![5; 32].into() }).unwrap();
    let imposter = Caller::new(caller.hello.clone(), strangers.of(Role::Client).clone(), || CALLERS_NONCE);
    let mut opening = Opening::new(Duration::ZERO, [5; 32]);
    let theirs = imposter.begin();
    opening.hear(&strangers, pb::Hello::KIND, &theirs.hello().encode_to_vec().into()).unwrap();
    let theirs = theirs.challenged(&pb::Challenge { nonce: vec![5; 32].into() }).unwrap();
    let proof = theirs.proof().encode_to_vec().into();
    let Heard::Proven(proven) = opening.hear(&strangers, pb::Proof::KIND, &proof).unwrap() else { panic!() };
    let refused = proving.welcomed(&proven.welcome(&mine())).unwrap_err().to_string();
    assert!(refused.contains("has not proved"), "{refused}");
    let nothing = caller.begin().challenged(&pb::Challenge { nonce: vec![5; 32].into() }).unwrap();
    assert!(nothing.welcomed(&pb::Welcome::default()).is_err());
}

#[test]
fn a_proof_is_good_for_one_connection_only_and_for_one_direction() {
    let client = caller(Role::Client, &keys());
    let (_, [hello, _, proof, welcome]) = shake(&client, |_, _| {});
    let replayed = |nonce: Nonce, proof: Vec<u8>| {
        let mut opening = Opening::new(Duration::ZERO, nonce);
        opening.hear(&keys(), pb::Hello::KIND, &hello.clone().into()).unwrap();
        opening.hear(&keys(), pb::Proof::KIND, &proof.into())
    };
    assert!(replayed(CALLED_NONCE, proof.clone()).is_ok());
    assert!(replayed([4; 32], proof).is_err());
    let reflected = pb::Proof { mac: pb::Welcome::decode(&welcome[..]).unwrap().mac };
    assert!(replayed(CALLED_NONCE, reflected.encode_to_vec()).is_err());
    // And an old welcome is none to a new nonce of the caller's.
    let other = Caller::new(client.hello.clone(), keys().of(Role::Client).clone(), || [6; 32]);
    let proving = other.begin().challenged(&pb::Challenge { nonce: CALLED_NONCE.to_vec().into() }).unwrap();
    assert!(proving.welcomed(&pb::Welcome::decode(&welcome[..]).unwrap()).is_err());
}

#[test]
fn frames_come_in_their_order_and_each_once() {
    let hello: Bytes = caller(Role::Client, &keys()).begin().hello().encode_to_vec().into();
    let hear = |kinds: &[u16]| {
        let mut opening = Opening::new(Duration::ZERO, CALLED_NONCE);
        kinds.iter().map(|kind| opening.hear(&keys(), *kind, &hello)).collect::<Vec<_>>()
    };
    assert!(hear(&[pb::Proof::KIND])[0].is_err());
    assert!(hear(&[pb::GetAttrRequest::KIND])[0].is_err());
    assert!(hear(&[pb::Hello::KIND, pb::Hello::KIND])[1].is_err());
    assert!(hear(&[pb::Hello::KIND, pb::GetAttrRequest::KIND])[1].is_err());
    // Nothing can be mended after a refusal.
    assert!(hear(&[pb::Proof::KIND, pb::Hello::KIND])[1].is_err());
}

#[test]
fn a_hello_without_a_role_a_nonce_or_the_version_is_refused_at_once() {
    let good = caller(Role::Client, &keys()).begin().hello().clone();
    let refused = |hello: pb::Hello| {
        let mut opening = Opening::new(Duration::ZERO, CALLED_NONCE);
        opening.hear(&keys(), pb::Hello::KIND, &hello.encode_to_vec().into()).unwrap_err().to_string()
    };
    assert!(refused(pb::Hello { role: 0, ..good.clone() }).contains("no role"));
    assert!(refused(pb::Hello { role: 77, ..good.clone() }).contains("no role"));
    assert!(refused(pb::Hello { nonce: vec![1; 31].into(), ..good.clone() }).contains("no nonce"));
    assert!(refused(pb::Hello { protocol_version: 1, ..good }).contains("the same release everywhere"));
}

#[test]
fn a_caller_has_its_time_and_no_more() {
    let opening = Opening::new(Duration::from_secs(5), CALLED_NONCE);
    assert!(!opening.is_overdue(Duration::from_secs(5)));
    assert!(!opening.is_overdue(Duration::from_secs(5) + HANDSHAKE_MAX - Duration::from_nanos(1)));
    assert!(opening.is_overdue(Duration::from_secs(5) + HANDSHAKE_MAX));
}

#[test]
fn the_bytes_of_a_handshake_never_change() {
    let hello = pb::Hello {
        role: pb::Role::Client.into(),
        name: "m".into(),
        protocol_version: 2,
        ..Default::default()
    };
    let caller = Caller::new(hello, keys().of(Role::Client).clone(), || CALLERS_NONCE);
    let asking = caller.begin();
    let expected = [&[0x10, 2, 0x18, 1, 0x22, 1, b'm', 0x4a, 32][..], &CALLERS_NONCE].concat();
    assert_eq!(asking.hello().encode_to_vec(), expected);
    let mut opening = Opening::new(Duration::ZERO, CALLED_NONCE);
    opening.hear(&keys(), pb::Hello::KIND, &expected.into()).unwrap();
    let proving = asking.challenged(&pb::Challenge { nonce: CALLED_NONCE.to_vec().into() }).unwrap();
    let proof = proving.proof();
    assert_eq!(hex(&proof.mac), "fba335b03bd4e3d0d31ed3cf5b73a8775ef40aed3f4a8cb5ea29cdcddc44af3e");
    let Ok(Heard::Proven(proven)) = opening.hear(&keys(), pb::Proof::KIND, &proof.encode_to_vec().into())
    else {
        panic!("refused");
    };
    let welcome = proven.welcome(&pb::HelloReply { name: "s".into(), ..Default::default() });
    assert_eq!(welcome.reply, &[0x1a, 1, b's'][..]);
    assert_eq!(hex(&welcome.mac), "24676aebab1bd52cdde19c8e1b1bbd06bbc4a427d5d7c1d665921cc34c064a22");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn a_changed_bit_in_any_frame_ends_the_handshake(
        role in 0usize..4, frame in 0usize..4, at: prop::sample::Index, bit in 0u8..8,
    ) {
        let caller = caller(Role::ALL[role], &keys());
        let (outcome, _) = shake(&caller, |number, body| {
            if number == frame {
                let at = at.index(body.len());
                body[at] ^= 1 << bit;
            }
        });
        prop_assert!(outcome.is_err(), "frame {frame} of a {}", Role::ALL[role]);
    }

    #[test]
    fn another_hello_under_the_same_proof_is_refused(swapped in 0usize..4, name in "[a-z]{0,8}", node: u64) {
        let caller = caller(Role::Client, &keys());
        let (outcome, _) = shake(&caller, |number, body| {
            if number == 0 {
                let said = pb::Hello::decode(&body[..]).unwrap();
                let role = pb::Role::from(Role::ALL[swapped]).into();
                *body = pb::Hello { role, name: name.clone(), node_id: node, ..said }.encode_to_vec();
            }
        });
        prop_assert!(outcome.is_err());
    }

    #[test]
    fn garbage_is_refused_and_nothing_more(kind: u16, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut opening = Opening::new(Duration::ZERO, CALLED_NONCE);
        let body = Bytes::from(body);
        let first = opening.hear(&keys(), kind, &body);
        prop_assert!(!matches!(first, Ok(Heard::Proven(_))));
        prop_assert!(opening.hear(&keys(), kind, &body).is_err());
    }
}
