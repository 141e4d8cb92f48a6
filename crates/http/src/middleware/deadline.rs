use std::{cell::Cell, rc::Rc, time::Duration};

use actix_web::{
    Error, HttpMessage,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};

/// Whether a request is held to the deadline of all requests. The endpoint says so when the request reaches it, which is
/// long before the deadline.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestDeadline(Rc<Cell<bool>>);

impl RequestDeadline {
    /// Waits for the answer; `None` when it did not come in time. What was under way is dropped then, and with it its
    /// transaction, which is rolled back.
    pub async fn within<T>(&self, deadline: Duration, answer: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(answer);
        match tokio::time::timeout(deadline, &mut answer).await {
            Ok(answer) => Some(answer),
            Err(_) if self.0.get() => Some(answer.await),
            Err(_) => None,
        }
    }
}

/// Frees the requests of an endpoint from the deadline.
pub(crate) async fn lift_deadline(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Some(deadline) = request.extensions().get::<RequestDeadline>() {
        deadline.0.set(true);
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

#[cfg(test)]
mod tests {
    use actix_web::{HttpResponse, web::ServiceConfig};

    use super::*;
    use crate::{
        Endpoint, HttpConfig,
        testing::{Call, api},
    };

    const DEADLINE: Duration = Duration::from_millis(50);

    async fn slow() -> HttpResponse {
        // Too slow on purpose: the deadline ends it.
        tokio::time::sleep(4 * DEADLINE).await;
        HttpResponse::Ok().finish()
    }

    fn routes(config: &mut ServiceConfig) {
        config
            .service(Endpoint::at("/slow").get(slow))
            .service(Endpoint::at("/export").without_deadline().get(slow))
            .route("/plain", actix_web::web::get().to(slow));
    }

    #[actix_web::test]
    async fn a_request_that_takes_too_long_is_answered_unless_its_endpoint_may() {
        let config = HttpConfig {
            request_timeout: DEADLINE,
            ..HttpConfig::default()
        };
        let api = api(config).with_routes(routes);
        for path in ["/api/v1/slow", "/api/v1/plain"] {
            let reply = Call::get(path).bearer("admin").send(&api).await;
            assert_eq!(reply.code(), "unavailable", "{path}");
            assert_eq!(reply.header("Retry-After"), Some("1"));
        }
        let reply = Call::get("/api/v1/export").bearer("admin").send(&api).await;
        assert_eq!(reply.status.as_u16(), 200);
    }
}
