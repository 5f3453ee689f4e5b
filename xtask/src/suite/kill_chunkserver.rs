//! One chunkserver dies in the middle of a long write, another in the middle of a long read: neither caller sees an error.

use anyhow::{Context as _, Result, bail};

use super::stream::{self, Streamed};
use super::{Context, Outcome};

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mib = if context.quick { 256 } else { 1024 };
    let mut cluster = context.cluster()?;
    let first = cluster.mount_point().join("written-while-one-dies");
    let written = stream::write(&first, mib, 1, || cluster.kill("chunkserver-1"))
        .with_context(|| cluster.last_words())?;
    say("write", &written);
    cluster.remount()?;
    let back = stream::read(&first, mib, || Ok(())).with_context(|| cluster.last_words())?;
    expect_hash("the file written while a chunkserver died", &written, &back)?;
    // With all three back, a second file has all its copies when the next one dies. The first file's may be fewer: it is gone.
    std::fs::remove_file(&first)?;
    cluster.stop()?;
    cluster.launch()?;
    let second = cluster.mount_point().join("read-while-one-dies");
    let written = stream::write(&second, mib, 2, || Ok(()))?;
    cluster.remount()?;
    let back =
        stream::read(&second, mib, || cluster.kill("chunkserver-2")).with_context(|| cluster.last_words())?;
    say("read", &back);
    expect_hash("the file read while a chunkserver died", &written, &back)?;
    Ok(Outcome::Passed)
}

fn say(what: &str, streamed: &Streamed) {
    println!("kill_chunkserver: longest stall of one call in the {what}: {} ms", streamed.stall.as_millis());
}

fn expect_hash(what: &str, written: &Streamed, back: &Streamed) -> Result<()> {
    if written.hash != back.hash {
        bail!("{what}: written as {}, read as {}", written.hash, back.hash);
    }
    Ok(())
}
