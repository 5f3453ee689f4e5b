//! Running other programs: with a limit on their time, and with what they said when they fail.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::wait;

/// Enough for any tool that is called without a limit of its own.
const DEFAULT_LIMIT: Duration = Duration::from_secs(300);
/// What is shown of a failed program's words.
const TAIL_BYTES: usize = 4000;

/// What a program left behind.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs to the end or to `limit`, whatever the exit code; killed with everything it started when the limit is passed.
pub(crate) fn finish(command: &mut Command, limit: Duration) -> Result<Finished> {
    let name = describe(command);
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let mut status = None;
    let waited = wait::until(limit, &name, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if waited.is_err() {
        kill_group(&mut child);
    }
    let (stdout, stderr) = (all_of(&mut out)?, all_of(&mut err)?);
    if let Err(error) = waited {
        bail!("{error:#}\n{}{}", tail(&stdout), tail(&stderr));
    }
    let status = status.context("no exit status")?;
    Ok(Finished { status, stdout, stderr })
}

/// Runs a step of a clean-up, which goes on after a signal; answers what the program said, if it succeeded.
pub(crate) fn clean_up(command: &mut Command, limit: Duration) -> Option<String> {
    let mut out = tempfile::tempfile().ok()?;
    command.stdin(Stdio::null()).stdout(out.try_clone().ok()?).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().ok()?;
    if !wait::quietly(limit, || !matches!(child.try_wait(), Ok(None))) {
        kill_group(&mut child);
        return None;
    }
    let status = child.wait().ok()?;
    status.success().then(|| all_of(&mut out).ok()).flatten()
}

/// Makes `client.key` and `admin.key` beside the `cluster.key` of a cluster that `mooseng up` has not made.
pub(crate) fn make_keys(mooseng: &Path, directory: &Path) -> Result<()> {
    for role in ["client", "admin"] {
        let mut command = Command::new(mooseng);
        command.args(["key", role, "--from"]).arg(directory.join("cluster.key"));
        stdout(command.arg("--to").arg(directory.join(role).with_extension("key")))?;
    }
    Ok(())
}

/// Runs a program that must succeed and answers its standard output.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    stdout_within(command, DEFAULT_LIMIT)
}

pub(crate) fn stdout_within(command: &mut Command, limit: Duration) -> Result<String> {
    let done = finish(command, limit)?;
    if !done.status.success() {
        bail!("{}: {}\n{}{}", describe(command), done.status, tail(&done.stdout), tail(&done.stderr));
    }
    Ok(done.stdout)
}

/// Runs a step whose output the caller of xtask wants to see as it comes.
pub(crate) fn visible(command: &mut Command, limit: Duration) -> Result<()> {
    let name = describe(command);
    println!("+ {name}");
    let mut child =
        command.stdin(Stdio::null()).process_group(0).spawn().with_context(|| format!("start {name}"))?;
    let mut status = None;
    let waited = wait::until(limit, &name, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if let Err(error) = waited {
        kill_group(&mut child);
        return Err(error);
    }
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{name}: {status}"),
        None => bail!("{name}: no exit status"),
    }
}

/// Ends a child that leads a process group, with the whole group.
pub(crate) fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
    }
    child.wait().ok();
}

/// Sends a signal to one process; one that is gone is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Whether the process is there and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// The program of a process, as the kernel has it in `cmdline`.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Whether a program of that name is found in `PATH` (or in the places only root's `PATH` names).
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|directory| Path::new(directory).join(name).is_file())
}

pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

pub(crate) fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

fn all_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_at_its_limit_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let error = stdout_within(&mut command, Duration::from_millis(300)).unwrap_err().to_string();
        let grandchild: u32 = error.lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(wait::quietly(Duration::from_secs(5), || !is_alive(grandchild)));
    }

    #[test]
    fn a_step_of_a_clean_up_answers_only_if_it_succeeds_in_time() {
        let sh = |script: &str, limit| clean_up(Command::new("sh").args(["-c", script]), limit);
        assert_eq!(sh("echo done", Duration::from_secs(10)), Some("done\n".to_owned()));
        assert_eq!(sh("echo done; exit 1", Duration::from_secs(10)), None);
        assert_eq!(sh("sleep 1000", Duration::from_millis(100)), None);
    }

    #[test]
    fn a_failed_program_is_reported_with_its_words() {
        let error =
            stdout(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("reason") && error.contains('3'), "{error}");
    }
}
