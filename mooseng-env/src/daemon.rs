//! What every daemon does once: logs, the word to systemd, a lock on its data directory, waiting for the order to stop.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error: text for people at a terminal, JSON with `json`. `MOOSENG_LOG` sets the filter
/// ("info", "mooseng_master=debug"), `info` by default. A second call changes nothing.
pub fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_env("MOOSENG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let started = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    drop(started);
}

/// Tells the service manager about a change of state, `READY=1` or `STOPPING=1` (`sd_notify(3)`). Does nothing where
/// no service manager asked for it.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), Path::new(&path)));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager was not reached");
    }
}

/// A lock on a data directory that ends with the process, whatever happens to it.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir`; fails at once with `WouldBlock` if another process has it.
    pub fn take(dir: &Path) -> io::Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        assert_eq!(DirLock::take(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }
}
