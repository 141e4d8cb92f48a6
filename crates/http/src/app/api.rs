use std::sync::Arc;

use actix_cors::Cors;
use actix_web::{
    App, Error, HttpRequest,
    body::BoxBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::{Compress, Condition, from_fn},
    web::{self, Data, ServiceConfig},
};
use tenantry_tenancy::{Forwarding, Tenancy};
use utoipa::openapi::OpenApi;

use crate::app::{observe::observe, places::Places, system};
use crate::middleware::authenticate::authenticate_known;
use crate::ofrep::ofrep;
use crate::openapi::{docs, docs::Texts, openapi, operation};
use crate::{ApiError, HttpConfig, Limits, Quotas, Readiness, metrics, metrics::Metrics, v1, webhook};

/// The methods that some route takes.
pub(crate) const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Everything the HTTP application is made of. Cheap to clone: every worker gets one.
#[derive(Clone)]
pub struct Api {
    pub(crate) app: Arc<Tenancy>,
    pub(crate) config: Arc<HttpConfig>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) texts: Arc<Texts>,
    metrics: Arc<Metrics>,
    /// Streams of events.
    pub(crate) streams: Arc<Places>,
    /// Verifications of audit logs.
    pub(crate) verifications: Arc<Places>,
    pub(crate) limits: Option<Arc<Limits>>,
    pub(crate) quotas: Option<Arc<Quotas>>,
    pub(crate) forwarding: Arc<Forwarding>,
    routes: Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// The API over an application.
    pub fn new(app: Arc<Tenancy>, config: HttpConfig, readiness: Arc<Readiness>) -> Self {
        let forwarding = Arc::new(Forwarding::new(config.trust_forwarded_for));
        Self {
            texts: openapi::shared(&app.ports.event_types),
            app,
            config: Arc::new(config),
            readiness,
            metrics: Arc::default(),
            streams: Arc::default(),
            verifications: Arc::default(),
            limits: None,
            quotas: None,
            forwarding,
            routes: Arc::new(|_| {}),
        }
    }

    /// Holds requests to limits; without this call to none.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }

    /// Holds tenants to the hard limits of their API calls; without this call to none.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = Some(Arc::new(quotas));
        self
    }

    /// Adds routes of the embedding service below `/api/v1`. All of them are behind authentication, however
    /// they are made; routes of Tenantry itself come first.
    #[must_use]
    pub fn with_routes(mut self, routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        let earlier = Arc::clone(&self.routes);
        self.routes = Arc::new(move |config| {
            earlier(config);
            routes(config);
        });
        self
    }

    /// Adds the description of such routes to the OpenAPI document. What all operations have in common is filled
    /// in; error codes of its own an operation names in the extension `x-errors`.
    #[must_use]
    pub fn with_document(mut self, mut document: OpenApi) -> Self {
        operation::complete(&mut document);
        let all = self.texts.document().clone().merge_from(document);
        self.texts = Arc::new(Texts::of(all));
        self
    }

    /// What is measured, for registering more.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the configuration of the HTTP layer.
    pub fn config(&self) -> &HttpConfig {
        &self.config
    }

    /// The API that serves a request.
    pub(crate) fn of(request: &HttpRequest) -> Result<Data<Self>, ApiError> {
        let api = request.app_data::<Data<Self>>().cloned();
        api.ok_or_else(|| ApiError::wiring("the application was built without its Api"))
    }
}

/// The whole application, with everything that wraps it.
pub fn app(
    api: Api,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let with_cors = !api.config.cors_origins.is_empty();
    App::new()
        .app_data(Data::new(api.clone()))
        .wrap(Compress::default())
        .wrap(Condition::new(with_cors, cors(&api.config)))
        // The outermost, so that it sees every request and every answer, preflights included.
        .wrap(from_fn(observe))
        .configure(|config| configure(&api, config))
}

/// Registers all routes; [`app`] does, and adds what wraps them.
pub fn configure(api: &Api, config: &mut ServiceConfig) {
    system::routes(config);
    if api.config.serve_metrics {
        metrics::routes(config);
    }
    docs::routes(config);
    v1::customization::branding::pages(config);
    ofrep::routes(config);
    webhook::routes(config);
    let embedded = web::scope("")
        .wrap(from_fn(authenticate_known))
        .configure(|config| (api.routes)(config));
    // The embedded scope matches whatever no route before it does, so it is last.
    config.service(web::scope("/api/v1").configure(v1::routes).service(embedded));
}

fn cors(config: &HttpConfig) -> Cors {
    let cors = Cors::default()
        .allowed_methods(METHODS)
        .allow_any_header()
        .max_age(3600)
        .expose_headers([
            header::ETAG.as_str(),
            header::LINK.as_str(),
            header::LOCATION.as_str(),
            header::RETRY_AFTER.as_str(),
            "Idempotent-Replayed",
            "RateLimit",
            "RateLimit-Policy",
            "Tenant-Resolved-By",
            "X-Request-ID",
        ]);
    if config.cors_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    config
        .cors_origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}
