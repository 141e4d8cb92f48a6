//! Requests that are done once, however often they are sent.
//!
//! A caller that does not hear our answer cannot know whether we acted. So it names its request by a key, and sends it
//! again: what was done is not done twice, and the answer is the first one. The key is taken, and the answer kept, in
//! the transaction of the change itself ([`Cx::write`]): they are stored together or not at all, and whoever dies in
//! between leaves no key behind. A request that failed was undone with its key, so sending it again is trying again.

use std::any::Any;
use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{KeptAnswer, KeyTaken, Role, Seal as _, StoreError, UserId, hex};
use tenantry_domain::operations::{KeptRequest, RequestKey};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::TenantSeal;
use uuid::Uuid;

use crate::kernel::context::Cx;

/// A request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    /// Whose key, and for which route.
    pub key: RequestKey,
    /// What the user is.
    pub role: Role,
    /// SHA-256 of all that the request asks for.
    pub fingerprint: [u8; 32],
}

/// A request with an idempotency key and without a credential, which creates its user: a sign-up, a registration. The key
/// belongs to that user, whom the e-mail address names when the request is sent again.
///
/// Whoever knows the key and the whole request gets the stored answer, tokens included, so the key must be hard to guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRegistration {
    /// The user's e-mail address, as the request has it.
    pub email: String,
    /// See [`RequestKey::route`].
    pub route: String,
    /// See [`RequestKey::key`].
    pub key: String,
    /// See [`KeyedRequest::fingerprint`].
    pub fingerprint: [u8; 32],
}

/// A request of an operator with an idempotency key. It is kept in the record of what the operator did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRequest {
    /// See [`RequestKey::route`].
    pub route: String,
    /// See [`RequestKey::key`].
    pub key: String,
    /// See [`KeyedRequest::fingerprint`].
    pub fingerprint: [u8; 32],
}

impl OperatorRequest {
    /// What the record of the operator's event says of the request.
    pub fn to_details(&self) -> Value {
        json!({"route": self.route, "key": self.key, "fingerprint": hex(&self.fingerprint)})
    }

    /// Whether an event's details are those of this request.
    ///
    /// # Errors
    /// [`KeyTaken::Reused`] when they are those of another request.
    pub(crate) fn check(&self, details: &Value) -> Result<(), KeyTaken> {
        let same = details["idempotency"]["fingerprint"] == hex(&self.fingerprint);
        if same { Ok(()) } else { Err(KeyTaken::Reused) }
    }
}

/// What makes a unit of work happen once: the request, and how its answer is made of what the work returns.
#[derive(Clone)]
pub(crate) struct Once {
    request: KeyedRequest,
    answer: Arc<AnswerOf>,
    registration: Option<Registration>,
}

/// The user that a request creates: how it is found again, and which one the work has created.
#[derive(Clone)]
struct Registration {
    email: Option<Email>,
    user: Arc<UserOf>,
}

/// The user that the work has created, in what it returned; `None` when that is something else.
type UserOf = dyn Fn(&dyn Any) -> Option<UserId> + Send + Sync;

