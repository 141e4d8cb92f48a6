use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are read for one request: status line, headers, body and what surrounds them. hyper bounds the headers and the
/// sender the body, but neither bounds interim answers (`100 Continue`), of which a receiver can send any number before its answer.
const ANSWER_BYTES: usize = 64 * 1_024;

/// How many bytes may still be read.
#[derive(Debug, Clone)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(ANSWER_BYTES)))
    }

    /// Allows the answer of the next request.
    pub(crate) fn renew(&self) {
        self.0.store(ANSWER_BYTES, Ordering::Relaxed);
    }

    /// Takes the bytes that were read; false when they are more than what is left.
    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok()
    }
}

/// A stream from which no more than an allowance is read.
pub(crate) struct Bounded<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Bounded<S> {
    pub(crate) const fn new(stream: S, allowance: Allowance) -> Self {
        Self { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.allowance.take(buffer.filled().len() - before) {
            return Poll::Ready(Ok(()));
        }
        let error = io::Error::new(io::ErrorKind::InvalidData, "the answer is too large");
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn reading_ends_with_the_allowance_until_it_is_renewed() {
        let allowance = Allowance::new();
        let mut stream = Bounded::new(tokio::io::repeat(b'x'), allowance.clone());
        let mut bytes = vec![0; ANSWER_BYTES];
        for _ in 0..2 {
            stream.read_exact(&mut bytes).await.unwrap();
            let error = stream.read_exact(&mut bytes[..1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            allowance.renew();
        }
    }
}
