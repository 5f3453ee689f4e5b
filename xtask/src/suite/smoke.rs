//! What people do on the first day: copy trees, git, databases, rsync, compile; and all of it still there after a restart.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, Outcome, tree};
use crate::{shell, verify};

type Step = fn(&Context, &Path) -> Result<()>;

const STEPS: [(&str, Step); 8] = [
    ("copy a tree", copy_tree),
    ("names and links", names_and_links),
    ("unlinked but open", unlinked_but_open),
    ("git", git),
    ("sqlite", sqlite),
    ("rsync", rsync),
    ("fio with verification", fio),
    ("cargo build", cargo_build),
];

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut cluster = context.cluster()?;
    let top = cluster.mount_point().join("smoke");
    fs::create_dir(&top)?;
    for (name, step) in STEPS {
        let start = Instant::now();
        step(context, &top).with_context(|| format!("{name}\n{}", cluster.last_words()))?;
        println!("smoke: {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    shell::stdout(Command::new("sync").arg("-f").arg(&top))?;
    let before = tree::digest(&top)?;
    cluster.stop().context("an orderly stop")?;
    cluster.launch().context("the second start")?;
    tree::expect_equal("after a restart", &before, &tree::digest(&top)?)?;
    println!("smoke: {} entries are the same after a restart", before.len());
    shell::stdout(&mut cluster.mooseng(&["cluster", "status", "--json"]))
        .and_then(|text| Ok(serde_json::from_str::<serde_json::Value>(&text)?))
        .context("`cluster status --json` answers JSON")?;
    fs::remove_dir_all(&top).context("remove everything")?;
    Ok(Outcome::Passed)
}

fn copy_tree(context: &Context, top: &Path) -> Result<()> {
    let files = if context.quick { 1000 } else { 10_000 };
    let source = context.scratch.join("source");
    tree::generate(&source, files, 42)?;
    let copy = top.join("copy");
    shell::stdout(Command::new("cp").arg("-a").arg(&source).arg(&copy))?;
    tree::expect_equal("the copied tree", &tree::digest(&source)?, &tree::digest(&copy)?)
}

fn names_and_links(_: &Context, top: &Path) -> Result<()> {
    let place = top.join("names");
    fs::create_dir(&place)?;
    let (a, b, link, soft) = (place.join("a"), place.join("b"), place.join("hard"), place.join("soft"));
    fs::write(&a, "first")?;
    fs::write(&b, "second")?;
    fs::hard_link(&a, &link)?;
    ensure!(fs::metadata(&link)?.nlink() == 2, "two links, nlink {}", fs::metadata(&link)?.nlink());
    ensure!(fs::metadata(&a)?.ino() == fs::metadata(&link)?.ino(), "a hard link has another inode");
    std::os::unix::fs::symlink("a", &soft)?;
    fs::rename(&b, &a).context("rename over a file")?;
    ensure!(
        fs::read(&soft)? == b"second" && fs::read(&link)? == b"first" && !b.exists(),
        "rename over a file"
    );
    ensure!(fs::metadata(&link)?.nlink() == 1, "the replaced name still counts as a link");
    fs::create_dir_all(place.join("d1/d2"))?;
    let into_itself = fs::rename(place.join("d1"), place.join("d1/d2/d3"));
    ensure!(
        into_itself.is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)),
        "a directory moved into itself"
    );
    let not_empty = fs::remove_dir(place.join("d1"));
    ensure!(not_empty.is_err_and(|e| e.raw_os_error() == Some(libc::ENOTEMPTY)), "rmdir of a full directory");
    xattrs(&a)
}

fn xattrs(file: &Path) -> Result<()> {
    use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
    setxattr(file, "user.colour", b"blue", XattrFlags::CREATE).context("setxattr")?;
    let again = setxattr(file, "user.colour", b"red", XattrFlags::CREATE);
    ensure!(again == Err(rustix::io::Errno::EXIST), "XATTR_CREATE over an attribute: {again:?}");
    let mut value = [0_u8; 64];
    let length = getxattr(file, "user.colour", &mut value)?;
    ensure!(value.get(..length) == Some(b"blue".as_slice()), "another value came back");
    let length = listxattr(file, &mut value)?;
    let list = String::from_utf8_lossy(value.get(..length).unwrap_or_default()).into_owned();
    ensure!(list.split('\0').any(|name| name == "user.colour"), "listxattr: {list:?}");
    removexattr(file, "user.colour")?;
    let gone = getxattr(file, "user.colour", &mut value);
    ensure!(gone == Err(rustix::io::Errno::NODATA), "after removexattr: {gone:?}");
    Ok(setxattr(file, "user.kept", b"over the restart", XattrFlags::empty())?)
}

fn unlinked_but_open(_: &Context, top: &Path) -> Result<()> {
    let path = top.join("unlinked");
    let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
    let bytes = crate::random::Random::seeded(1).bytes(300_000);
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::remove_file(&path)?;
    ensure!(!path.exists(), "the name is still there");
    file.write_all(b"more")?;
    let mut back = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut back).context("read after unlink")?;
    ensure!(
        back.len() == bytes.len() + 4 && back.starts_with(&bytes),
        "an unlinked file reads {} bytes",
        back.len()
    );
    ensure!(file.metadata()?.nlink() == 0, "nlink of an unlinked file is {}", file.metadata()?.nlink());
    Ok(())
}

