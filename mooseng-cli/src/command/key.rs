//! `mooseng key`: keys of those who are not to have the cluster's.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mooseng_env::secret::{self, Secret};
use mooseng_protocol::principal::{Keyring, Role};

use crate::output;

/// Who needs a key.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    /// Mounts (client_key_file).
    Client,
    /// This command line (--key-file).
    Admin,
}

/// What `key` takes.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Whose key to make.
    role: For,
    /// The file with the cluster's key.
    #[arg(long, value_name = "FILE", default_value = "/etc/mooseng/cluster.key")]
    from: PathBuf,
    /// Where to write it, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let keys = Keyring::derive(Secret::load(&args.from, secret::REMEDY)?.bytes());
    let role = match args.role {
        For::Client => Role::Client,
        For::Admin => Role::Admin,
    };
    let key = Secret::take(&mut keys.of(role).bytes().clone());
    key.save(&args.to).with_context(|| format!("write {}", args.to.display()))?;
    output::note(&format!("{} has the key of this cluster's {role}s", args.to.display()));
    Ok(ExitCode::SUCCESS)
}
