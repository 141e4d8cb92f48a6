use crate::account::Account;
use crate::params::Params;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is done, and there is no answer.
    TimeoutBeforeEffect,
    /// It is done, and there is no answer.
    TimeoutAfterEffect,
    /// The connection is closed, and nothing is done.
    ResetBeforeEffect,
    /// It is done, and the connection is closed without an answer.
    ResetAfterEffect,
    /// 429, nothing is done.
    TooManyRequests,
    /// 500, nothing is done.
    ServerError,
    /// It is done, and answered with 500.
    ServerErrorAfterEffect,
    /// It is done, and answered with 200 and something that nobody can read.
    Garbage,
}

impl Failure {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::TimeoutBeforeEffect,
        Self::TimeoutAfterEffect,
        Self::ResetBeforeEffect,
        Self::ResetAfterEffect,
        Self::TooManyRequests,
        Self::ServerError,
        Self::ServerErrorAfterEffect,
        Self::Garbage,
    ];

    /// Its name in the control API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimeoutBeforeEffect => "timeout_before_effect",
            Self::TimeoutAfterEffect => "timeout_after_effect",
            Self::ResetBeforeEffect => "reset_before_effect",
            Self::ResetAfterEffect => "reset_after_effect",
            Self::TooManyRequests => "too_many_requests",
            Self::ServerError => "server_error",
            Self::ServerErrorAfterEffect => "server_error_after_effect",
            Self::Garbage => "garbage",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether the call is carried out all the same.
    pub const fn after_effect(self) -> bool {
        match self {
            Self::TimeoutAfterEffect
            | Self::ResetAfterEffect
            | Self::ServerErrorAfterEffect
            | Self::Garbage => true,
            Self::TimeoutBeforeEffect
            | Self::ResetBeforeEffect
            | Self::TooManyRequests
            | Self::ServerError => false,
        }
    }
}

/// Which calls are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    method: Option<String>,
    path: String,
    about: Option<String>,
}

impl Matcher {
    /// Every call.
    pub fn any() -> Self {
        Self {
            method: None,
            path: "/".into(),
            about: None,
        }
    }

    /// Calls whose path begins so: `/v1/subscriptions`.
    pub fn path(path: &str) -> Self {
        Self {
            method: None,
            path: path.into(),
            about: None,
        }
    }

    /// Those of a method only: `Matcher::path("/v1/customers").method("POST")`.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self {
            method: Some(method.to_uppercase()),
            ..self
        }
    }

    /// Those about a customer only: its id, or something that is in its metadata, such as whose it is. A call is about it
    /// when it names it, one of its subscriptions, or one of its meter events.
    #[must_use]
    pub fn about(self, whom: &str) -> Self {
        Self {
            about: Some(whom.into()),
            ..self
        }
    }

    pub(crate) fn fits(&self, account: &Account, (method, path, params): (&str, &str, &Params)) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && path.starts_with(&self.path)
            && self.about.as_ref().is_none_or(|whom| {
                let call = format!("{path} {}", params.value());
                account.names(whom).iter().any(|name| call.contains(name))
            })
    }
}
