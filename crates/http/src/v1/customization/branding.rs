use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web::ServiceConfig,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tenantry_domain::customization::{
    Branding, BrandingPatch, Colour, Objection, Removed, SCOPE, TenantConfiguration,
};
use tenantry_domain::kernel::Patch;
use tenantry_tenancy::customization::branding::{self, Rebranded};
use utoipa::ToSchema;

use crate::extract::{
    etag::tag_of,
    guest::{Guest, TenantHeaders},
};
use crate::v1::customization::setting::WarningView;
use crate::{
    Answer, Body, Ctx, Endpoint, IfMatch, IfNoneMatch, RequireFeature, feature, permission::ManageBranding,
};

/// Where the style sheet is.
const THEME: &str = "/api/v1/branding/theme.css";

/// The branding of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Branding, examples(json!({
    "display_name": "Acme", "logo_url": "https://cdn.acme.example/logo.svg", "favicon_url": null,
    "primary_color": "#0b5fff", "accent_color": "#0f766e", "support_email": "help@acme.example",
    "contrast": {
        "primary_color": {"white": 5.15, "black": 4.07, "text": "#ffffff"},
        "accent_color": {"white": 5.47, "black": 3.83, "text": "#ffffff"},
    },
    "scope_class": "tenant-brand", "theme_url": "/api/v1/branding/theme.css",
    "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct BrandingView {
    /// The display name of the tenant; its name when not set.
    display_name: String,
    #[schema(required = true)]
    logo_url: Option<String>,
    #[schema(required = true)]
    favicon_url: Option<String>,
    primary_color: String,
    accent_color: String,
    #[schema(required = true)]
    support_email: Option<String>,
    contrast: ContrastView,
    /// The class of the element that the style sheet applies to.
    scope_class: &'static str,
    /// The style sheet: the colours as variables, and the tenant's own rules.
    theme_url: &'static str,
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
    /// Counts its changes; 0 before the first.
    version: i64,
}

/// The contrast of the colors.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BrandingContrast)]
pub(crate) struct ContrastView {
    primary_color: ColourView,
    accent_color: ColourView,
}

/// Contrast ratios of a colour (WCAG 2.x), cut off after two digits. Text needs 4.5.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ColorContrast)]
pub(crate) struct ColourView {
    /// The contrast ratio to white, 1 to 21.
    white: f64,
    /// The contrast ratio to black, 1 to 21.
    black: f64,
    /// The colour of text on it that is read best: black or white.
    text: String,
}

/// The branding after a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedBranding)]
pub(crate) struct ChangedBrandingView {
    #[serde(flatten)]
    branding: BrandingView,
    /// The style sheet after sanitizing.
    custom_css: String,
    /// The removed parts; at most 100.
    css_removed: Vec<RemovedView>,
    /// The number of removed parts beyond those.
    css_more_removed: usize,
    /// Accepted values that are probably mistakes.
    warnings: Vec<WarningView>,
}

/// A part that was removed from the style sheet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedCss, examples(json!({
    "line": 2, "column": 3, "text": "position: fixed", "reason": "property",
})))]
pub(crate) struct RemovedView {
    /// The line, from 1.
    line: u32,
    /// The byte in the line, from 1.
    column: u32,
    /// The beginning of the removed part.
    text: String,
    /// `syntax`, `at_rule`, `media_query`, `selector`, `nested_rule`, `property`, `scope_property`, `value`, `function`, `url` or `too_much`.
    #[schema(value_type = String)]
    reason: Objection,
}

/// A change of the branding. Null restores the default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeBranding, examples(json!({
    "primary_color": "#0b5fff", "logo_url": "https://cdn.acme.example/logo.svg",
    "custom_css": ".button { border-radius: 8px }",
})))]
pub(crate) struct ChangeBranding {
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 80)]
    display_name: Patch<String>,
    /// An https address that does not lead inside.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2_000)]
    logo_url: Patch<String>,
    /// An https address that does not lead inside.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2_000)]
    favicon_url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$")]
    primary_color: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$")]
    accent_color: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 254)]
    support_email: Patch<String>,
    /// At most 64 KiB. Unsafe parts are removed; the response lists them.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 65_536)]
    custom_css: Patch<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            Endpoint::at("/branding")
                .put(replace)
                .patch(update)
                .opened()
                .get(read),
        )
        .service(Endpoint::anonymous("/branding/theme.css").get(theme))
        .service(Endpoint::anonymous("/branding/preview").get(preview));
}

/// The page for people, at an address that they can be told.
pub(crate) fn pages(config: &mut ServiceConfig) {
    config.service(Endpoint::anonymous("/branding/preview").get(preview_page));
}

