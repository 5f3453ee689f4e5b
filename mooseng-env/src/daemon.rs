//! What every daemon does once: logs, the word to systemd, a lock on its data directory, what it asks of the kernel.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;
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
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = tell(&name, state) {
        tracing::warn!(%error, "the service manager was not reached");
    }
}

/// A socket whose name begins with `@` is in no directory (`unix(7)`: abstract).
fn tell(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Open files that servers ask for: chunks, or the tables of many groups' stores, and connections.
const OPEN_FILES: u64 = 65_536;

/// Asks for more open files than the usual 1024, as many as the machine allows.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(OPEN_FILES);
    let wanted = Rlimit { current: Some(OPEN_FILES.min(most)), maximum: now.maximum };
    if now.current.is_some_and(|current| current < OPEN_FILES)
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

/// Has memory given to this process in pages of the usual size. For a process with many threads that seldom work: each keeps
/// what it has last touched, which would be 2 MiB instead of some pages.
pub fn keep_pages_small() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages were not turned off");
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
        file.try_lock()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_machine_allows() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..before }).unwrap();
        raise_open_files();
        let wanted = OPEN_FILES.min(before.maximum.unwrap_or(OPEN_FILES));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(wanted));
    }

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        assert_eq!(DirLock::take(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn the_service_manager_is_reached_by_a_path_and_by_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("mooseng-notify-{}", dir.path().display());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            tell(&address, "READY=1").unwrap();
            let mut word = [0; 32];
            let length = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..length], b"READY=1");
        }
        assert_eq!(
            tell(OsStr::new("@nobody is here"), "").unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
