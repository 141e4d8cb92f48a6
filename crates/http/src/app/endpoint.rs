use actix_web::{
    FromRequest, Handler, Resource, Responder,
    dev::{AppService, HttpServiceFactory},
    http::Method,
    middleware::from_fn,
    web,
};

use crate::extract::operator_ctx::authenticate_operator;
use crate::middleware::{
    authenticate::authenticate,
    deadline::lift_deadline,
    limits::{limit_address, limit_visitor},
};

/// A path and what can be done at it.
///
/// Authentication belongs to the route and not to the path: an unknown path is 404 and a wrong method 405 for
/// everybody, and only what would run asks who is there, before anything of the body is read.
pub struct Endpoint {
    resource: Resource,
    door: Door,
    without_deadline: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("door", &self.door)
            .finish_non_exhaustive()
    }
}

/// Who gets to a path's handlers.
#[derive(Debug, Clone, Copy)]
enum Door {
    /// Whoever has a credential, within the limits of tenant and user.
    Guarded,
    /// Operators of the platform.
    Operator,
    /// Everybody who presents or makes a credential, within the limits of their address.
    Credential,
    /// Everybody, within the limits of their address.
    Visitor,
    /// Everybody.
    Open,
}

macro_rules! answers {
    ($($name:ident $method:ident $doc:literal;)*) => {$(
        #[doc = $doc]
        #[must_use]
        pub fn $name<F, Args>(self, handler: F) -> Self
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            self.on(Method::$method, handler)
        }
    )*};
}

impl Endpoint {
    /// A path for those with a credential.
    pub fn at(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            door: Door::Guarded,
            without_deadline: false,
        }
    }

    /// A path for operators of the platform; its handlers begin with [`OperatorCtx`](crate::OperatorCtx).
    pub fn operator(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            door: Door::Operator,
            without_deadline: false,
        }
    }

    /// A path for everybody, as often as they like: for probes, whose answers cost next to nothing.
    pub fn open(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            door: Door::Open,
            without_deadline: false,
        }
    }

    /// A path for everybody at which a credential is presented or made, such as a login: an address may try only
    /// so often.
    pub fn credential(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            door: Door::Credential,
            without_deadline: false,
        }
    }

    /// A path without authentication, within the rate limit of the address.
    pub fn anonymous(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            door: Door::Visitor,
            without_deadline: false,
        }
    }

    /// From here on the methods are for everybody, as at [`Endpoint::anonymous`].
    #[must_use]
    pub fn opened(self) -> Self {
        Self {
            door: Door::Visitor,
            ..self
        }
    }

    /// Answers GET, and HEAD with the same headers.
    #[must_use]
    pub fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler.clone()).on(Method::HEAD, handler)
    }

    answers! {
        post POST "Answers POST.";
        put PUT "Answers PUT.";
        patch PATCH "Answers PATCH.";
        delete DELETE "Answers DELETE.";
    }

    /// Its requests are not held to the deadline of all requests: an export, a stream of events. Whatever follows the
    /// first byte of an answer never is. Say it before the methods it is for.
    #[must_use]
    pub fn without_deadline(self) -> Self {
        Self {
            without_deadline: true,
            ..self
        }
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = web::method(method).to(handler);
        let route = match self.door {
            Door::Guarded => route.wrap(from_fn(authenticate)),
            Door::Operator => route.wrap(from_fn(authenticate_operator)),
            Door::Credential => route.wrap(from_fn(limit_address)),
            Door::Visitor => route.wrap(from_fn(limit_visitor)),
            Door::Open => route,
        };
        let route = if self.without_deadline {
            route.wrap(from_fn(lift_deadline))
        } else {
            route
        };
        self.resource = self.resource.route(route);
        self
    }
}

impl HttpServiceFactory for Endpoint {
    fn register(self, config: &mut AppService) {
        self.resource.register(config);
    }
}
