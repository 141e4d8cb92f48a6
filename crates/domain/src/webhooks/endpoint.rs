//! Endpoints: where webhooks of a tenant go, which events they get, and whether they are enabled.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize, Serializer};

use crate::kernel::{
    Check, Invalid, Page, PageRequest, Patch, Seal, StoreError, TenantId, Time, WebhookEndpointId,
};
use crate::webhooks::custom_headers::CustomHeaders;
use crate::webhooks::disabling::{DisableReason, FailureStreak};
use crate::webhooks::endpoint_url::{EndpointRules, EndpointUrl};
use crate::webhooks::event_filter::EventFilter;
use crate::webhooks::secret::{EndpointSecrets, NewSecret, SignatureKind, SigningSecret};

/// An endpoint of a tenant. Serialized (for the audit log and events) without its secrets; of the URL only scheme, host and port, since path
/// and query may hold a token of the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookEndpoint {
    /// Identifies the endpoint.
    pub id: WebhookEndpointId,
    /// Where webhooks are sent.
    #[serde(serialize_with = "origin")]
    pub url: EndpointUrl,
    /// What it is for; up to 500 characters.
    pub description: Option<String>,
    /// Which events it gets.
    #[serde(rename = "event_types", serialize_with = "texts")]
    pub filter: EventFilter,
    /// The most attempts of a second; as many as there are when absent.
    pub rate_limit: Option<u32>,
    /// Whether a message waits until those before it were delivered or given up.
    pub ordered: bool,
    /// How messages are signed.
    pub signature: SignatureKind,
    /// The public key (`whpk_`) of the present secret, where messages are signed with Ed25519.
    pub public_key: Option<String>,
    /// The names of its custom headers.
    pub header_names: Vec<String>,
    /// [`EndpointCredentials`], sealed for the tenant.
    #[serde(skip)]
    pub sealed_credentials: Vec<u8>,
    /// Until when a secret before the present one signs as well, if one does.
    #[serde(skip)]
    pub former_until: Option<Time>,
    /// Whether it gets messages.
    #[serde(flatten)]
    pub state: EndpointState,
    /// The failures since the last success. They change with deliveries and are no part of the version.
    #[serde(skip)]
    pub streak: Option<FailureStreak>,
    /// When it was created.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// Whether an endpoint gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Enabled,
    /// It does not.
    Disabled {
        /// Why the server has disabled it; none where an admin has.
        reason: Option<DisableReason>,
        /// When it was disabled.
        at: Time,
    },
}

impl EndpointState {
    /// Whether it gets messages.
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::Enabled)
    }

    /// Why the server has disabled it, if it has.
    pub const fn disabled_reason(self) -> Option<DisableReason> {
        match self {
            Self::Enabled => None,
            Self::Disabled { reason, .. } => reason,
        }
    }

    /// When it was disabled, if it is.
    pub const fn disabled_at(self) -> Option<Time> {
        match self {
            Self::Enabled => None,
            Self::Disabled { at, .. } => Some(at),
        }
    }
}

/// As the API shows it: three fields.
impl Serialize for EndpointState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            enabled: bool,
            disabled_reason: Option<DisableReason>,
            disabled_at: Option<Time>,
        }
        let fields = Fields {
            enabled: self.is_enabled(),
            disabled_reason: self.disabled_reason(),
            disabled_at: self.disabled_at(),
        };
        fields.serialize(serializer)
    }
}

/// An endpoint to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhookEndpoint {
    /// See [`WebhookEndpoint::url`].
    pub url: String,
    /// See [`WebhookEndpoint::description`].
    pub description: Option<String>,
    /// The entries of [`WebhookEndpoint::filter`].
    pub event_types: Vec<String>,
    /// See [`WebhookEndpoint::rate_limit`].
    pub rate_limit: Option<i64>,
    /// See [`CustomHeaders`].
    pub headers: BTreeMap<String, String>,
    /// See [`WebhookEndpoint::ordered`].
    pub ordered: bool,
    /// Whether it gets messages from now on.
    pub enabled: bool,
    /// See [`WebhookEndpoint::signature`].
    pub signature: SignatureKind,
}

