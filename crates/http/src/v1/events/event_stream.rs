use std::fmt::Write as _;

use actix_web::HttpRequest;
use actix_web::web::Bytes;
use tenantry_domain::kernel::{Permission, StoreError};
use tenantry_tenancy::events::feed::{self, FeedPage, FeedRequest, FeedStart};
use tenantry_tenancy::events::follow::FeedFollower;
use tenantry_tenancy::events::publish::EventError;
use tenantry_tenancy::{Cx, UseCaseError};

use crate::app::event_stream::{self, EventSource, Look};
use crate::extract::api_key;
use crate::v1::events::event_view::{EventView, binding};
use crate::{Answer, Api, ApiError, Ctx, permission::ReadEvents};

/// How many events a look takes. The next ones are read when the client has taken these.
const AT_ONCE: u32 = 50;

/// After how many bytes of frames the rest of a look is left to the next one, so that a client that takes little keeps little in memory.
const MOST_BYTES: usize = 64 * 1_024;

/// The feed of a tenant as a stream of server-sent events.
pub(crate) struct FeedEvents {
    cx: Ctx<ReadEvents>,
    follower: FeedFollower,
    request: FeedRequest,
    /// Up to which position the feed was read, and the position that the client knows as the last id.
    read: i64,
    sent: i64,
    has_more: bool,
}

impl FeedEvents {
    /// Answers a request with a stream. The first events are read before the answer begins, so that a cursor that is not valid is an error.
    pub(crate) async fn stream(cx: Ctx<ReadEvents>, http: &HttpRequest, request: FeedRequest) -> Answer {
        let api = Api::of(http)?;
        let place = event_stream::take_place(&api, &cx)?;
        let follower = FeedFollower::new(&cx)?;
        let request = FeedRequest {
            limit: AT_ONCE,
            ..request
        };
        let page = feed::read(&cx, &request).await?;
        let mut source = Self {
            cx,
            follower,
            request,
            read: 0,
            sent: 0,
            has_more: false,
        };
        let first = source.frames(page).map_err(ApiError::from)?;
        let credential = api_key::presented(http.headers(), &api)?.into_owned();
        Ok(event_stream::answer(
            http,
            api,
            (source, credential, place),
            &first,
        ))
    }

    /// Reads the next page when there is something behind what was read.
    async fn next_page(&self) -> Result<Option<FeedPage>, EventError> {
        if !self.has_more && !self.follower.is_behind(&self.cx, self.read).await? {
            return Ok(None);
        }
        feed::read(&self.cx, &self.request).await.map(Some)
    }

    /// Returns the frames of a page, and goes on behind it. The id of each is the cursor behind its event.
    fn frames(&mut self, page: FeedPage) -> Result<Bytes, StoreError> {
        let binding = binding(self.cx.scope());
        let mut frames = String::new();
        (self.read, self.has_more) = (page.next, page.has_more);
        for event in page.events {
            if frames.len() >= MOST_BYTES {
                (self.read, self.has_more) = (self.sent, true);
                break;
            }
            self.sent = event.position;
            let id = binding.seal_number(event.position);
            let event = serde_json::to_string(&EventView::from(event));
            let event = event.map_err(|error| StoreError::Other(error.to_string()))?;
            // Writing into a string cannot fail.
            let _ = write!(frames, "id: {id}\ndata: {event}\n\n");
        }
        self.request.start = FeedStart::After(self.read);
        Ok(frames.into())
    }
}

impl EventSource for FeedEvents {
    const PERMISSION: Permission = Permission::ReadEvents;

    fn cx(&self) -> &Cx {
        &self.cx
    }

    async fn wait(&mut self) {
        if !self.has_more {
            self.follower.wait().await;
        }
    }

    async fn look(&mut self) -> Look {
        let page = match self.next_page().await {
            Ok(Some(page)) => page,
            // A store that has failed is read again the next time.
            Ok(None) | Err(UseCaseError::Store(_)) => return Look::Nothing,
            // The client was so slow that its next events were deleted: it gets 422 `expired` when it connects again.
            Err(_) => return Look::End,
        };
        match self.frames(page) {
            Ok(frames) if frames.is_empty() => Look::Nothing,
            Ok(frames) => Look::Frames(frames),
            Err(_) => Look::End,
        }
    }

    /// Events of other types move the cursor too: a frame with an id alone is no event, and the client goes on behind it when it connects again.
    fn heartbeat(&mut self) -> Bytes {
        if self.read <= self.sent {
            return Bytes::from_static(b": still here\n\n");
        }
        self.sent = self.read;
        let id = binding(self.cx.scope()).seal_number(self.read);
        format!(": still here\nid: {id}\n\n").into()
    }
}
