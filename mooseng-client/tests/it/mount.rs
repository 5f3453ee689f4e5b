//! A real mount over the masters and chunkservers of this process, where this machine lets us.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mooseng_env::secret::Secret;

use crate::fake::{World, key};
use crate::pattern;

#[test]
fn programs_see_a_file_system() {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new(2);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let ready = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    ready.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let point = dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let (config, key_file) = (dir.path().join("mount.toml"), dir.path().join("client.key"));
    Secret::take(&mut key().bytes().clone()).save(&key_file).unwrap();
    fs::write(&config, format!("client_key_file = {key_file:?}")).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_mooseng-mount"))
        .arg("--config")
        .arg(&config)
        .args(["--masters", &world.master()])
        .arg(&point)
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut word = [0; 32];
    let length = ready.recv(&mut word).unwrap();
    assert_eq!(&word[..length], b"READY=1");
    let used = std::panic::catch_unwind(|| use_it(&point));
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM)
        .unwrap();
    let status = daemon.wait().unwrap();
    used.unwrap();
    assert!(status.success(), "{status}");
}

fn use_it(point: &Path) {
    let small = point.join("small");
    fs::write(&small, b"hello").unwrap();
    assert_eq!(fs::read(&small).unwrap(), b"hello");
    assert_eq!(fs::metadata(&small).unwrap().size(), 5);
    fs::create_dir(point.join("dir")).unwrap();
    std::os::unix::fs::symlink("small", point.join("link")).unwrap();
    assert_eq!(fs::read_link(point.join("link")).unwrap(), Path::new("small"));
    let data = pattern(9 << 20, 1);
    let large = point.join("dir/large");
    let mut file = fs::File::create(&large).unwrap();
    file.write_all(&data).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(1_000_000)).unwrap();
    file.write_all(b"over").unwrap();
    drop(file);
    let mut back = Vec::new();
    fs::File::open(&large).unwrap().read_to_end(&mut back).unwrap();
    assert!(back[..1_000_000] == data[..1_000_000] && &back[1_000_000..1_000_004] == b"over");
    assert!(back[1_000_004..] == data[1_000_004..]);
    let many = point.join("dir");
    for i in 0..200 {
        fs::write(many.join(format!("file{i}")), b"x").unwrap();
    }
    assert_eq!(fs::read_dir(&many).unwrap().count(), 201);
    fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(3).unwrap();
    assert_eq!(fs::read(&large).unwrap(), &data[..3]);
    fs::remove_file(&small).unwrap();
    assert_eq!(fs::metadata(&small).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
