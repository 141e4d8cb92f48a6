//! What a service adds to the backend that it embeds.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::web::ServiceConfig;
use tenantry_domain::customization::Definition;
use tenantry_domain::events::{EventType, EventTypeError, EventTypes};
use tenantry_domain::flags::FlagDefinition;
use tenantry_domain::kernel::{Needs, Permission, PermissionError, PermissionRegistry};
use tenantry_http::Api;
use tenantry_migration::{MigrationError, Migrator, MigratorTrait};
use tenantry_tenancy::Ports;
use tenantry_tenancy::operations::job::Handlers;
use utoipa::openapi::OpenApi;

use crate::{RouteError, Routes};

/// A service built on Tenantry: its migrations, routes, permissions, settings, feature flags and jobs, in every command.
///
/// ```
/// use tenantry::Extension;
///
/// fn routes(config: &mut actix_web::web::ServiceConfig) {
///     let _ = config;
/// }
///
/// let notes = Extension::new("notes").routes(routes);
/// assert_eq!(notes.name(), "notes");
/// ```
#[derive(Clone)]
pub struct Extension {
    name: &'static str,
    pub(crate) schema: Schema,
    has_migrations: bool,
    catalogue: &'static str,
    routes: Vec<fn(&mut ServiceConfig)>,
    documents: Vec<fn() -> OpenApi>,
    declared: Vec<Routes>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) flags: Vec<FlagDefinition>,
    permissions: Vec<Permission>,
    events: Vec<EventType>,
    jobs: Vec<fn(Handlers) -> Handlers>,
    ports: Vec<ReplacePorts>,
}

/// Replaces some ports.
type ReplacePorts = Arc<dyn Fn(Ports) -> Ports + Send + Sync>;

impl Extension {
    /// A service that adds nothing yet. `name` is that of its program.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            schema: Schema::of::<Migrator>(),
            has_migrations: false,
            catalogue: "",
            routes: Vec::new(),
            documents: Vec::new(),
            declared: Vec::new(),
            definitions: Vec::new(),
            flags: Vec::new(),
            permissions: Vec::new(),
            events: Vec::new(),
            jobs: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// The name of its program.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its migrations: a migrator that lists Tenantry's first and its own behind them, as [`migrator!`](crate::migrator) makes one.
    #[must_use]
    pub fn migrations<M: MigratorTrait>(mut self) -> Self {
        self.schema = Schema::of::<M>();
        self.has_migrations = true;
        self
    }

    /// Whether it has migrations besides Tenantry's.
    pub fn has_migrations(&self) -> bool {
        self.has_migrations
    }

    /// What its migrations make, as `<program> doctor --record FILE` writes it. Doctor and guard then know its tables and report
    /// each difference; without it they say that an unknown migration has made them.
    #[must_use]
    pub fn catalogue(mut self, facts: &'static str) -> Self {
        self.catalogue = facts;
        self
    }

    /// Its routes, below `/api/v1`.
    #[must_use]
    pub fn routes(mut self, routes: fn(&mut ServiceConfig)) -> Self {
        self.routes.push(routes);
        self
    }

    /// What the OpenAPI document says of its routes.
    #[must_use]
    pub fn document(mut self, document: fn() -> OpenApi) -> Self {
        self.documents.push(document);
        self
    }

    /// Its routes with their description, as [`routes!`](crate::routes) declares them.
    #[must_use]
    pub fn serve(mut self, routes: Routes) -> Self {
        self.declared.push(routes);
        self.routes(routes.add).document(routes.document)
    }

    /// Settings of tenants beside those of the product.
    #[must_use]
    pub fn settings(mut self, definitions: impl IntoIterator<Item = Definition>) -> Self {
        self.definitions.extend(definitions);
        self
    }

