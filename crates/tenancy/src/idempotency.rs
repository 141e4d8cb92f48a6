//! Requests that are done once, however often they are sent.
//!
//! A caller that does not hear our answer cannot know whether we acted. So it names its request by a key, and sends it
//! again: what was done is not done twice, and the answer is the first one. The key is taken, and the answer kept, in
//! the transaction of the change itself ([`Cx::write`]): they are stored together or not at all, and whoever dies in
//! between leaves no key behind. A request that failed was undone with its key, so sending it again is trying again.

use std::any::Any;
use std::sync::Arc;

use tenantry_domain::{KeptAnswer, KeptRequest, KeyTaken, RequestKey, Role, StoreError, Work};

use crate::Cx;

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

/// What makes a unit of work happen once: the request, and how its answer is made of what the work returns.
#[derive(Clone)]
pub(crate) struct Once {
    request: KeyedRequest,
    answer: Arc<AnswerOf>,
}

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
        }
    }

    /// Takes the key before anything is done, unless it stands for a request already.
    ///
    /// The lock only spares the second of two requests the work. Without it the second would wait in
    /// [`Self::complete`] and be undone.
    pub(crate) async fn begin(&self, cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
        let key = &self.request.key;
        let keys = work.idempotency_keys();
        let locked = keys.lock(key).await?;
        match keys.find(key).await? {
            Some(kept) if !kept.is_expired(cx.now()) => Err(self.taken_by(cx, kept).into()),
            _ if !locked => Err(KeyTaken::InProgress.into()),
            Some(_) => keys.delete(key).await,
            None => Ok(()),
        }
    }

    /// What to keep of this request now that it is done.
    pub(crate) fn kept<T: 'static>(&self, cx: &Cx, done: &T) -> Result<KeptRequest, StoreError> {
        let mut answer = (self.answer)(done)
            .ok_or_else(|| StoreError::Other("the work does not return what its answer is made of".into()))?;
        answer.body = cx.ports().seal.seal(&self.place(cx), &answer.body);
        let KeyedRequest {
            key,
            role,
            fingerprint,
        } = self.request.clone();
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
    fn taken_by(&self, cx: &Cx, kept: KeptRequest) -> KeyTaken {
        if self.request.role < kept.role {
            return KeyTaken::Outranked;
        }
        if kept.fingerprint != self.request.fingerprint {
            return KeyTaken::Reused;
        }
        let body = cx.ports().seal.open(&self.place(cx), &kept.answer.body);
        body.map_or(KeyTaken::Unreadable, |body| {
            KeyTaken::Done(KeptAnswer { body, ..kept.answer })
        })
    }

    /// The one place where this answer can be opened again: not in another tenant, nor for another user.
    fn place(&self, cx: &Cx) -> String {
        let RequestKey { user, route, key } = &self.request.key;
        format!("answer {} {user} {route} {key}", cx.scope().tenant())
    }
}
