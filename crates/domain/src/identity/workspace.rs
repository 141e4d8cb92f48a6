//! Workspaces: the accounts that one address has in several tenants.

use async_trait::async_trait;
use chrono::Duration;
use serde_json::json;
use uuid::Uuid;

use crate::identity::Email;
use crate::kernel::{Line, MailTemplate, Message, StoreError, SystemScope, Time};

/// A request to mail an address the list of its workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRequest {
    /// Identifies the request, and the mail that answers it.
    pub id: Uuid,
    /// The address, known or unknown.
    pub email: Email,
    /// The network that the request came from, as large as one holder may have; `None` when its address is not known.
    pub network: Option<String>,
    /// When it was made.
    pub requested_at: Time,
    /// How often a server has begun to answer it.
    pub attempts: u32,
}

impl WorkspaceRequest {
    /// The most requests that are stored at the same time; further ones are dropped. Callers without an account make them.
    pub const MOST: u32 = 10_000;

    /// The most of these from one network: nobody with many addresses keeps all others out.
    pub const MOST_OF_NETWORK: u32 = 200;

    /// For how long a request stays stored that was answered. Meanwhile further ones of its address are dropped, known or unknown, so
    /// that nobody fills a mailbox with lists.
    pub const PAUSE: Duration = Duration::minutes(5);

    /// How often a request is tried while mail cannot be sent, which takes about nine hours.
    pub const MOST_ATTEMPTS: u32 = 15;

    /// How long no other server takes up a request that one has begun to answer.
    pub const LEASE: Duration = Duration::minutes(5);

    /// How long a request waits that could not be answered: a minute, doubled with each attempt, an hour at most.
    pub fn pause(&self) -> Duration {
        let doubled = self.attempts.saturating_sub(1).min(6);
        Duration::minutes(1 << doubled).min(Duration::hours(1))
    }
}

/// A tenant in which an address has an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The name of the tenant.
    pub name: String,
    /// What people name it by when they log in; 3 to 63 of `a-z`, `0-9` and `-`.
    pub slug: String,
}

impl Workspace {
    /// The most workspaces of a list.
    pub const MOST_LISTED: usize = 50;
}

/// A mail with the workspaces of an address.
#[derive(Debug, Clone, Copy)]
pub struct WorkspaceMail<'a> {
    /// The workspaces; at most [`Workspace::MOST_LISTED`] are shown.
    pub workspaces: &'a [Workspace],
    /// Where people use the product.
    pub app_url: &'a str,
}

impl WorkspaceMail<'_> {
    /// The mail, with a link to log in to each workspace.
    pub fn message(&self) -> Message {
        let base = self.app_url.trim_end_matches('/');
        let shown = self.workspaces.iter().take(Workspace::MOST_LISTED).map(|one| {
            json!({
                // The mail is the platform's, and tenants choose their names.
                "name": Line::of_stranger(&one.name),
                "slug": Line::of(&one.slug),
                "link": Line::of(&format!("{base}/login?workspace={}", one.slug)),
            })
        });
        let shown: Vec<_> = shown.collect();
        Message::new(MailTemplate::Workspaces)
            .with("more", self.workspaces.len() > Workspace::MOST_LISTED)
            .with("workspaces", shown)
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// A server will answer it within seconds.
    Stored,
    /// Dropped: one of the address waits, or was answered within [`WorkspaceRequest::PAUSE`].
    Repeated,
    /// Dropped: [`WorkspaceRequest::MOST_OF_NETWORK`] of its network are stored.
    NetworkFull,
    /// Dropped: [`WorkspaceRequest::MOST`] are stored.
    Full,
}

impl Requested {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Repeated => "repeated",
            Self::NetworkFull => "network_full",
            Self::Full => "full",
        }
    }
}

/// The index of addresses over all tenants, and the requests to mail what it says.
#[async_trait]
pub trait Workspaces: Send + Sync {
    /// Stores a request, or says why not.
    async fn request(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
    ) -> Result<Requested, StoreError>;

    /// Takes up the request that is due first, for [`WorkspaceRequest::LEASE`], and counts the attempt.
    async fn take_due(&self, because: SystemScope, now: Time)
    -> Result<Option<WorkspaceRequest>, StoreError>;

    /// Gives a request back, to be taken up again at `due_at`.
    async fn put_off(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
        due_at: Time,
    ) -> Result<(), StoreError>;

    /// Notes that a request needs nothing more. It stays stored for [`WorkspaceRequest::PAUSE`].
    async fn settle(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
        now: Time,
    ) -> Result<(), StoreError>;

    /// Deletes the requests that were settled until then; how many there were.
    async fn delete_settled(&self, because: SystemScope, until: Time) -> Result<u64, StoreError>;

    /// The tenants that are not deleted in which the address has an active account and is verified, by name; at most `limit`.
    async fn list(
        &self,
        because: SystemScope,
        email: &Email,
        limit: usize,
    ) -> Result<Vec<Workspace>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses() -> impl Iterator<Item = Duration> {
        (1..WorkspaceRequest::MOST_ATTEMPTS).map(|attempts| {
            let request = WorkspaceRequest {
                id: Uuid::nil(),
                email: Email::stored("ada@example.com".into()),
                network: None,
                requested_at: "2026-01-15T12:00:00Z".parse().unwrap(),
                attempts,
            };
            request.pause()
        })
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        let minutes: Vec<_> = pauses().map(|pause| pause.num_minutes()).collect();
        assert_eq!(minutes[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(minutes.iter().sum::<i64>() / 60, 9);
    }

    #[test]
    fn list_is_bounded_and_says_that_there_are_more() {
        let workspace = Workspace {
            name: "Acme\r\nBcc: eve@example.com".into(),
            slug: "acme".into(),
        };
        for (number, shown, more) in [(1, 1, false), (50, 50, false), (51, 50, true)] {
            let mail = WorkspaceMail {
                workspaces: &vec![workspace.clone(); number],
                app_url: "https://app.example.com/",
            };
            let message = mail.message();
            let list = message.values()["workspaces"].as_array().unwrap();
            assert_eq!(list.len(), shown);
            assert_eq!(message.values()["more"], more);
            assert_eq!(list[0]["name"], "Acme Bcc eve example. com");
            assert_eq!(list[0]["link"], "https://app.example.com/login?workspace=acme");
        }
    }
}