/// Get the branding
///
/// Public, so that a login page can show the tenant's branding. Name the tenant by a credential, `X-Tenant-ID`,
/// `X-Tenant-Slug` or the host.
#[utoipa::path(
    get, path = "/api/v1/branding", operation_id = "get_branding", tag = "Branding",
    params(TenantHeaders, IfNoneMatch),
    responses((status = 200, description = "The branding.", body = BrandingView, headers(("ETag")))),
    extensions(("x-errors" = json!(["tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone"]))),
)]
pub(crate) async fn read(guest: Guest, seen: IfNoneMatch) -> Answer {
    let configuration = branding::get(&guest.visit().await?).await?;
    let view = BrandingView::of(&configuration);
    Ok(shared(seen.answer_of(view.version, &view)))
}

/// Replace the branding
///
/// An absent field gets its default value. Minimum role: admin.
#[utoipa::path(
    put, path = "/api/v1/branding", operation_id = "replace_branding", tag = "Branding",
    params(IfMatch), request_body = ChangeBranding,
    responses(
        (status = 200, description = "The updated branding.", body = ChangedBrandingView, headers(("ETag"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_feature_required"]))),
)]
pub(crate) async fn replace(
    cx: Ctx<ManageBranding>,
    _plan: RequireFeature<feature::Branding>,
    when: IfMatch,
    body: Body<ChangeBranding>,
) -> Answer {
    let changed = branding::update(&cx, &when.0, body.0.whole()).await?;
    Ok(answer(changed))
}

/// Update the branding
///
/// A merge patch: an absent field is unchanged, null clears it. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/branding", operation_id = "update_branding", tag = "Branding",
    params(IfMatch), request_body = ChangeBranding,
    responses(
        (status = 200, description = "The updated branding.", body = ChangedBrandingView, headers(("ETag"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_feature_required"]))),
)]
pub(crate) async fn update(
    cx: Ctx<ManageBranding>,
    _plan: RequireFeature<feature::Branding>,
    when: IfMatch,
    body: Body<ChangeBranding>,
) -> Answer {
    let changed = branding::update(&cx, &when.0, body.0.into()).await?;
    Ok(answer(changed))
}

/// Get the style sheet
///
/// The tenant's CSS variables and rules. All of them apply within elements of the class `tenant-brand` only. Name
/// the tenant as for the branding.
#[utoipa::path(
    get, path = "/api/v1/branding/theme.css", operation_id = "get_branding_theme", tag = "Branding",
    params(TenantHeaders, IfNoneMatch),
    responses(
        (status = 200, description = "The style sheet.", body = String, content_type = "text/css", headers(("ETag"))),
    ),
    extensions(("x-errors" = json!(["tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone"]))),
)]
pub(crate) async fn theme(guest: Guest, seen: IfNoneMatch) -> Answer {
    let configuration = branding::get(&guest.visit().await?).await?;
    let branding = &configuration.branding;
    let css = branding.theme();
    let tag = tag_of(branding.version, &css);
    Ok(shared(seen.answer_with(&tag, "text/css; charset=utf-8", css)))
}

/// Preview the branding
///
/// An HTML page that shows the branding. Name the tenant as for the branding.
#[utoipa::path(
    get, path = "/api/v1/branding/preview", operation_id = "preview_branding", tag = "Branding",
    params(TenantHeaders),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
    extensions(("x-errors" = json!(["tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone"]))),
)]
pub(crate) async fn preview(guest: Guest) -> Answer {
    let configuration = branding::get(&guest.visit().await?).await?;
    Ok(page(&configuration))
}

/// Preview the branding at a short URL
///
/// The same page as `/api/v1/branding/preview`.
#[utoipa::path(
    get, path = "/branding/preview", operation_id = "preview_branding_page", tag = "Branding",
    params(TenantHeaders),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
    extensions(("x-errors" = json!(["tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone"]))),
)]
pub(crate) async fn preview_page(guest: Guest) -> Answer {
    preview(guest).await
}

fn answer(changed: Rebranded) -> HttpResponse {
    let view = BrandingView::of(&changed.configuration);
    let tag = tag_of(view.version, &view);
    HttpResponse::Ok()
        .insert_header((header::ETAG, tag))
        .json(ChangedBrandingView {
            branding: view,
            custom_css: changed.configuration.branding.custom_css,
            css_removed: changed.css.removed.into_iter().map(RemovedView::from).collect(),
            css_more_removed: changed.css.more_removed,
            warnings: changed.warnings.into_iter().map(WarningView::from).collect(),
        })
}

/// Anybody may keep it for a minute, for whoever names the tenant in the same way.
fn shared(mut response: HttpResponse) -> HttpResponse {
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=60"),
    );
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Authorization, Host, X-Tenant-ID, X-Tenant-Slug"),
    );
    response
}

