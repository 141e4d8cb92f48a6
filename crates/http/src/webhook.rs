//! What others tell us of: the payment provider's messages. They come without a credential of ours and name no tenant; the
//! signature over the raw body is what they are believed by.

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    web::{BytesMut, ServiceConfig},
};
use futures_util::future::LocalBoxFuture;
use tenantry_billing::billing::provider_event;
use tenantry_domain::kernel::ErrorCode;

use crate::extract::{body, hints};
use crate::{Answer, Api, ApiError, Endpoint};

/// The header of the signature.
const SIGNATURE: &str = "Stripe-Signature";

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::open("/webhooks/stripe").post(stripe));
}

/// A body as it came, with its signature.
pub(crate) struct Signed {
    request: HttpRequest,
    body: BytesMut,
    signature: String,
}

impl FromRequest for Signed {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let signature = hints::single(request.headers(), SIGNATURE)?;
            let signature = signature.ok_or_else(|| ApiError::new(ErrorCode::WebhookSignatureInvalid))?;
            let signature = signature.to_owned();
            // A message without a signature is not even read.
            let body = body::read(&request, payload).await?;
            Ok(Self {
                request,
                body,
                signature,
            })
        })
    }
}

/// Receive a Stripe webhook event
///
/// The body is an event as Stripe sends it, signed in `Stripe-Signature`. Each event is stored once and processed
/// afterwards. Events that nothing depends on are accepted too.
#[utoipa::path(
    post, path = "/webhooks/stripe", operation_id = "receive_stripe_event", tag = "Billing",
    params(("Stripe-Signature" = String, Header, description = "`t=<unix seconds>,v1=<HMAC-SHA256>`", example = "t=1492774577,v1=88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a")),
    responses((status = 200, description = "The event is stored.")),
    extensions(("x-errors" = json!([
        "webhook_signature_invalid", "payload_too_large", "request_timeout", "billing_unavailable", "internal",
    ]))),
)]
pub(crate) async fn stripe(signed: Signed) -> Answer {
    let api = Api::of(&signed.request)?;
    provider_event::receive(&api.app, &signed.body, &signed.signature).await?;
    Ok(HttpResponse::Ok().finish())
}
