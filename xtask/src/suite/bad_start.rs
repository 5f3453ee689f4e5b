//! Starts that cannot work end soon, with an exit code and one line that says why; nothing else is harmed by them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, Outcome};
use crate::cluster::Cluster;
use crate::shell;

/// A daemon that cannot start has to say so within this time; reaching for masters takes the longest.
const REFUSAL_LIMIT: Duration = Duration::from_secs(90);
const LINE_CHARS_MAX: usize = 600;

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut other = Cluster::start(&context.options_for(1))?;
    other.stop()?;
    let mut cluster = context.cluster()?;
    let data = cluster.data().to_path_buf();

    refused("mount point in use", &mut cluster.daemon("mount", &data.join("mount/config.toml")))?;
    cluster.kill("chunkserver-1")?;
    let stranger = swap_contents(&data.join("chunkserver-1"), &other.data().join("chunkserver-1"))?;
    refused("data of another cluster (chunkserver)", &mut cluster.daemon("chunkserver", &stranger))?;
    cluster.stop()?;

    for (kind, name) in [("master", "master-1"), ("chunkserver", "chunkserver-2"), ("mount", "mount")] {
        let config = data.join(name).join("config.toml");
        let text = fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
        let wrong = data.join(name).join("wrong.toml");
        fs::write(&wrong, format!("no_such_key = 1\n{text}"))?;
        let said = refused(&format!("wrong key ({kind})"), &mut cluster.daemon(kind, &wrong))?;
        ensure!(said.contains("no_such_key"), "the line does not name the wrong key: {said}");
    }
    busy_port(&cluster, &data)?;
    refused("unreachable masters (mount)", &mut cluster.daemon("mount", &data.join("mount/config.toml")))?;
    refused("no configuration at all", &mut cluster.daemon("master", &data.join("no-such-file.toml")))?;
    Ok(Outcome::Passed)
}

/// Holds every port the master's configuration names, then starts it.
fn busy_port(cluster: &Cluster, data: &Path) -> Result<()> {
    let config = data.join("master-1/config.toml");
    let addresses = loopback_addresses(&fs::read_to_string(&config)?);
    ensure!(!addresses.is_empty(), "no address in {}", config.display());
    let held: Vec<TcpListener> =
        addresses.iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
    ensure!(!held.is_empty(), "none of {addresses:?} could be held");
    refused("busy port (master)", &mut cluster.daemon("master", &config))?;
    Ok(())
}

fn loopback_addresses(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    let mut found: Vec<String> = words
        .filter(|word| word.parse::<std::net::SocketAddrV4>().is_ok_and(|a| a.ip().is_loopback()))
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Puts the contents of `from` in place of `target`'s, all but the configuration; answers the configuration's path.
fn swap_contents(target: &Path, from: &Path) -> Result<PathBuf> {
    let config = target.join("config.toml");
    let text = fs::read(&config)?;
    fs::remove_dir_all(target)?;
    shell::stdout(Command::new("cp").arg("-a").arg(from).arg(target))?;
    fs::write(&config, text)?;
    Ok(config)
}

/// Runs a daemon that must end by itself with an error; answers the line it said.
fn refused(what: &str, command: &mut Command) -> Result<String> {
    let done = shell::finish(command, REFUSAL_LIMIT)
        .with_context(|| format!("{what}: it should have ended with an error"))?;
    if done.status.success() {
        bail!("{what}: exit code 0");
    }
    let lines = error_lines(&done.stderr);
    match lines.as_slice() {
        [line] if line.chars().count() <= LINE_CHARS_MAX && done.status.code().is_some() => {
            println!("bad_start: {what}: {} ({line})", done.status);
            Ok((*line).to_owned())
        }
        _ => bail!("{what}: {}, and not one line of error but:\n{}", done.status, shell::tail(&done.stderr)),
    }
}

/// What is left of standard error without the lines of the log.
fn error_lines(stderr: &str) -> Vec<&str> {
    const LEVELS: [&str; 5] = [" INFO ", " WARN ", " ERROR ", " DEBUG ", " TRACE "];
    stderr
        .lines()
        .filter(|line| !line.trim().is_empty() && !LEVELS.iter().any(|level| line.contains(level)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn one_line_and_an_exit_code_is_what_passes() {
        let said =
            refused("good", &mut sh("echo 2026-01-01 INFO start >&2; echo 'error: port taken' >&2; exit 1"))
                .unwrap();
        assert_eq!(said, "error: port taken");
        for script in
            ["echo 'error: x' >&2", "exit 1", "echo a >&2; echo b >&2; exit 1", "echo x >&2; kill -9 $$"]
        {
            assert!(refused("bad", &mut sh(script)).is_err(), "{script}");
        }
    }

    #[test]
    fn addresses_are_found_in_any_configuration() {
        let text = "listen = \"127.0.0.1:9421\"\npeers = [\"127.0.0.2:1\", \"10.0.0.1:2\"] # 1.2.3\n";
        assert_eq!(loopback_addresses(text), ["127.0.0.1:9421", "127.0.0.2:1"]);
    }
}