/// The page: it runs nothing, and loads nothing but the tenant's pictures.
fn page(configuration: &TenantConfiguration) -> HttpResponse {
    let branding = &configuration.branding;
    let style = format!(
        "body {{ margin: 0; font-family: sans-serif }}\n{PLAIN}{}",
        branding.theme()
    );
    let digest = STANDARD.encode(Sha256::digest(style.as_bytes()));
    let pictures: Vec<_> = branding
        .hosts()
        .iter()
        .map(|host| format!("https://{host}"))
        .collect();
    let pictures = if pictures.is_empty() {
        "'none'".to_owned()
    } else {
        pictures.join(" ")
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; img-src {pictures}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .body(html(configuration, &style))
}

/// What the page looks like where the tenant says nothing; before its rules, so that they win.
const PLAIN: &str = ".tenant-brand { padding: 2rem; min-height: 100vh; box-sizing: border-box }\n\
    .tenant-brand .button { padding: .5rem 1rem; border: 0; color: var(--brand-on-primary); \
    background: var(--brand-primary) }\n\
    .tenant-brand .accent { padding: .25rem .5rem; color: var(--brand-on-accent); background: var(--brand-accent) }\n";

/// The style has neither `<` nor anything else in it that would end its element.
fn html(configuration: &TenantConfiguration, style: &str) -> String {
    let branding = &configuration.branding;
    let name = escaped(branding.display_name.as_ref().unwrap_or(&configuration.name));
    let icon = branding
        .favicon_url
        .as_deref()
        .map(|url| format!("<link rel=\"icon\" href=\"{}\">\n", escaped(url)));
    let logo = branding.logo_url.as_deref().map(|url| {
        format!(
            "<img class=\"logo\" src=\"{}\" alt=\"{name}\" height=\"48\">\n",
            escaped(url)
        )
    });
    let help = branding.support_email.as_deref().map(escaped);
    let help = help.map(|mail| format!("<p>Help: <a href=\"mailto:{mail}\">{mail}</a></p>\n"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{name}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n{}<style>{style}</style>\n</head>\n<body>\n\
         <main class=\"{SCOPE}\">\n{}<h1>{name}</h1>\n<p>This is how text looks, with <a href=\"#\">a link</a> and \
         <span class=\"accent\">an accent</span>.</p>\n<p><button class=\"button\" type=\"button\">A button</button></p>\n{}\
         </main>\n</body>\n</html>\n",
        icon.unwrap_or_default(),
        logo.unwrap_or_default(),
        help.unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

impl BrandingView {
    fn of(configuration: &TenantConfiguration) -> Self {
        let branding = &configuration.branding;
        Self {
            display_name: branding
                .display_name
                .clone()
                .unwrap_or_else(|| configuration.name.clone()),
            logo_url: branding.logo_url.clone(),
            favicon_url: branding.favicon_url.clone(),
            primary_color: branding.primary_color.clone(),
            accent_color: branding.accent_color.clone(),
            support_email: branding.support_email.clone(),
            contrast: ContrastView::of(branding),
            scope_class: SCOPE,
            theme_url: THEME,
            updated_at: branding.updated_at,
            version: branding.version,
        }
    }
}

impl ContrastView {
    fn of(branding: &Branding) -> Self {
        let view = |text: &str| {
            let colour = Colour::parse(text).unwrap_or(Colour::BLACK);
            let contrasts = colour.contrasts();
            ColourView {
                white: contrasts.white,
                black: contrasts.black,
                text: colour.text().to_string(),
            }
        };
        Self {
            primary_color: view(&branding.primary_color),
            accent_color: view(&branding.accent_color),
        }
    }
}

impl From<Removed> for RemovedView {
    fn from(removed: Removed) -> Self {
        Self {
            line: removed.line,
            column: removed.column,
            text: removed.text,
            reason: removed.reason,
        }
    }
}

impl ChangeBranding {
    /// The change that leaves nothing of what was.
    fn whole(self) -> BrandingPatch {
        let clear = |patch: Patch<String>| if patch.is_keep() { Patch::Clear } else { patch };
        let patch = BrandingPatch::from(self);
        BrandingPatch {
            display_name: clear(patch.display_name),
            logo_url: clear(patch.logo_url),
            favicon_url: clear(patch.favicon_url),
            primary_color: clear(patch.primary_color),
            accent_color: clear(patch.accent_color),
            support_email: clear(patch.support_email),
            custom_css: clear(patch.custom_css),
        }
    }
}

impl From<ChangeBranding> for BrandingPatch {
    fn from(body: ChangeBranding) -> Self {
        Self {
            display_name: body.display_name,
            logo_url: body.logo_url,
            favicon_url: body.favicon_url,
            primary_color: body.primary_color,
            accent_color: body.accent_color,
            support_email: body.support_email,
            custom_css: body.custom_css,
        }
    }
}