/// What may be changed of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookEndpointPatch {
    /// See [`WebhookEndpoint::url`].
    pub url: Patch<String>,
    /// See [`WebhookEndpoint::description`].
    pub description: Patch<String>,
    /// The entries of [`WebhookEndpoint::filter`]; cleared, every event passes.
    pub event_types: Patch<Vec<String>>,
    /// See [`WebhookEndpoint::rate_limit`].
    pub rate_limit: Patch<i64>,
    /// All of [`CustomHeaders`].
    pub headers: Patch<BTreeMap<String, String>>,
    /// See [`WebhookEndpoint::ordered`].
    pub ordered: Patch<bool>,
    /// Whether it gets messages. An endpoint that is enabled begins without failures.
    pub enabled: Patch<bool>,
}

impl WebhookEndpoint {
    /// The most endpoints of a tenant, whatever its plan says.
    pub const MOST: u64 = 100;

    /// The most characters of a description.
    pub const LONGEST_DESCRIPTION: usize = 500;

    /// The highest rate limit, in attempts of a second.
    pub const HIGHEST_RATE: i64 = 1_000;

    /// A new endpoint with its secret, sealed for the tenant by [`WebhookEndpoint::keep`] before it is stored.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(
        id: WebhookEndpointId,
        new: NewWebhookEndpoint,
        secret: NewSecret,
        rules: &EndpointRules,
        now: Time,
    ) -> Result<(Self, EndpointCredentials), Invalid> {
        let mut check = Check::new();
        let url = check.take(read_url(rules, &new.url));
        let filter = check.take(EventFilter::parse("/event_types", &new.event_types));
        let headers = check.take(CustomHeaders::parse("/headers", &new.headers));
        let rate_limit = new.rate_limit.and_then(|rate| check.take(read_rate(rate)));
        if let Some(description) = &new.description {
            check.text("/description", description, 0..=Self::LONGEST_DESCRIPTION);
        }
        check.verdict()?;
        let (Some(url), Some(filter), Some(headers)) = (url, filter, headers) else {
            return Err(Invalid::one("", "invalid", "must be an endpoint"));
        };
        let endpoint = Self {
            id,
            url,
            description: new.description,
            filter,
            rate_limit,
            ordered: new.ordered,
            signature: new.signature,
            public_key: secret.public_key,
            header_names: names(&headers),
            sealed_credentials: Vec::new(),
            former_until: None,
            state: state_of(new.enabled, now),
            streak: None,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let credentials = EndpointCredentials {
            secrets: EndpointSecrets::new(secret.secret),
            headers,
        };
        Ok((endpoint, credentials))
    }

    /// Applies a change. Returns the custom headers where they are changed; [`WebhookEndpoint::keep`] seals them.
    ///
    /// Custom headers are secrets of their receiver. Where the endpoint moves to another origin they are given again or removed, so that
    /// a person who may change the URL does not learn them.
    ///
    /// # Errors
    /// [`Invalid`]; then nothing has changed.
    pub fn apply(
        &mut self,
        patch: WebhookEndpointPatch,
        rules: &EndpointRules,
        now: Time,
    ) -> Result<Option<CustomHeaders>, Invalid> {
        let mut check = Check::new();
        let mut endpoint = self.clone();
        check.not_null("/url", &patch.url);
        check.not_null("/ordered", &patch.ordered);
        check.not_null("/enabled", &patch.enabled);
        if let Patch::Set(text) = &patch.url
            && let Some(url) = check.take(read_url(rules, text))
        {
            let moves = url.origin() != self.url.origin();
            let detail = "must be given again, or null, with a URL of another host, scheme or port: their values would be sent there";
            let is_given = !patch.headers.is_keep() || self.header_names.is_empty();
            check.require(!moves || is_given, "/headers", "required", detail);
            if url != endpoint.url {
                // They were of another receiver.
                endpoint.streak = None;
            }
            endpoint.url = url;
        }
        if let Patch::Set(description) = &patch.description {
            check.text("/description", description, 0..=Self::LONGEST_DESCRIPTION);
        }
        patch.description.apply(&mut endpoint.description);
        match patch.event_types {
            Patch::Keep => {}
            Patch::Clear => endpoint.filter = EventFilter::default(),
            Patch::Set(texts) => {
                let filter = check.take(EventFilter::parse("/event_types", &texts));
                endpoint.filter = filter.unwrap_or_default();
            }
        }
        match patch.rate_limit {
            Patch::Keep => {}
            Patch::Clear => endpoint.rate_limit = None,
            Patch::Set(rate) => endpoint.rate_limit = check.take(read_rate(rate)),
        }
        let headers = match patch.headers {
            Patch::Keep => None,
            Patch::Clear => Some(CustomHeaders::default()),
            Patch::Set(headers) => check.take(CustomHeaders::parse("/headers", &headers)),
        };
        patch.ordered.apply_required(&mut endpoint.ordered);
        check.verdict()?;
        if let Patch::Set(enabled) = patch.enabled {
            endpoint.enable(enabled, now);
        }
        endpoint.changed(now);
        *self = endpoint;
        Ok(headers)
    }

    /// Replaces the secret. Those before sign as well for the grace period ([`EndpointSecrets::rotate`]).
    pub fn rotate(
        &mut self,
        credentials: &mut EndpointCredentials,
        secret: NewSecret,
        grace: Duration,
        now: Time,
    ) {
        credentials.secrets.rotate(secret.secret, grace, now);
        self.public_key = secret.public_key;
        let former = credentials.secrets.former.iter().map(|(_, until)| *until);
        self.former_until = former.max();
        self.changed(now);
    }

    /// Disables it, by the server.
    pub fn disable(&mut self, reason: DisableReason, now: Time) {
        self.state = EndpointState::Disabled {
            reason: Some(reason),
            at: now,
        };
        self.changed(now);
    }

    /// Takes over what it is signed with and sent with, sealed for its tenant.
    pub fn keep(&mut self, tenant: TenantId, credentials: &EndpointCredentials, seal: &dyn Seal) {
        self.header_names = names(&credentials.headers);
        self.sealed_credentials = credentials.seal(tenant, self.id, seal);
    }

    fn enable(&mut self, enabled: bool, now: Time) {
        if enabled == self.state.is_enabled() {
            return;
        }
        self.state = state_of(enabled, now);
        if enabled {
            self.streak = None;
        }
    }

    fn changed(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// What the messages of an endpoint are signed and sent with. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointCredentials {
    /// What signs.
    pub secrets: EndpointSecrets,
    /// What the tenant adds to the requests.
    pub headers: CustomHeaders,
}

/// [`EndpointCredentials`] below the seal.
#[derive(Serialize, Deserialize)]
struct Plain {
    current: String,
    former: Vec<(String, Time)>,
    headers: BTreeMap<String, String>,
}

impl EndpointCredentials {
    /// What they are sealed for.
    pub fn place(tenant: TenantId, endpoint: WebhookEndpointId) -> String {
        format!("webhook endpoint {endpoint} of tenant {tenant}")
    }

    /// Seals them for an endpoint.
    pub fn seal(&self, tenant: TenantId, endpoint: WebhookEndpointId, seal: &dyn Seal) -> Vec<u8> {
        let text = |secret: &SigningSecret| secret.expose().to_owned();
        let former = self.secrets.former.iter();
        let headers = self.headers.iter();
        let plain = Plain {
            current: text(&self.secrets.current),
            former: former.map(|(secret, until)| (text(secret), *until)).collect(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        // Texts and times always have a form in JSON.
        let plain = serde_json::to_vec(&plain).unwrap_or_default();
        seal.seal(&Self::place(tenant, endpoint), &plain)
    }

    /// Opens what was sealed for an endpoint; `None` when no known key opens it.
    pub fn open(
        tenant: TenantId,
        endpoint: WebhookEndpointId,
        sealed: &[u8],
        seal: &dyn Seal,
    ) -> Option<Self> {
        let opened = seal.open(&Self::place(tenant, endpoint), sealed)?;
        let plain: Plain = serde_json::from_slice(&opened).ok()?;
        let former = plain.former.into_iter();
        Some(Self {
            secrets: EndpointSecrets {
                current: SigningSecret::stored(plain.current),
                former: former
                    .map(|(secret, until)| (SigningSecret::stored(secret), until))
                    .collect(),
            },
            headers: CustomHeaders::stored(plain.headers),
        })
    }
}

/// The endpoints of the scope's tenant.
#[async_trait]
pub trait WebhookEndpoints: Send {
    /// One endpoint.
    async fn find(&mut self, id: WebhookEndpointId) -> Result<Option<WebhookEndpoint>, StoreError>;

    /// One endpoint, locked until the end of the transaction.
    async fn find_for_update(&mut self, id: WebhookEndpointId)
    -> Result<Option<WebhookEndpoint>, StoreError>;

    /// A page of them, newest first.
    async fn list(&mut self, page: PageRequest) -> Result<Page<WebhookEndpoint>, StoreError>;

    /// All of them, oldest first; at most [`WebhookEndpoint::MOST`].
    async fn all(&mut self) -> Result<Vec<WebhookEndpoint>, StoreError>;

    /// How many there are.
    async fn count(&mut self) -> Result<u64, StoreError>;

    /// How many are enabled: to so many deliveries an event may lead.
    async fn count_enabled(&mut self) -> Result<u64, StoreError>;

    /// Adds an endpoint.
    async fn insert(&mut self, endpoint: &WebhookEndpoint) -> Result<(), StoreError>;

    /// Stores a change, the failures included.
    async fn update(&mut self, endpoint: &WebhookEndpoint) -> Result<(), StoreError>;

    /// Stores the failures alone; nothing of an endpoint that was deleted meanwhile.
    async fn store_streak(
        &mut self,
        id: WebhookEndpointId,
        streak: Option<FailureStreak>,
    ) -> Result<(), StoreError>;

    /// Stores credentials that were sealed anew; no other field changes.
    async fn reseal(&mut self, id: WebhookEndpointId, sealed: &[u8]) -> Result<(), StoreError>;

    /// Marks an endpoint as deleted: it is hidden from all other methods, disabled, and without its secrets.
    async fn delete(&mut self, id: WebhookEndpointId, now: Time) -> Result<(), StoreError>;

    /// Removes the row of an endpoint that is marked as deleted, with what still refers to it; nothing of another one.
    async fn remove(&mut self, id: WebhookEndpointId) -> Result<(), StoreError>;
}

const fn state_of(enabled: bool, now: Time) -> EndpointState {
    if enabled {
        EndpointState::Enabled
    } else {
        EndpointState::Disabled {
            reason: None,
            at: now,
        }
    }
}

fn read_url(rules: &EndpointRules, text: &str) -> Result<EndpointUrl, Invalid> {
    let read = rules.parse(text);
    read.map_err(|error| Invalid::one("/url", error.code(), error.to_string()))
}

fn read_rate(rate: i64) -> Result<u32, Invalid> {
    let is_allowed = (1..=WebhookEndpoint::HIGHEST_RATE).contains(&rate);
    let read = u32::try_from(rate).ok().filter(|_| is_allowed);
    read.ok_or_else(|| {
        let detail = format!(
            "must be 1 to {} attempts of a second",
            WebhookEndpoint::HIGHEST_RATE
        );
        Invalid::one("/rate_limit", "out_of_range", detail)
    })
}

fn names(headers: &CustomHeaders) -> Vec<String> {
    headers.iter().map(|(name, _)| name.to_owned()).collect()
}

fn origin<S: Serializer>(url: &EndpointUrl, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&url.origin())
}

fn texts<S: Serializer>(filter: &EventFilter, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(filter.texts())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// Seals by writing the place before the text.
    struct Marked;

    impl Seal for Marked {
        fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8> {
            [place.as_bytes(), b"|", plain].concat()
        }

        fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
            let marked = sealed.strip_prefix(place.as_bytes())?;
            marked.strip_prefix(b"|").map(<[u8]>::to_vec)
        }

        fn digest(&self, _: &str, _: &[u8]) -> [u8; 32] {
            [0; 32]
        }

        fn is_digest(&self, _: &str, _: &[u8], _: &[u8; 32]) -> bool {
            false
        }

        fn is_current(&self, _: &str, _: &[u8]) -> bool {
            true
        }

        fn new_data_key(&self, _: &str) -> Vec<u8> {
            Vec::new()
        }

        fn with_data_key(&self, _: &str, _: &[u8]) -> Option<Arc<dyn Seal>> {
            None
        }
    }

    fn at(seconds: u64) -> Time {
        Time::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn secret(text: &str) -> NewSecret {
        NewSecret {
            secret: SigningSecret::stored(text.to_owned()),
            public_key: None,
        }
    }

    fn new() -> NewWebhookEndpoint {
        NewWebhookEndpoint {
            url: "https://hooks.example.com/in?token=t0ken".into(),
            description: Some("Orders".into()),
            event_types: vec!["task.*".into()],
            rate_limit: Some(5),
            headers: [("X-Team".to_owned(), "s3cret".to_owned())].into(),
            ordered: false,
            enabled: true,
            signature: SignatureKind::Hmac,
        }
    }

    fn made() -> (WebhookEndpoint, EndpointCredentials) {
        let rules = EndpointRules::default();
        let id = Uuid::from_u128(7).into();
        WebhookEndpoint::new(id, new(), secret("whsec_a"), &rules, at(0)).unwrap()
    }

    #[test]
    fn every_invalid_field_is_named_at_once() {
        let broken = NewWebhookEndpoint {
            url: "http://169.254.169.254/".into(),
            description: Some("x".repeat(501)),
            event_types: vec!["*".into()],
            rate_limit: Some(0),
            headers: [("Host".to_owned(), "x".to_owned())].into(),
            ..new()
        };
        let rules = EndpointRules::default();
        let id = Uuid::from_u128(7).into();
        let refused = WebhookEndpoint::new(id, broken, secret("whsec_a"), &rules, at(0));
        let Invalid(errors) = refused.unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        let expected = [
            "/url",
            "/event_types/0",
            "/headers/Host",
            "/rate_limit",
            "/description",
        ];
        assert_eq!(pointers, expected);
    }

    #[test]
    fn recorded_state_has_no_secret() {
        let (endpoint, _) = made();
        let shown = serde_json::to_value(&endpoint).unwrap();
        assert_eq!(
            shown,
            json!({
                "id": endpoint.id, "url": "https://hooks.example.com", "description": "Orders",
                "event_types": ["task.*"], "rate_limit": 5, "ordered": false, "signature": "v1",
                "public_key": null, "header_names": ["x-team"], "enabled": true, "disabled_reason": null,
                "disabled_at": null, "created_at": at(0), "updated_at": at(0), "version": 1,
            })
        );
        let debug = format!("{:?}", made());
        for hidden in ["t0ken", "s3cret", "whsec_a"] {
            assert!(!debug.contains(hidden), "{debug}");
        }
    }

    #[test]
    fn headers_do_not_follow_to_another_origin() {
        let rules = EndpointRules::default();
        let (mut endpoint, _) = made();
        let moved = |url: &str, headers| WebhookEndpointPatch {
            url: Patch::Set(url.into()),
            headers,
            ..Default::default()
        };
        for url in ["https://evil.example/in", "https://hooks.example.com:8443/in"] {
            let refused = endpoint.apply(moved(url, Patch::Keep), &rules, at(1));
            let Invalid(errors) = refused.unwrap_err();
            assert_eq!(
                (errors[0].pointer.as_str(), errors[0].code),
                ("/headers", "required")
            );
        }
        assert_eq!(endpoint.version, 1);
        let same = moved("https://hooks.example.com/other", Patch::Keep);
        assert_eq!(endpoint.apply(same, &rules, at(1)), Ok(None));
        let away = moved("https://other.example/in", Patch::Clear);
        assert_eq!(
            endpoint.apply(away, &rules, at(2)),
            Ok(Some(CustomHeaders::default()))
        );
        assert_eq!(endpoint.version, 3);
    }

    #[test]
    fn enabling_clears_the_failures() {
        let rules = EndpointRules::default();
        let (mut endpoint, _) = made();
        endpoint.streak = Some(FailureStreak {
            first: at(0),
            last: at(9),
            failures: 3,
        });
        endpoint.disable(DisableReason::Failing, at(9));
        let enable = |enabled| WebhookEndpointPatch {
            enabled: Patch::Set(enabled),
            ..Default::default()
        };
        // An admin who disables it once more does not hide why the server has.
        endpoint.apply(enable(false), &rules, at(10)).unwrap();
        assert_eq!(endpoint.state.disabled_reason(), Some(DisableReason::Failing));
        endpoint.apply(enable(true), &rules, at(11)).unwrap();
        assert_eq!((endpoint.state, endpoint.streak), (EndpointState::Enabled, None));
        endpoint.apply(enable(false), &rules, at(12)).unwrap();
        let by_admin = EndpointState::Disabled {
            reason: None,
            at: at(12),
        };
        assert_eq!(endpoint.state, by_admin);
    }

    #[test]
    fn credentials_open_in_their_own_row_alone() {
        let (mut endpoint, mut credentials) = made();
        endpoint.rotate(
            &mut credentials,
            secret("whsec_b"),
            Duration::from_secs(60),
            at(5),
        );
        let (tenant, other) = (Uuid::from_u128(1).into(), Uuid::from_u128(2).into());
        endpoint.keep(tenant, &credentials, &Marked);
        let sealed = endpoint.sealed_credentials.clone();
        let opened = EndpointCredentials::open(tenant, endpoint.id, &sealed, &Marked);
        assert_eq!(opened, Some(credentials));
        assert_eq!(endpoint.former_until, Some(at(65)));
        assert_eq!(
            EndpointCredentials::open(other, endpoint.id, &sealed, &Marked),
            None
        );
        let elsewhere = Uuid::from_u128(8).into();
        assert_eq!(
            EndpointCredentials::open(tenant, elsewhere, &sealed, &Marked),
            None
        );
    }
}
