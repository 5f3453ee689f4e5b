//! The program `mooseng-chunkserver`; everything is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mooseng_chunkserver::run(std::env::args_os())
}
