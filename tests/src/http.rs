use std::net::SocketAddr;
use std::rc::Rc;

use actix_web::body::MessageBody as _;
use actix_web::dev::Service as _;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use tenantry_http::Api;

/// An HTTP client of an application in this process: the whole application, without a socket.
#[derive(Clone)]
pub struct Client {
    call: Rc<dyn Fn(actix_http::Request) -> LocalBoxFuture<'static, Reply>>,
}

/// A request in the making.
#[must_use]
pub struct Request {
    client: Client,
    inner: TestRequest,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Client {
    /// A client of an API.
    pub async fn new(api: Api) -> Self {
        let service = Rc::new(init_service(tenantry_http::app(api)).await);
        let call = move |request| -> LocalBoxFuture<'static, Reply> {
            let service = Rc::clone(&service);
            Box::pin(async move {
                let response = match service.call(request).await {
                    Ok(response) => response.into_parts().1,
                    Err(error) => error.error_response(),
                };
                Reply::read(response).await
            })
        };
        Self { call: Rc::new(call) }
    }

    /// A request.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let peer: SocketAddr = ([203, 0, 113, 7], 4711).into();
        Request {
            client: self.clone(),
            inner: TestRequest::with_uri(path).method(method).peer_addr(peer),
        }
    }

    /// A GET request.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// A POST request with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).json(body)
    }

    /// A PATCH request with a JSON body.
    pub fn patch(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PATCH, path).json(body)
    }

    /// A PUT request with a JSON body.
    pub fn put(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body)
    }

    /// A DELETE request.
    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.inner = self
            .inner
            .append_header((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds a bearer token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sets a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.inner = self.inner.set_json(body);
        self
    }

    /// Sets a raw body; `Content-Type` is the caller's to set.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.inner = self.inner.set_payload(body.into());
        self
    }

    /// Sends it. `request.await` does the same; this is for requests that are sent together with others.
    pub fn send(self) -> LocalBoxFuture<'static, Reply> {
        (self.client.call)(self.inner.to_request())
    }
}

impl IntoFuture for Request {
    type Output = Reply;
    type IntoFuture = LocalBoxFuture<'static, Reply>;

    fn into_future(self) -> Self::IntoFuture {
        self.send()
    }
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.bytes) {
            Ok(json) => json,
            Err(error) => panic!("{} is no JSON ({error}): {}", self.status, self.text()),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The same answer, once its status is the one expected.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The same answer, once it is a problem with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let json = self.json();
        assert_eq!(json["code"], code, "{}", self.text());
        assert_eq!(json["status"], status);
        assert_eq!(json["type"], format!("/problems/{code}"));
        for member in ["title", "detail", "instance", "request_id"] {
            assert!(
                json[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {}",
                self.text()
            );
        }
        self
    }

    /// A problem's body without the two members that differ from request to request.
    #[track_caller]
    pub fn comparable(&self) -> String {
        let mut json = self.json();
        let object = json.as_object_mut().unwrap();
        object.remove("request_id");
        object.remove("instance");
        json.to_string()
    }

    async fn read(response: actix_web::HttpResponse) -> Self {
        let status = response.status().as_u16();
        let text = |value: &actix_web::http::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect();
        let body = response.into_body();
        let bytes = match body.try_into_bytes() {
            Ok(bytes) => bytes,
            Err(body) => actix_web::body::to_bytes(body).await.unwrap_or_default(),
        };
        Self {
            status,
            headers,
            bytes: bytes.to_vec(),
        }
    }
}
