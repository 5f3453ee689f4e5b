//! Copies that are checked because the leader wants it, and the passes over the disks as an administrator directs them.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::transport::FrameStream;

use crate::master::Master;
use crate::support::{SOON, caller, start, token, write, write_request};

#[test]
fn what_the_leader_wants_verified_is_read_and_told_and_a_pass_is_directed_by_an_administrator() {
    let mut master = Master::new();
    let server = start(vec![master.address()]);
    for chunk in 1..=2 {
        let request = write_request(&token(chunk, 4, 4, true), chunk, 0, &[7; 100_000], &[]);
        write(&mut server.connect(), &request, &[7; 100_000]).unwrap();
    }
    let data = |disk: &str| -> PathBuf { server.dir.path().join(disk).join("02/0000000000000002.data") };
    let data = ["disk-a", "disk-b"].map(data).into_iter().find(|path| path.exists()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(b"x", 99_999).unwrap();
    master.accept();
    assert!(master.next_report(3).chunks.iter().all(|copy| !copy.verified));
    let wanted = |chunk| pb::PartRef { chunk, index: 0 };
    master.push(&pb::VerifyChunks { parts: (1..=3).map(wanted).collect() });
    let (mut verified, mut lost) = (Vec::new(), Vec::new());
    while verified.len() + lost.len() < 3 {
        let report = master.next_report(3);
        verified.extend(report.chunks);
        lost.extend(report.lost);
    }
    lost.sort_unstable();
    let good = pb::CopyStatus { chunk: 1, version: 4, in_doubt: false, part: 0, verified: true };
    assert_eq!((verified, lost), (vec![good], vec![2, 3]));

    let mut admin = FrameStream::connect(&server.address(), &caller(Role::Admin), SOON).unwrap().0;
    let scrub =
        |action: pb::ScrubAction, disk: &str| pb::ScrubRequest { action: action.into(), disk: disk.into() };
    for action in [pb::ScrubAction::Pause, pb::ScrubAction::Resume, pb::ScrubAction::Start] {
        admin.call(&scrub(action, ""), &[], SOON).unwrap();
    }
    let unknown =
        admin.call(&scrub(pb::ScrubAction::Start, "/elsewhere"), &[], SOON).unwrap_err().to_string();
    assert!(unknown.contains("no disk of this server is /elsewhere"), "{unknown}");
    assert!(admin.call(&scrub(pb::ScrubAction::Unknown, ""), &[], SOON).is_err());
    drop((admin, master));
    server.server.stop();
    for disk in ["disk-a", "disk-b"] {
        let note = std::fs::read_to_string(server.dir.path().join(disk).join("scrub")).unwrap();
        assert!(note.starts_with("mooseng scrub, format 1\nstarted "), "{note}");
    }
}
