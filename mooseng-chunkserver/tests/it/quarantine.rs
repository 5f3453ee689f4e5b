//! Copies in quarantine, as the leader orders them there and an administrator has them back.

use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;

use crate::master::Master;
use crate::support::{SOON, caller, read, start, token, write, write_request};

#[test]
fn what_the_leader_gives_up_an_administrator_lists_and_takes_back_and_nobody_else() {
    let mut master = Master::new();
    let server = start(vec![master.address()]);
    for chunk in 1..=3 {
        let request = write_request(&token(chunk, 4, 4, true), chunk, 0, b"bytes", &[]);
        write(&mut server.connect(), &request, b"bytes").unwrap();
    }
    master.accept();
    assert_eq!(master.next_report(3).chunks.len(), 3);
    let copy = |chunk| pb::CondemnedCopy { chunk, index: 0, version: 4 };
    master.push(&pb::QuarantineChunks { copies: (1..=4).map(copy).collect(), keep_s: 3600 });
    let mut lost = Vec::new();
    while lost.len() < 4 {
        lost.extend(master.next_report(3).lost);
    }
    lost.sort_unstable();
    assert_eq!(lost, [1, 2, 3, 4]);
    assert!(read(&mut server.connect(), 2, 4, 0, 5).is_err());

    let list = pb::ListQuarantineRequest { after: None, limit: 2 };
    let forbidden = server.connect().call(&list, &[], SOON);
    assert!(matches!(forbidden, Err(CallError::Forbidden { .. })), "{forbidden:?}");
    let mut admin = FrameStream::connect(&server.address(), &caller(Role::Admin), SOON).unwrap().0;
    let first = admin.call(&list, &[], SOON).unwrap();
    let chunks = |reply: &pb::ListQuarantineReply| reply.copies.iter().map(|it| it.chunk).collect::<Vec<_>>();
    assert_eq!((chunks(&first), first.more), (vec![1, 2], true));
    let second = pb::ListQuarantineRequest { after: first.copies.last().cloned(), limit: 0 };
    let second = admin.call(&second, &[], SOON).unwrap();
    assert_eq!((chunks(&second), second.more), (vec![3], false));
    let one = &second.copies[0];
    assert_eq!((one.version, one.length_bytes), (4, 5));
    assert!(one.until_unix_s > 1_700_000_000 && one.disk.contains("disk-"), "{one:?}");

    let restore = |version| pb::RestoreQuarantinedRequest { chunk: 2, index: 0, version };
    let unknown = admin.call(&restore(5), &[], SOON).unwrap_err().to_string();
    assert!(unknown.contains("no copy of version v5 is in quarantine here"), "{unknown}");
    admin.call(&restore(4), &[], SOON).unwrap();
    assert_eq!(master.next_report(3).chunks.len(), 1);
    assert_eq!(read(&mut server.connect(), 2, 4, 0, 5).unwrap().1, b"bytes");
    assert!(admin.call(&restore(4), &[], SOON).is_err());
    drop((admin, master));
    server.server.stop();
}
