//! `mooseng-master`: one master as a daemon.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mooseng_master::run(std::env::args_os())
}
