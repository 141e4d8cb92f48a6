//! `axum-notes migrate` brings the schema up as the owner of the tables (`DATABASE_URL`); `axum-notes` serves.

use std::env::{args, var};
use std::error::Error;

use axum_notes::{Migrator, serve};
use tenantry_compose::{Base, application, read_keys};
use tenantry_doctor::{Options, connect, guard};
use tenantry_system::SigningKey;
use tenantry_tenancy::Policy;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    if args().nth(1).as_deref() == Some("migrate") {
        tenantry_migration::up_with::<Migrator>(&var("DATABASE_URL")?, None).await?;
        return Ok(());
    }
    let url = var("TENANTRY__DATABASE__URL")?;
    // A superuser, say, would serve without row-level security.
    let report = guard(&mut connect(&url).await?, &Options::default()).await?;
    if !report.passed() {
        return Err(report.to_human().into());
    }
    let keys = vec![SigningKey::from_pem(&var("TENANTRY__AUTH__SIGNING_KEY")?)?];
    let base = Base::new(&url, &var("TENANTRY__DATABASE__PLATFORM_URL")?, keys)?;
    let app = application(&base, Policy::default())?;
    read_keys(&app).await?;
    let address = var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8081".into());
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    serve(app, TcpListener::bind(&address).await?, shutdown).await?;
    Ok(())
}
