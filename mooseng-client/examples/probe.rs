//! When masters that are being started answer.
//! `cargo run --release -p mooseng-client --example probe -- KEY MASTERS DIRECTORY NAME SECONDS`
//!
//! KEY is the file with the key of clients, MASTERS are addresses with commas between them, DIRECTORY is the number of one, NAME a file in it. Prints `probing`,
//! and then, all times in microseconds since 1970: `hello ADDRESS TIME` when a master first greets, and `lookup TIME` when
//! the file is first found. Ends when all that has happened, or with an error after SECONDS. `cargo xtask bench --suite
//! million` runs it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use mooseng_env::secret::Secret;
use mooseng_env::{Clock as _, SystemClock, nonce};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::PrincipalKey;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::level::SUPPORTED;

const USAGE: &str = "usage: probe KEY MASTERS DIRECTORY NAME SECONDS";
/// Between two tries: what is measured is ten times this and more.
const PAUSE: Duration = Duration::from_millis(2);
const TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, masters, directory, name, seconds] = arguments.as_slice() else { anyhow::bail!(USAGE) };
    let lookup = pb::LookupRequest {
        parent: directory.parse().context(USAGE)?,
        name: name.clone().into_bytes().into(),
    };
    let hello = pb::Hello::new(pb::Role::Client, "probe", None, SUPPORTED);
    let key = Secret::load(Path::new(key), USAGE)?;
    let caller = Caller::new(hello, PrincipalKey::new(key.bytes()), nonce);
    let deadline = Instant::now() + Duration::from_secs(seconds.parse().context(USAGE)?);
    let (masters, caller): (Vec<&str>, _) = (masters.split(',').collect(), &caller);
    say("probing")?;
    std::thread::scope(|scope| {
        let greeted: Vec<_> = masters
            .iter()
            .map(|master| {
                scope.spawn(move || {
                    let at = first(deadline, || connect(master, caller).is_some())?;
                    say(&format!("hello {master} {at}"))
                })
            })
            .collect();
        let at = first(deadline, || masters.iter().any(|master| finds(master, caller, &lookup)))?;
        say(&format!("lookup {at}"))?;
        for thread in greeted {
            thread.join().map_err(|_| anyhow::anyhow!("a prober panicked"))??;
        }
        Ok(())
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("print")
}

/// When `happens` first says yes.
fn first(deadline: Instant, happens: impl Fn() -> bool) -> anyhow::Result<u128> {
    while !happens() {
        anyhow::ensure!(Instant::now() < deadline, "the masters did not answer in time");
        SystemClock::default().sleep(PAUSE);
    }
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())
}

fn connect(master: &str, caller: &Caller) -> Option<FrameStream> {
    FrameStream::connect(master, caller, TIMEOUT).ok().map(|(stream, _)| stream)
}

fn finds(master: &str, caller: &Caller, lookup: &pb::LookupRequest) -> bool {
    connect(master, caller).is_some_and(|mut stream| stream.call(lookup, &[], TIMEOUT).is_ok())
}
