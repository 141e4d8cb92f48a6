/// An answer that is kept so that it can be given again.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status, of a success.
    pub status: u16,
    /// The headers that belong to the answer rather than to the request, as names and values.
    pub headers: Vec<(String, String)>,
    /// The bytes, before any content encoding.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for KeptAnswer {
    /// Without the body, which may hold what is shown only once.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptAnswer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// Why a request with an idempotency key is not done (again).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTaken {
    /// The first request with this key is still running.
    #[error("the first request with this key is still running")]
    InProgress,
    /// The key stands for another request.
    #[error("the key stands for another request")]
    Reused,
    /// It was done as more than the user is now.
    #[error("the request was done as more than the user is now")]
    Outranked,
    /// It was done, and its answer can no longer be read.
    #[error("the request was done, and its answer can no longer be read")]
    Unreadable,
    /// It was done, and this was the answer.
    #[error("the request was done")]
    Done(KeptAnswer),
}