/// What to keep as the answer, made of what the work returned; `None` when that is something else.
type AnswerOf = dyn Fn(&dyn Any) -> Option<KeptAnswer> + Send + Sync;

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Once {
    /// `answer` is asked for what to keep of the work's result, which is a `T`.
    pub(crate) fn new<T: Clone + 'static>(
        request: KeyedRequest,
        answer: impl Fn(T) -> Option<KeptAnswer> + Send + Sync + 'static,
    ) -> Self {
        let answer = move |done: &dyn Any| answer(done.downcast_ref::<T>()?.clone());
        Self {
            request,
            answer: Arc::new(answer),
            registration: None,
        }
    }

    /// As [`Once::new`], for a request that creates its user; `user` names the user in the work's result.
    pub(crate) fn registration<T: Clone + 'static>(
        request: KeyedRegistration,
        user: impl Fn(&T) -> UserId + Send + Sync + 'static,
        answer: impl Fn(T) -> Option<KeptAnswer> + Send + Sync + 'static,
    ) -> Self {
        let KeyedRegistration {
            email,
            route,
            key,
            fingerprint,
        } = request;
        let request = KeyedRequest {
            key: RequestKey {
                user: Uuid::nil().into(),
                route,
                key,
            },
            role: Role::Viewer,
            fingerprint,
        };
        let registration = Registration {
            email: Email::parse(&email, "").ok(),
            user: Arc::new(move |done: &dyn Any| done.downcast_ref::<T>().map(&user)),
        };
        Self {
            registration: Some(registration),
            ..Self::new(request, answer)
        }
    }

    /// Takes the key before anything is done, unless it stands for a request already.
    ///
    /// The lock only spares the second of two requests the work. Without it the second would wait in
    /// [`Self::complete`] and be undone.
    pub(crate) async fn begin(&self, cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
        let locked = work.idempotency_keys().lock(&self.request.key).await?;
        match self.kept_before(work).await? {
            Some(kept) if !kept.is_expired(cx.now()) => Err(self.taken_by(cx, work, kept).await?.into()),
            _ if !locked => Err(KeyTaken::InProgress.into()),
            Some(kept) => work.idempotency_keys().delete(&kept.key).await,
            None => Ok(()),
        }
    }

    /// Fails with the answer when the request is done already. It takes no key.
    pub(crate) async fn check(&self, cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
        match self.kept_before(work).await? {
            Some(kept) if !kept.is_expired(cx.now()) => Err(self.taken_by(cx, work, kept).await?.into()),
            Some(_) | None => Ok(()),
        }
    }

    async fn kept_before(&self, work: &mut Work) -> Result<Option<KeptRequest>, StoreError> {
        let mut key = self.request.key.clone();
        if let Some(registration) = &self.registration {
            let Some(email) = &registration.email else {
                return Ok(None);
            };
            let Some(user) = work.users().find_by_email(email).await? else {
                return Ok(None);
            };
            key.user = user.id;
        }
        work.idempotency_keys().find(&key).await
    }

    /// What to keep of this request now that it is done.
    pub(crate) fn kept<T: 'static>(
        &self,
        cx: &Cx,
        seal: &TenantSeal,
        done: &T,
    ) -> Result<KeptRequest, StoreError> {
        let mut answer = (self.answer)(done)
            .ok_or_else(|| StoreError::Other("the work does not return what its answer is made of".into()))?;
        let KeyedRequest {
            mut key,
            role,
            fingerprint,
        } = self.request.clone();
        if let Some(registration) = &self.registration {
            key.user = (registration.user)(done)
                .ok_or_else(|| StoreError::Other("the work does not return the user it creates".into()))?;
        }
        let place = place(cx, &key);
        answer.body = seal.seal(&place, &answer.body);
        // The request may have a password in it.
        let fingerprint = seal.digest(&place, &fingerprint);
        Ok(KeptRequest::new(key, fingerprint, role, answer, cx.now()))
    }

    /// Keeps it, last of all that is done.
    pub(crate) async fn complete(work: &mut Work, kept: &KeptRequest) -> Result<(), StoreError> {
        if work.idempotency_keys().insert(kept).await? {
            Ok(())
        } else {
            // Somebody else was first after all. Run again, the work finds their answer.
            Err(StoreError::Contention)
        }
    }

    /// Permissions that depend on what a use case reads are not asked for again, because it does not run again. So a
    /// user must not be less than they were.
    async fn taken_by(&self, cx: &Cx, work: &mut Work, kept: KeptRequest) -> Result<KeyTaken, StoreError> {
        if self.request.role < kept.role {
            return Ok(KeyTaken::Outranked);
        }
        let seal = cx.seal_opening(work, &kept.answer.body).await?;
        let place = place(cx, &kept.key);
        let Some(body) = seal.open(&place, &kept.answer.body) else {
            return Ok(KeyTaken::Unreadable);
        };
        if !seal.is_digest(&place, &self.request.fingerprint, &kept.fingerprint) {
            return Ok(KeyTaken::Reused);
        }
        Ok(KeyTaken::Done(KeptAnswer { body, ..kept.answer }))
    }
}

/// The one place where an answer can be opened again: not in another tenant, nor for another user.
fn place(cx: &Cx, key: &RequestKey) -> String {
    let RequestKey { user, route, key } = key;
    format!("answer {} {user} {route} {key}", cx.scope().tenant())
}
