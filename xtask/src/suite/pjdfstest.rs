//! pjdfstest: the POSIX calls on names and attributes. The score may rise by hand (`pjdfstest-score.txt`) and never falls.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Context, Outcome, tools};
use crate::shell;

const LIMIT: Duration = Duration::from_secs(200);

/// Features Linux file systems have, and two users that every Debian has.
const CONFIG: &str = r#"[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

#[derive(Debug, PartialEq, Eq)]
struct Score {
    failed: u32,
    skipped: u32,
    passed: u32,
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("pjdfstest changes users, which only root may".to_owned()));
    }
    let program = tools::installed(context, "pjdfstest", "0.2.2")?;
    let wanted = fs::read_to_string(context.root.join("xtask/pjdfstest-score.txt"))?;
    let wanted: u32 = wanted.trim().parse().context("pjdfstest-score.txt holds one number")?;
    let config = context.scratch.join("pjdfstest.toml");
    fs::write(&config, CONFIG)?;
    let cluster = context.cluster()?;
    // The dummy users must be able to pass through.
    // A short name: the path of a socket has room for 107 bytes, and the names of the tests take most of it.
    let place = cluster.mount_point().join("p");
    fs::create_dir(&place)?;
    fs::set_permissions(cluster.mount_point(), fs::Permissions::from_mode(0o755))?;
    let mut test = Command::new(program);
    test.arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(&place)
        .env("RUST_BACKTRACE", "0")
        .current_dir(&context.scratch);
    let done = shell::finish(&mut test, LIMIT)?;
    for line in done.stdout.lines().filter(|line| line.ends_with("FAILED")) {
        println!("pjdfstest: {line}");
    }
    let Some(score) = done.stdout.lines().find_map(parse) else {
        bail!("no summary:\n{}{}", shell::tail(&done.stdout), shell::tail(&done.stderr));
    };
    println!(
        "pjdfstest: {} passed, {} failed, {} skipped; at least {wanted} must pass",
        score.passed, score.failed, score.skipped
    );
    if score.passed < wanted {
        bail!("{} passed, {wanted} before", score.passed);
    }
    Ok(Outcome::Passed)
}

/// `Summary: 6 failed, 15 skipped, 377 passed, 0 expected failures, 398 total`
fn parse(line: &str) -> Option<Score> {
    let parts = line.strip_prefix("Summary: ")?.split(", ");
    let mut score = Score { failed: 0, skipped: 0, passed: 0 };
    for part in parts {
        let (count, word) = part.split_once(' ')?;
        let count: u32 = count.parse().ok()?;
        match word {
            "failed" => score.failed = count,
            "skipped" => score.skipped = count,
            "passed" => score.passed = count,
            _ => {}
        }
    }
    Some(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_and_nothing_else_is() {
        let line = "Summary: 6 failed, 15 skipped, 377 passed, 0 expected failures, 398 total";
        assert_eq!(parse(line), Some(Score { failed: 6, skipped: 15, passed: 377 }));
        assert_eq!(parse("unlink::enoent ok"), None);
    }
}