fn git(context: &Context, top: &Path) -> Result<()> {
    let repository = top.join("repository");
    let git = |directory: &Path, words: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "safe.directory=*"]);
        command
            .args(words)
            .current_dir(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        shell::stdout(&mut command)
    };
    tree::generate(&repository, if context.quick { 200 } else { 1000 }, 5)?;
    git(&repository, &["init", "-q"])?;
    git(&repository, &["add", "-A"])?;
    git(&repository, &["commit", "-qm", "all"])?;
    git(top, &["clone", "-q", "--no-hardlinks", "repository", "clone"])?;
    let status = git(&top.join("clone"), &["status", "--short"])?;
    ensure!(status.is_empty(), "git status in a fresh clone:\n{status}");
    git(&top.join("clone"), &["fsck", "--full"])?;
    Ok(())
}

fn sqlite(context: &Context, top: &Path) -> Result<()> {
    if !shell::has_program("sqlite3") {
        println!("smoke: sqlite3 is not installed, left out");
        return Ok(());
    }
    let transactions = if context.quick { 50 } else { 300 };
    for mode in ["DELETE", "WAL"] {
        let database = top.join(format!("{mode}.db"));
        let mut script = format!(
            "PRAGMA journal_mode={mode};\nPRAGMA synchronous=FULL;\nCREATE TABLE t(i INTEGER, v TEXT);\n"
        );
        for index in 0..transactions {
            script
                .push_str(&format!("BEGIN; INSERT INTO t VALUES({index}, hex(randomblob(200))); COMMIT;\n"));
        }
        script.push_str("BEGIN; DELETE FROM t; ROLLBACK;\n");
        let file = context.scratch.join(format!("{mode}.sql"));
        fs::write(&file, script)?;
        let ask = |words: &str| shell::stdout(Command::new("sqlite3").arg(&database).arg(words));
        ask(&format!(".read {}", file.display()))?;
        let answer = ask("PRAGMA integrity_check; SELECT count(*) FROM t;")?;
        ensure!(answer.split_whitespace().eq(["ok", &transactions.to_string()]), "{mode}: {answer}");
    }
    Ok(())
}

fn rsync(context: &Context, top: &Path) -> Result<()> {
    if !shell::has_program("rsync") {
        println!("smoke: rsync is not installed, left out");
        return Ok(());
    }
    let source = context.scratch.join("rsync-source");
    tree::generate(&source, 300, 8)?;
    let target = top.join("rsync");
    let sync = || {
        let mut command = Command::new("rsync");
        command.arg("-a").arg("--stats").arg(format!("{}/", source.display())).arg(&target);
        shell::stdout(&mut command)
    };
    sync()?;
    let second = sync()?;
    // Nothing changed, so the second run must find sizes and times as it left them.
    let quiet = second.lines().any(|line| line.starts_with("Number of regular files transferred: 0"));
    ensure!(quiet, "the second rsync copied again:\n{second}");
    tree::expect_equal("the rsynced tree", &tree::digest(&source)?, &tree::digest(&target)?)
}

fn fio(context: &Context, top: &Path) -> Result<()> {
    if !shell::has_program("fio") {
        println!("smoke: fio is not installed, left out");
        return Ok(());
    }
    let size = if context.quick { "--size=16m" } else { "--size=64m" };
    for pattern in ["--rw=write", "--rw=randwrite"] {
        let mut command = Command::new("fio");
        command.args([
            "--name=verify",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--ioengine=psync",
        ]);
        command.args([
            pattern,
            size,
            "--bs=16k",
            "--end_fsync=1",
            "--fallocate=none",
            "--numjobs=2",
            "--group_reporting",
        ]);
        command.arg(format!("--directory={}", top.display()));
        // fio leaves its state beside itself.
        command.current_dir(&context.scratch);
        shell::stdout(&mut command)?;
    }
    Ok(())
}

fn cargo_build(context: &Context, top: &Path) -> Result<()> {
    let project = context.scratch.join("project");
    fs::create_dir_all(project.join("src"))?;
    fs::write(
        project.join("Cargo.toml"),
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    )?;
    let modules = 20;
    let mut main = String::new();
    for index in 0..modules {
        fs::write(
            project.join(format!("src/m{index}.rs")),
            format!("pub fn value() -> u64 {{ {index} }}\n"),
        )?;
        main.push_str(&format!("mod m{index};\n"));
    }
    let sum: Vec<String> = (0..modules).map(|index| format!("m{index}::value()")).collect();
    main.push_str(&format!("fn main() {{ println!(\"{{}}\", {}); }}\n", sum.join(" + ")));
    fs::write(project.join("src/main.rs"), main)?;
    let target = top.join("target");
    let mut build = verify::command(&project, &["build", "--offline", "--quiet"]);
    build.env("CARGO_TARGET_DIR", &target);
    shell::stdout(&mut build)?;
    let answer = shell::stdout(&mut Command::new(target.join("debug/tiny")))?;
    if answer.trim() != "190" {
        bail!("the program built on the mount says {answer:?}");
    }
    Ok(())
}
