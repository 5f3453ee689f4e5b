//! Mounts a MooseNG file system.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mooseng_client::run(std::env::args_os())
}
