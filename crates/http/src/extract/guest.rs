use std::{
    future::{Ready, ready},
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, web::Data};
use tenantry_domain::identity::PresentedLink;
use tenantry_domain::kernel::{Network, RequestId, TenantId, UserId};
use tenantry_domain::operations::{Account, AccountName};
use tenantry_domain::tenant::{Admission, Denied, TenantSelector};
use tenantry_tenancy::admin::operator;
use tenantry_tenancy::identity::{account_link, known_network};
use tenantry_tenancy::tenant::access::{self, AccessError, Hints, ResolvedBy};
use tenantry_tenancy::{Cx, Origin, Tenancy};
use utoipa::IntoParams;

use crate::extract::{
    api_key::{self, Credential},
    hints, origin,
};
use crate::middleware::{authenticate, limits, limits::Attempt, request::RequestContext};
use crate::{Api, ApiError};

/// The caller of an endpoint that is open to everybody. It needs no credential; an access token that comes with the request
/// all the same, expired or not, must be of the tenant that the request names. Two credentials are refused.
pub(crate) struct Guest {
    api: Data<Api>,
    hints: Hints,
    origin: Origin,
    context: RequestContext,
    http: HttpRequest,
}

impl Guest {
    /// The application.
    pub fn app(&self) -> &Arc<Tenancy> {
        &self.api.app
    }

    /// From where the request came.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// The id of the request.
    pub fn request(&self) -> RequestId {
        self.context.id.clone()
    }

    /// Enters the tenant that headers, host or a slug in the body name, as far as login goes, from an address that its security
    /// policy allows.
    pub async fn enter(self, body_slug: Option<String>) -> Result<Cx, ApiError> {
        let (api, origin) = (self.api.clone(), self.origin.clone());
        let (guest, admission, by) = self.select(body_slug).await?;
        access::check_address(&api.app, &admission, &origin).await?;
        Ok(guest.admitted(admission, by))
    }

    async fn select(mut self, body_slug: Option<String>) -> Result<(Self, Admission, ResolvedBy), ApiError> {
        self.hints.body_slug = body_slug;
        let (admission, by) = access::select_tenant(&self.api.app, &self.hints, self.request()).await?;
        if self
            .bearer_tenant()
            .is_some_and(|tenant| tenant != admission.tenant.id)
        {
            return Err(AccessError::Mismatch.into());
        }
        Ok((self, admission, by))
    }

