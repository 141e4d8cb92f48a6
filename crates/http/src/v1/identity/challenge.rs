use actix_web::{
    HttpResponse,
    http::header,
    web::{Data, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{ChallengeOffer, ChallengePurpose};
use tenantry_domain::kernel::{Invalid, Time};
use tenantry_tenancy::identity::challenge;
use utoipa::{IntoParams, ToSchema};

use crate::{Answer, Api, Endpoint, Query};

/// Which challenge a request needs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChallengeQuery {
    /// The request that the challenge is for: `sign_up`, `register`, `forgot_password` or `discover`.
    #[param(
        example = "sign_up",
        pattern = "^(sign_up|register|forgot_password|discover)$"
    )]
    purpose: String,
}

/// The challenge of a request, or that it needs none.
#[derive(Serialize, ToSchema)]
#[schema(as = Challenge, examples(json!({
    "required": true, "kind": "proof_of_work", "challenge": "ARIAAAAAa0n…", "algorithm": "SHA-256", "difficulty": 18,
    "expires_at": "2026-11-29T09:35:00Z",
})))]
pub(crate) struct ChallengeView {
    /// Whether the request needs a `Challenge-Response` header.
    required: bool,
    /// `none`, `proof_of_work` or `widget`.
    #[schema(examples("proof_of_work"))]
    kind: &'static str,
    /// Of a proof of work: find a `nonce` of up to 64 characters such that the SHA-256 of `challenge`, a dot and `nonce` begins
    /// with `difficulty` zero bits. The response is that text. It is accepted once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    challenge: Option<String>,
    /// `SHA-256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    algorithm: Option<&'static str>,
    /// The number of zero bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u8, required = false)]
    difficulty: Option<u8>,
    /// When the challenge expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time", required = false)]
    expires_at: Option<Time>,
    /// Of a widget: its public key. The response is the token of the widget.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    site_key: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::anonymous("/auth/challenge").get(get));
}

/// Get a challenge
///
/// Says whether a request without a credential needs the response to a challenge, and which. Send the response in
/// `Challenge-Response`. Without one that is accepted, the request is 403 `challenge_required`.
#[utoipa::path(
    get, path = "/api/v1/auth/challenge", operation_id = "get_challenge", tag = "Sign-up",
    params(ChallengeQuery),
    responses((status = 200, description = "The challenge.", body = ChallengeView)),
    extensions(("x-errors" = json!(["validation_failed"]))),
)]
pub(crate) async fn get(api: Data<Api>, query: Query<ChallengeQuery>) -> Answer {
    let purpose = ChallengePurpose::parse(&query.0.purpose).ok_or_else(|| {
        let detail = "must be sign_up, register, forgot_password or discover";
        Invalid::one("/query/purpose", "invalid_value", detail)
    })?;
    let view = ChallengeView::from(challenge::offer(&api.app, purpose));
    let mut response = HttpResponse::Ok();
    Ok(response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(view))
}

impl From<Option<ChallengeOffer>> for ChallengeView {
    fn from(offer: Option<ChallengeOffer>) -> Self {
        let none = Self {
            required: false,
            kind: "none",
            challenge: None,
            algorithm: None,
            difficulty: None,
            expires_at: None,
            site_key: None,
        };
        match offer {
            None => none,
            Some(ChallengeOffer::ProofOfWork {
                challenge,
                difficulty,
                expires_at,
            }) => Self {
                required: true,
                kind: "proof_of_work",
                challenge: Some(challenge),
                algorithm: Some("SHA-256"),
                difficulty: Some(difficulty),
                expires_at: Some(expires_at),
                ..none
            },
            Some(ChallengeOffer::Widget { site_key }) => Self {
                required: true,
                kind: "widget",
                site_key: Some(site_key),
                ..none
            },
        }
    }
}
