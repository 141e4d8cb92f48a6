//! `axum-notes migrate` brings the schema up as the owner of the tables (`DATABASE_URL`); `axum-notes` serves on `LISTEN`, with the
//! settings of the Tenantry server over the same database.

use std::env::{args, var};
use std::error::Error;
use std::io::{IsTerminal as _, stderr};
use std::process::ExitCode;
use std::sync::Arc;

use axum_notes::{Bounds, CATALOGUE, Migrator, permissions, serve};
use tenantry_compose::{Base, Configuration, ConfigurationError, application, read_keys};
use tenantry_doctor::{Manifest, Options, Severity, connect, guard};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let colors = stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(colors)
        .init();
    let done = match args().nth(1).as_deref() {
        None => run().await,
        Some("migrate") => migrate().await,
        Some(_) => Err("usage: axum-notes [migrate]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum-notes: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn migrate() -> Result<(), Box<dyn Error>> {
    let url =
        var("DATABASE_URL").map_err(|_| "DATABASE_URL: a PostgreSQL URL for tenantry_owner is required")?;
    let applied = tenantry_migration::up_with::<Migrator>(&url, None).await;
    applied.map_err(|error| format!("DATABASE_URL: {error}"))?;
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let configuration = Configuration::load()?;
    let base = Base {
        permissions: Arc::new(permissions()?),
        ..configuration.base()?
    };
    let app = application(&base, configuration.policy()?)?;
    guarded(configuration.database.url.reveal()).await?;
    let read = read_keys(&app).await;
    read.map_err(|error| ConfigurationError::invalid("database.platform_url", error.to_string()))?;
    let address = var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8081".into());
    let listener = TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| format!("LISTEN: cannot listen on {address}: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        tracing::info!("stopping: requests in flight finish");
    };
    tracing::info!(address = %listener.local_addr()?, "serving");
    serve(
        app,
        configuration.forwarding(),
        Bounds::default(),
        listener,
        shutdown,
    )
    .await;
    tracing::info!("stopped");
    Ok(())
}

/// Fails over a database that does not keep tenants apart: a superuser, say, would serve without row-level security.
async fn guarded(url: &str) -> Result<(), Box<dyn Error>> {
    let manifest = format!("{}\n{CATALOGUE}", tenantry_migration::CATALOGUE);
    let options = Options {
        expected: Some(manifest.parse::<Manifest>()?),
        ..Options::default()
    };
    let failed =
        |error: tenantry_doctor::DoctorError| ConfigurationError::invalid("database.url", error.to_string());
    let report = guard(&mut connect(url).await.map_err(failed)?, &options).await;
    let report = report.map_err(failed)?;
    match report.worst() {
        None => {}
        Some(Severity::Info | Severity::Warning) => tracing::warn!(report = report.to_human(), "database"),
        Some(Severity::Error | Severity::Critical) => return Err(report.to_human().into()),
    }
    Ok(())
}
