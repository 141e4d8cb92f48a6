use actix_web::{
    FromRequest, Handler, Resource, Responder,
    dev::{AppService, HttpServiceFactory},
    http::Method,
    middleware::from_fn,
    web,
};

use crate::authenticate::authenticate;

/// A path and what can be done at it.
///
/// Authentication belongs to the route and not to the path: an unknown path is 404 and a wrong method 405 for
/// everybody, and only what would run asks who is there, before anything of the body is read.
pub struct Endpoint {
    resource: Resource,
    guarded: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("guarded", &self.guarded)
            .finish_non_exhaustive()
    }
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
            guarded: true,
        }
    }

    /// A path for everybody.
    pub fn open(path: &str) -> Self {
        Self {
            resource: web::resource(path),
            guarded: false,
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

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = web::method(method).to(handler);
        let route = if self.guarded {
            route.wrap(from_fn(authenticate))
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