    /// Feature flags of its own, beside those that operators define. An operator's definition with the same key replaces one. The
    /// start fails where one is invalid or a key is there twice.
    ///
    /// ```
    /// use tenantry::domain::{flags::{FlagDefinition, FlagRule, Share}, kernel::Level};
    /// use tenantry::Extension;
    ///
    /// let quarter = Share::of_percent(25.0).unwrap();
    /// let notes = Extension::new("notes").flags([
    ///     FlagDefinition::boolean("note-search", "Search in notes")
    ///         .with_rule(FlagRule::rollout(Level::Global, "on", quarter, Some("tenant"))),
    /// ]);
    /// ```
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = FlagDefinition>) -> Self {
        self.flags.extend(flags);
        self
    }

    /// A permission of its own, declared with [`permission!`](crate::permission): it is listed beside the product's, API keys may have
    /// it, and use cases may demand it. The start fails where its name is taken.
    #[must_use]
    pub fn permission<P: Needs>(mut self) -> Self {
        self.permissions.push(P::PERMISSION);
        self
    }

    /// A type of events of its own: receivers can subscribe to it, and each entry of the audit log with one of its actions emits an event of
    /// it. The start fails where its name or an action is taken.
    ///
    /// ```
    /// use tenantry::{EventType, Extension, Field};
    ///
    /// const NOTE: &[Field] = &[Field::id("id"), Field::text("text", "Call Ada")];
    /// let notes = Extension::new("notes").event(EventType::new("note.created", "A note was created.", NOTE));
    /// assert!(notes.event_types().is_ok());
    /// ```
    #[must_use]
    pub fn event(mut self, one: EventType) -> Self {
        self.events.push(one);
        self
    }

    /// Its jobs: a function that adds their handlers.
    #[must_use]
    pub fn jobs(mut self, add: fn(Handlers) -> Handlers) -> Self {
        self.jobs.push(add);
        self
    }

    /// Its own adapters: a function that replaces ports of the finished composition, in the server and in every command. What
    /// the composition has made of a port keeps the one that it was made of; the clock, the signing keys, the hasher of passwords and
    /// the payment provider are therefore replaced by [`Overrides`](crate::Overrides).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tenantry::{Extension, Ports, tenancy::NoTraces};
    ///
    /// let notes = Extension::new("notes").ports(|ports| Ports {
    ///     traces: Arc::new(NoTraces),
    ///     ..ports
    /// });
    /// ```
    #[must_use]
    pub fn ports(mut self, replace: impl Fn(Ports) -> Ports + Send + Sync + 'static) -> Self {
        self.ports.push(Arc::new(replace));
        self
    }

    /// The ports with its own adapters.
    pub(crate) fn replace_ports(&self, ports: Ports) -> Ports {
        self.ports.iter().fold(ports, |ports, replace| replace(ports))
    }

    /// Compares the routes that [`routes!`](crate::routes) declares with what the OpenAPI document says of them.
    ///
    /// # Errors
    /// [`RouteError`] with the first route that differs.
    pub fn check_routes(&self) -> Result<(), RouteError> {
        self.declared.iter().try_for_each(Routes::check)
    }

    /// The product's permissions and its own.
    ///
    /// # Errors
    /// [`PermissionError`] when names collide or are malformed.
    pub fn permissions(&self) -> Result<PermissionRegistry, PermissionError> {
        PermissionRegistry::new(self.permissions.iter().copied())
    }

    /// The product's types of events and its own.
    ///
    /// # Errors
    /// [`EventTypeError`] when names or actions collide, or names are malformed.
    pub fn event_types(&self) -> Result<EventTypes, EventTypeError> {
        EventTypes::new(self.events.iter().copied())
    }

    /// The API with its routes and documents.
    pub fn extend(&self, api: Api) -> Api {
        let api = self
            .routes
            .iter()
            .fold(api, |api, routes| api.with_routes(*routes));
        self.documents
            .iter()
            .fold(api, |api, document| api.with_document(document()))
    }

    /// The OpenAPI document of all routes.
    pub fn openapi(&self) -> OpenApi {
        let documents = self.documents.iter().map(|document| document());
        // Types that collide are refused by the start.
        let types = self.event_types().unwrap_or_default();
        tenantry_http::openapi_with(documents, &types)
    }

    /// Applies the migrations that are missing, as the owner of the tables; returns their names.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub async fn migrate(&self, owner_url: &str) -> Result<Vec<String>, MigrationError> {
        (self.schema.up)(owner_url.to_owned(), None).await
    }

    /// The handlers of jobs with its own.
    pub(crate) fn handlers(&self, handlers: Handlers) -> Handlers {
        self.jobs.iter().fold(handlers, |handlers, add| add(handlers))
    }

    /// What all migrations make, Tenantry's and its own: facts as the doctor records them.
    pub(crate) fn facts(&self) -> String {
        format!("{}\n{}", tenantry_migration::CATALOGUE, self.catalogue)
    }

    /// Of facts about a database those that Tenantry's own migrations do not make; all of them for the stock backend.
    pub(crate) fn own_facts(&self, recorded: &str) -> String {
        if !self.has_migrations {
            return recorded.to_owned();
        }
        beyond(tenantry_migration::CATALOGUE, recorded)
    }

    /// Of facts about a database those that neither Tenantry's migrations make nor its own.
    pub(crate) fn foreign_facts(&self, recorded: &str) -> String {
        beyond(&self.facts(), recorded)
    }
}

/// Of recorded facts those that are not known.
fn beyond(known: &str, recorded: &str) -> String {
    let known: HashSet<&str> = known.lines().collect();
    let further = recorded.lines().filter(|line| !known.contains(line));
    further.fold(String::new(), |text, line| text + line + "\n")
}

impl Default for Extension {
    /// The stock backend, which is extended by nothing.
    fn default() -> Self {
        Self::new("tenantry")
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Extension").field(&self.name).finish()
    }
}

/// Migrations, each with whether it is applied.
type Statuses = Vec<(String, bool)>;

type Run<T> = Pin<Box<dyn Future<Output = Result<T, MigrationError>> + Send>>;

/// What can be done with the migrations of a service, whatever their type is.
#[derive(Clone, Copy)]
pub(crate) struct Schema {
    /// Applies so many migrations, or all; returns their names.
    pub up: fn(String, Option<u32>) -> Run<Vec<String>>,
    /// Takes back so many; returns their names.
    pub down: fn(String, u32) -> Run<Vec<String>>,
    /// Drops everything and applies all.
    pub fresh: fn(String) -> Run<Vec<String>>,
    /// Each migration, and whether it is applied.
    pub status: fn(String) -> Run<Statuses>,
    /// Those that were applied and are of another service.
    pub unknown: fn(String) -> Run<Vec<String>>,
    /// The names of all.
    pub names: fn() -> Vec<String>,
}

impl Schema {
    fn of<M: MigratorTrait>() -> Self {
        Self {
            up: |url, steps| Box::pin(async move { tenantry_migration::up_with::<M>(&url, steps).await }),
            down: |url, steps| {
                Box::pin(async move { tenantry_migration::down_with::<M>(&url, Some(steps)).await })
            },
            fresh: |url| Box::pin(async move { tenantry_migration::fresh_with::<M>(&url).await }),
            status: |url| Box::pin(async move { tenantry_migration::status_with::<M>(&url).await }),
            unknown: |url| Box::pin(async move { tenantry_migration::unknown_with::<M>(&url).await }),
            names: tenantry_migration::migration_names::<M>,
        }
    }
}
