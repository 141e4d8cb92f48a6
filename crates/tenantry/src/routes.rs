use std::collections::BTreeSet;

/// Declares the routes of a service once, for [`Extension::serve`](crate::Extension::serve): each path below `/api/v1`, its methods and
/// their handlers, which carry a `#[utoipa::path]`. What is served is what the OpenAPI document lists: a route whose handler
/// describes another path or method is an error at the start.
///
/// ```ignore
/// tenantry::routes! { pub routes:
///     "/notes" => get(list), post(create);
///     "/notes/{id}" => get(read);
/// }
/// ```
#[macro_export]
macro_rules! routes {
    ($visibility:vis $name:ident: $($path:literal => $($method:ident($handler:ident)),+;)+) => {
        #[doc = "The routes of this service, and what the OpenAPI document says of them."]
        $visibility fn $name() -> $crate::Routes {
            #[derive($crate::__utoipa::OpenApi)]
            #[openapi(paths($($($handler),+),+))]
            struct Document;

            $crate::Routes {
                add: |config| {
                    $(config.service($crate::prelude::Endpoint::at($path)$(.$method($handler))+);)+
                },
                document: <Document as $crate::__utoipa::OpenApi>::openapi,
                declared: &[$($((stringify!($method), $path)),+),+],
            }
        }
    };
}

/// Routes with their description, as [`routes!`](crate::routes) declares them.
#[derive(Debug, Clone, Copy)]
pub struct Routes {
    /// Adds the routes below `/api/v1`.
    pub add: fn(&mut actix_web::web::ServiceConfig),
    /// What the OpenAPI document says of them.
    pub document: fn() -> utoipa::openapi::OpenApi,
    /// The method in small letters and the path below `/api/v1` of each route.
    pub declared: &'static [(&'static str, &'static str)],
}

/// A route of a service that the OpenAPI document does not have, or the other way about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The handler of a route describes another path or method.
    #[error(
        "the route {0} is served, and no handler describes it: give its handler `#[utoipa::path]` with this method and path"
    )]
    Undescribed(String),
    /// A handler describes a path and method that it is not served at.
    #[error(
        "a handler describes the route {0}, which is not served: correct its `#[utoipa::path]`, or declare the route"
    )]
    Unserved(String),
}

impl Routes {
    /// Compares the routes with their description.
    ///
    /// # Errors
    /// [`RouteError`] with the first route that differs.
    pub fn check(&self) -> Result<(), RouteError> {
        let declared = self.declared.iter();
        let served: BTreeSet<String> = declared
            .map(|(method, path)| format!("{} /api/v1{path}", method.to_uppercase()))
            .collect();
        let described = described(&(self.document)());
        if let Some(route) = served.difference(&described).next() {
            return Err(RouteError::Undescribed(route.clone()));
        }
        match described.difference(&served).next() {
            Some(route) => Err(RouteError::Unserved(route.clone())),
            None => Ok(()),
        }
    }
}

/// Method and path of each operation of a document.
fn described(document: &utoipa::openapi::OpenApi) -> BTreeSet<String> {
    let paths = document.paths.paths.iter().flat_map(|(path, item)| {
        let methods = [
            ("GET", &item.get),
            ("PUT", &item.put),
            ("POST", &item.post),
            ("DELETE", &item.delete),
            ("OPTIONS", &item.options),
            ("HEAD", &item.head),
            ("PATCH", &item.patch),
            ("TRACE", &item.trace),
            ("QUERY", &item.query),
        ];
        let present = methods.into_iter().filter(|(_, operation)| operation.is_some());
        present.map(move |(method, _)| format!("{method} {path}"))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;
    use crate::{Extension, RouteError};

    #[utoipa::path(get, path = "/api/v1/notes/{id}", params(("id" = String, Path)), responses((status = 200)))]
    async fn read() -> HttpResponse {
        HttpResponse::Ok().finish()
    }

    #[utoipa::path(post, path = "/api/v1/notes", responses((status = 201)))]
    async fn create() -> HttpResponse {
        HttpResponse::Created().finish()
    }

    crate::routes! { right:
        "/notes/{id}" => get(read);
        "/notes" => post(create);
    }

    crate::routes! { other_path:
        "/note/{id}" => get(read);
        "/notes" => post(create);
    }

    crate::routes! { other_method:
        "/notes/{id}" => get(read);
        "/notes" => put(create);
    }

    #[test]
    fn routes_and_their_description_are_compared() {
        assert_eq!(right().check(), Ok(()));
        for (routes, route) in [
            (other_path(), "GET /api/v1/note/{id}"),
            (other_method(), "PUT /api/v1/notes"),
        ] {
            assert_eq!(routes.check(), Err(RouteError::Undescribed(route.into())));
        }
        let unserved = crate::Routes {
            declared: &[("get", "/notes/{id}")],
            ..right()
        };
        assert_eq!(
            unserved.check(),
            Err(RouteError::Unserved("POST /api/v1/notes".into()))
        );
    }

    #[test]
    fn a_service_with_a_wrong_route_does_not_start() {
        let config = crate::Configuration {
            extension: Extension::new("notes").serve(right()).serve(other_path()),
            ..crate::Configuration::default()
        };
        let error = crate::boot(&config).err().unwrap().to_string();
        assert!(error.contains("GET /api/v1/note/{id}"), "{error}");
    }
}
