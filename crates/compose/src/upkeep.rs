use std::sync::Arc;
use std::time::Duration;

use tenantry_domain::identity::SHORTEST_PUBLICATION_SECONDS;
use tenantry_domain::kernel::StoreError;
use tenantry_tenancy::Tenancy;
use tenantry_tenancy::audit::refusal;
use tenantry_tenancy::identity::{signing_key, workspace};

/// How often a process reads the stored signing keys: much more often than a new key needs to be published for.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// How often a process stores what it has noted in memory.
const NOTES_EVERY: Duration = Duration::from_secs(10);

/// How often a process looks for lists of workspaces to be mailed.
const MAILS_EVERY: Duration = Duration::from_secs(2);

const _: () = assert!(KEYS_EVERY.as_secs().cast_signed() * 10 < SHORTEST_PUBLICATION_SECONDS);

/// Runs a service, and while it runs reads the stored signing keys, mails lists of workspaces, and stores when API keys were used and
/// what was refused; once more when it has ended. The stock server has loops of its own for that.
pub async fn beside<T>(app: &Arc<Tenancy>, service: impl Future<Output = T>) -> T {
    let storing = async {
        let mut ticks = tokio::time::interval(NOTES_EVERY);
        loop {
            ticks.tick().await;
            store_notes(app).await;
        }
    };
    let done = tokio::select! {
        done = service => done,
        () = follow_keys(Arc::clone(app)) => unreachable!("it reads keys for ever"),
        () = mail_workspaces(Arc::clone(app)) => unreachable!("it mails for ever"),
        () = storing => unreachable!("it stores for ever"),
    };
    store_notes(app).await;
    done
}

/// Stores what admissions leave in memory: when API keys were used, and refusals that were repeated. What cannot be stored now
/// is kept.
pub async fn store_notes(app: &Arc<Tenancy>) {
    refusal::flush(app).await;
    app.key_uses.flush(app).await;
}

/// Reads the stored signing keys before a process serves, so that it accepts what other servers sign.
///
/// # Errors
/// Those of the store.
pub async fn read_keys(app: &Arc<Tenancy>) -> Result<(), StoreError> {
    let unreadable = signing_key::refresh(app).await?;
    for kid in unreadable {
        tracing::error!(
            kid,
            "no configured key opens this signing key: its tokens are refused here"
        );
    }
    Ok(())
}

/// Reads the stored signing keys every five seconds. While the database is unavailable, the keys that were read last are used.
pub async fn follow_keys(app: Arc<Tenancy>) {
    let mut ticks = tokio::time::interval(KEYS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = signing_key::refresh(&app).await {
            tracing::warn!(%error, "the signing keys could not be read");
        }
    }
}

/// Mails the lists of workspaces that are asked for. Any number of processes may do so. While the database or the mail server is
/// unavailable, the requests wait.
pub async fn mail_workspaces(app: Arc<Tenancy>) {
    let mut ticks = tokio::time::interval(MAILS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = workspace::answer_due(&app).await {
            tracing::warn!(%error, "lists of workspaces could not be mailed, trying again");
        }
    }
}
