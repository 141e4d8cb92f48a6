//! The page of the link in mails of notifications, and the one click of mail programs (RFC 8058).

use actix_web::http::header;
use actix_web::{HttpResponse, web::ServiceConfig};
use serde::Deserialize;
use tenantry_domain::kernel::Language;
use tenantry_domain::notifications::UnsubscribeFrom;
use tenantry_tenancy::notifications::unsubscribe::{self, Unsubscription};
use utoipa::IntoParams;

use crate::extract::guest::Guest;
use crate::{Answer, Endpoint, Query};

/// The query of a link. Mail gateways add parameters of their own, so others are ignored.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkParams {
    #[param(min_length = 1, max_length = 200)]
    token: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(
        Endpoint::anonymous("/notifications/unsubscribe")
            .get(show)
            .post(end),
    );
}

/// Show a link to unsubscribe
///
/// An HTML page with a button, in the language of the tenant. It changes nothing, since mail programs open links before people do.
#[utoipa::path(
    get, path = "/api/v1/notifications/unsubscribe", operation_id = "show_unsubscribe_link", tag = "Notifications",
    params(LinkParams),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
    extensions(("x-errors" = json!(["validation_failed", "unavailable"]))),
)]
pub(crate) async fn show(guest: Guest, query: Query<LinkParams>) -> Answer {
    let link = unsubscribe::open(guest.app(), &query.0.token, guest.origin()).await?;
    Ok(page(&link, false))
}

/// Unsubscribe
///
/// Ends the mails that the link is about, and nothing else. It needs no login, and is what mail programs send for one click (RFC 8058):
/// the body is not read. Repeated, it changes nothing. Also possible in a suspended tenant, and from every network.
#[utoipa::path(
    post, path = "/api/v1/notifications/unsubscribe", operation_id = "unsubscribe", tag = "Notifications",
    params(LinkParams),
    responses((status = 200, description = "A page that says so.", body = String, content_type = "text/html")),
    extensions(("x-errors" = json!(["validation_failed", "unavailable"]))),
)]
pub(crate) async fn end(guest: Guest, query: Query<LinkParams>) -> Answer {
    let link = unsubscribe::open(guest.app(), &query.0.token, guest.origin()).await?;
    unsubscribe::end_mails(&link).await?;
    Ok(page(&link, true))
}

/// The page: it loads nothing, and its form is sent to the address that it came from.
fn page(link: &Unsubscription, is_ended: bool) -> HttpResponse {
    const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(html(link.language, link.from, link.tenant.as_str(), is_ended))
}

fn html(language: Language, from: UnsubscribeFrom, tenant: &str, is_ended: bool) -> String {
    let what = match (language, from) {
        (Language::English, UnsubscribeFrom::Digests) => "the digests of notifications".to_owned(),
        (Language::German, UnsubscribeFrom::Digests) => {
            "die Zusammenfassungen der Benachrichtigungen".to_owned()
        }
        (Language::English, UnsubscribeFrom::Type(name)) => format!("mails about “{name}”"),
        (Language::German, UnsubscribeFrom::Type(name)) => format!("E-Mails zu „{name}“"),
    };
    let tenant = escaped(tenant);
    let (title, text, button) = match (language, is_ended) {
        (Language::English, false) => (
            "Unsubscribe",
            format!("Do you want to end {what} of {tenant}?"),
            Some("Unsubscribe"),
        ),
        (Language::German, false) => (
            "Abbestellen",
            format!("Möchten Sie {what} von {tenant} abbestellen?"),
            Some("Abbestellen"),
        ),
        (Language::English, true) => (
            "Unsubscribed",
            format!(
                "You get no more mail: {what} of {tenant} have ended. Your preferences let you turn them on again."
            ),
            None,
        ),
        (Language::German, true) => (
            "Abbestellt",
            format!(
                "Sie haben {what} von {tenant} abbestellt. In Ihren Einstellungen können Sie sie wieder einschalten."
            ),
            None,
        ),
    };
    let form = button.map(|label| {
        format!(
            "<form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
             <button type=\"submit\">{label}</button></form>\n"
        )
    });
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"robots\" content=\"noindex\">\n</head>\n<body>\n\
         <main>\n<h1>{title}</h1>\n<p>{text}</p>\n{}</main>\n</body>\n</html>\n",
        language.as_str(),
        form.unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_shows_names_as_text_and_has_a_button_until_it_was_pressed() {
        for language in Language::ALL {
            for from in UnsubscribeFrom::all() {
                let before = html(language, from, "<b>A&B</b>", false);
                assert!(
                    before.contains("&lt;b&gt;A&amp;B&lt;/b&gt;") && before.contains("<form"),
                    "{before}"
                );
                assert!(!html(language, from, "Acme", true).contains("<form"));
            }
        }
    }
}
