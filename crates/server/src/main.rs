//! `tenantry`: the backend as one program, without extensions.

use std::process::ExitCode;

/// The system's allocator keeps what password hashes use (19 MiB each) in an arena of every thread that ever made one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tenantry::Service::default().command_line().await
}
