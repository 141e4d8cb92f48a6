/// Declares the routes of a service once, for [`Extension::serve`](crate::Extension::serve): each path below `/api/v1`, its methods and
/// their handlers, which carry a `#[utoipa::path]`. What is served is what the OpenAPI document lists.
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
}
