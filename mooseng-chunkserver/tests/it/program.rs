//! The program: exit codes, one line for every complaint, an orderly stop.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::CLUSTER;

fn write_config(dir: &Path, listen: &str) -> String {
    std::fs::write(dir.join("key"), "42".repeat(32)).unwrap();
    let shown = dir.display();
    format!(
        "data = '{shown}/data'\ndisks = ['{shown}/disk']\nlisten = '{listen}'\nkey_file = '{shown}/key'\n\
         cluster_id = '{CLUSTER}'\nmasters = []\n"
    )
}

fn command(dir: &Path, config: &str) -> Command {
    let path = dir.join("config.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooseng-chunkserver"));
    command.arg("--config").arg(path).env("MOOSENG_LOG", "info");
    command
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_config(dir.path(), "127.0.0.1:0");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    for (config, expected) in [
        (format!("{good}colour = 1\n"), "unknown field `colour`"),
        (good.replace("key'", "no-key'"), "copy the cluster's key"),
        (good.replace("127.0.0.1:0", &busy), "choose another address"),
        (good.replace(&format!("cluster_id = '{CLUSTER}'"), ""), ""),
    ] {
        let output =
            command(dir.path(), &config).stdin(Stdio::null()).arg("--check-config").output().unwrap();
        if expected == "choose another address" || expected.is_empty() {
            assert!(output.status.success(), "{}", complaint(&output));
            continue;
        }
        assert_eq!(output.status.code(), Some(2));
        assert!(complaint(&output).contains(expected), "{}", complaint(&output));
        assert_eq!(complaint(&output).lines().count(), 1, "{}", complaint(&output));
    }
    let output = command(dir.path(), &good.replace("127.0.0.1:0", &busy)).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
    assert!(complaint(&output).lines().last().unwrap().contains("choose another address"));
    let other = good.replace(CLUSTER, &"ab".repeat(16));
    let output = command(dir.path(), &other).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("belongs to cluster"), "{}", complaint(&output));
}

#[test]
fn a_termination_signal_is_an_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "127.0.0.1:0");
    let mut child = command(dir.path(), &config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "ended before serving");
    }
    // While it runs, a second one on the same directories is refused.
    let second = command(dir.path(), &config).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(complaint(&second).contains("in use by another process"), "{}", complaint(&second));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("stopped"), "{rest}");
}