    /// The user of the live session whose access token comes with the request; `None` also for a token that does not count any more.
    pub async fn signed_in(&self) -> Result<Option<UserId>, ApiError> {
        let Ok(Credential::Token(token)) = api_key::presented(self.http.headers(), &self.api) else {
            return Ok(None);
        };
        match self.api.app.ports.gate.bearer(&token, self.request()).await {
            Ok(admission) => Ok(admission.scope.user()),
            Err(Denied::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// The tenant of an access token or API key that comes with the request.
    fn bearer_tenant(&self) -> Option<TenantId> {
        match api_key::presented(self.http.headers(), &self.api).ok()? {
            Credential::Token(token) => self.api.app.ports.gate.issued_to(&token),
            Credential::Key(key) => Some(key.tenant),
        }
    }

    /// Enters the tenant as [`Guest::enter`] does, to log in to one of its accounts.
    pub async fn enter_to_log_in(
        self,
        body_slug: Option<String>,
        email: &str,
    ) -> Result<(Cx, Attempt), ApiError> {
        let (http, api) = (self.http.clone(), self.api.clone());
        let cx = self.enter(body_slug).await?;
        let account = Account::User(cx.scope().tenant(), AccountName::of(email));
        let network = Network::site(cx.origin().address());
        let is_known = async || known_network::is_known_network(&cx, email, network).await;
        let attempt = limits::take_of_account(&http, &api, account, network, is_known).await?;
        Ok((cx, attempt))
    }

    /// Enters the tenant as [`Guest::enter`] does, to ask for a link to an address. Known and unknown addresses are counted
    /// alike, apart from failed logins.
    pub async fn enter_to_ask(self, body_slug: Option<String>, email: &str) -> Result<Cx, ApiError> {
        let (http, api) = (self.http.clone(), self.api.clone());
        let cx = self.enter(body_slug).await?;
        let account = Account::Mailed(cx.scope().tenant(), AccountName::of(email));
        let network = Network::site(cx.origin().address());
        limits::take_of_mailed(&http, &api, account, network).await?;
        Ok(cx)
    }

    /// Enters the tenant that the token of a link is of; a token that was not issued here is refused without the database.
    pub async fn enter_by_link(self, token: &str) -> Result<(Cx, PresentedLink), ApiError> {
        let presented = self.api.app.ports.link_tokens.read(token);
        let presented = presented.ok_or_else(account_link::unusable)?;
        Ok((self.enter_by_token(presented.tenant).await?, presented))
    }

    /// Takes an attempt to log in to an operator's account from the buckets of that account.
    pub async fn operator_attempt(&self, email: &str) -> Result<Attempt, ApiError> {
        operator_attempt(&self.http, self.app(), &self.origin, email).await
    }

    /// Enters the tenant of the credential, where there is one, else the one that headers or host name: to see what is
    /// shown to everybody.
    pub async fn visit(self) -> Result<Cx, ApiError> {
        if !api_key::is_presented(self.http.headers()) {
            let (guest, admission, by) = self.select(None).await?;
            return Ok(guest.admitted(admission, by));
        }
        let credential = api_key::presented(self.http.headers(), &self.api)?;
        let (http, api) = (&self.http, &self.api);
        let admission = api_key::admit(http, api, &credential, &self.origin, self.request()).await?;
        limits::take_of_tenant(&self.http, &self.api, &admission).await?;
        authenticate::enter_as_support(http, api, &admission, &self.origin).await?;
        access::agree(&self.api.app, &admission, &self.hints, &self.origin).await?;
        Ok(self.admitted(admission, ResolvedBy::Credential))
    }

    /// Enters the tenant that a token is of; headers, host and access token may only agree.
    pub async fn enter_by_token(mut self, tenant: TenantId) -> Result<Cx, ApiError> {
        if let Some(other) = self.bearer_tenant().filter(|other| *other != tenant) {
            self.hints.id = Some(other.to_string());
        }
        let selector = TenantSelector::Id(tenant);
        let gate = &self.api.app.ports.gate;
        let admission = gate.guest(&selector, self.request()).await?;
        if access::is_named(&self.api.app, &self.hints, &admission.tenant).await? {
            access::check_address(&self.api.app, &admission, &self.origin).await?;
            return Ok(self.admitted(admission, ResolvedBy::Credential));
        }
        let cx = Cx::new(Arc::clone(&self.api.app), admission.scope, self.origin);
        access::record_mismatch(&cx, &self.hints).await?;
        Err(AccessError::Mismatch.into())
    }

    fn admitted(self, admission: Admission, by: ResolvedBy) -> Cx {
        self.context.identify(&admission.scope);
        self.http.extensions_mut().insert(by);
        Cx::new(Arc::clone(&self.api.app), admission.scope, self.origin)
    }
}

/// Takes an attempt to log in to an operator's account, or to prove that a caller is that operator, from the buckets of the
/// account.
pub(crate) async fn operator_attempt(
    http: &HttpRequest,
    app: &Tenancy,
    origin: &Origin,
    email: &str,
) -> Result<Attempt, ApiError> {
    let api = Api::of(http)?;
    let account = Account::Operator(AccountName::of(email));
    let network = Network::site(origin.address());
    let is_known = async || operator::is_known_network(app, email, network).await;
    limits::take_of_account(http, &api, account, network, is_known).await
}

/// The headers that name a tenant without a credential.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes what `Guest` reads")]
pub(crate) struct TenantHeaders {
    /// The tenant, by id.
    #[param(rename = "X-Tenant-ID", value_type = Option<Uuid>)]
    id: Option<TenantId>,
    /// The tenant, by slug.
    #[param(rename = "X-Tenant-Slug")]
    slug: Option<String>,
}

impl FromRequest for Guest {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(guest(request))
    }
}

fn guest(request: &HttpRequest) -> Result<Guest, ApiError> {
    let api = Api::of(request)?;
    api_key::of_header(request.headers())?;
    let hints = hints::read(request, &api)?;
    let origin = origin::of(request, &api);
    Ok(Guest {
        api,
        hints,
        origin,
        context: RequestContext::of(request)?,
        http: request.clone(),
    })
}
