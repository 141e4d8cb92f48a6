use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, HttpResponse,
    dev::Payload,
    http::header::{HeaderMap, HeaderValue},
    web::ServiceConfig,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tenantry_billing::usage::{
    self, Ingested, OverLimit, Recorded, Series, SeriesOf, UsageError, UsageFailure, UsageReason, Used,
};
use tenantry_domain::kernel::{ErrorCode, FieldError, Invalid, Limit, UsageEventId};
use tenantry_domain::usage::{
    Aggregation, Granularity, MeterKey, NewUsage, OutOfWindow, USAGE_BATCH, UsageEvent, UsageKey, UsageOrigin,
};
use utoipa::{IntoParams, ToSchema};

use crate::extract::{
    body,
    json::Checked,
    shape::{Leaves, Tree},
};
use crate::{
    Answer, ApiError, Body, Ctx, Endpoint, Id, Moment, Query,
    permission::{InvalidateUsage, ReadUsage, RecordUsage},
    v1::kernel::schema,
};

/// Usage of a meter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUsageEvent, examples(json!({
    "idempotency_key": "render-4711", "meter": "pages", "quantity": 12, "occurred_at": "2026-01-31T12:00:00Z",
    "properties": {"format": "pdf"},
})))]
pub(crate) struct NewUsageBody {
    /// Identifies the event permanently. An event that is sent again counts once.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: String,
    /// The meter. `GET /api/v1/usage/summary` lists the meters.
    #[schema(value_type = String, pattern = "^[a-z][a-z0-9_]{0,62}$")]
    meter: MeterKey,
    /// For a `sum` meter up to 281474976710655, also in total for one day.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    quantity: u64,
    /// From 24 hours ago to 5 minutes ahead; the time of arrival when absent.
    #[schema(value_type = Option<DateTime<Utc>>)]
    occurred_at: Option<Moment>,
    /// The subject that a meter of unique subjects counts. Such a meter requires it.
    #[schema(min_length = 1, max_length = 200)]
    subject: Option<String>,
    /// Additional properties, at most 4096 bytes as JSON.
    #[schema(value_type = Option<Object>)]
    properties: Option<Value>,
}

/// One event, or up to 1000 of them.
#[derive(ToSchema)]
#[schema(as = RecordUsage)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes what `Events` reads")]
pub(crate) enum RecordUsageBody {
    One(NewUsageBody),
    Many(Vec<NewUsageBody>),
}

/// Usage as a CloudEvent 1.0, identified by its `source` and `id`. Other attributes are ignored. In binary mode the
/// attributes are headers (`ce-id` and so on) and `data` is the body.
#[derive(Deserialize, ToSchema)]
#[schema(as = CloudEvent, examples(json!({
    "specversion": "1.0", "id": "4711", "source": "/renderer", "type": "pages", "time": "2026-01-31T12:00:00Z",
    "data": {"quantity": 12},
})))]
pub(crate) struct CloudEventBody {
    #[schema(pattern = "^1[.]0$")]
    specversion: String,
    #[schema(min_length = 1, max_length = 255)]
    id: String,
    /// Not beginning with `tenantry:`.
    #[schema(min_length = 1, max_length = 255)]
    source: String,
    /// The meter, when `data` names none.
    #[serde(rename = "type")]
    kind: String,
    #[schema(min_length = 1, max_length = 200)]
    subject: Option<String>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    time: Option<Moment>,
    datacontenttype: Option<String>,
    /// `quantity` (1 when absent) and `meter`; other members become properties.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
    /// The same JSON object as Base64, in place of `data`.
    #[schema(value_type = Option<String>)]
    data_base64: Option<String>,
}

/// The outcome of the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageRecorded, examples(json!({
    "accepted": 1, "duplicates": 1,
    "failures": [{"index": 2, "code": "unknown_meter", "detail": "nothing called pags is metered"}],
    "ids": ["0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a16", null],
    "over_limit": [{"meter": "pages", "limit": 1_000, "used": 1_012, "overage": 12}],
})))]
pub(crate) struct RecordedView {
    /// The number of new events in the ledger.
    accepted: usize,
    /// The number of events that were recorded before.
    duplicates: usize,
    /// The refused events.
    failures: Vec<FailureView>,
    /// The id of each event, in the order of the request; null for refused events.
    #[schema(value_type = Vec<Option<Uuid>>)]
    ids: Vec<Option<UsageEventId>>,
    /// Meters of accepted events whose usage in the current period exceeds the hard limit. Recorded usage is accepted;
    /// consuming and reserving more units is refused.
    over_limit: Vec<OverLimitView>,
}

/// A meter that is beyond its hard limit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageOverLimit)]
pub(crate) struct OverLimitView {
    #[schema(value_type = String)]
    meter: MeterKey,
    limit: u64,
    /// What is used in the present period.
    used: u64,
    /// What of it is beyond the limit.
    overage: u64,
}

impl From<OverLimit> for OverLimitView {
    fn from(over: OverLimit) -> Self {
        Self {
            meter: over.meter,
            limit: over.limit,
            used: over.used,
            overage: over.used.saturating_sub(over.limit),
        }
    }
}

/// A refused event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageFailure)]
pub(crate) struct FailureView {
    /// The index of the event in the request, from 0.
    index: usize,
    code: &'static str,
    /// A description for people.
    detail: String,
}

/// The reason of an invalidation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InvalidateUsageEvent, examples(json!({"reason": "Counted twice by the renderer."})))]
pub(crate) struct InvalidateBody {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// The record of an invalidation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageInvalidation, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a17", "invalidates": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15",
    "meter": "pages", "occurred_at": "2026-01-31T12:00:00Z", "accepted_at": "2026-01-31T14:00:00Z",
})))]
pub(crate) struct InvalidationView {
    #[schema(value_type = Uuid)]
    id: UsageEventId,
    /// The event that no longer counts.
    #[schema(value_type = Option<Uuid>, required = true)]
    invalidates: Option<UsageEventId>,
    #[schema(value_type = String)]
    meter: MeterKey,
    occurred_at: DateTime<Utc>,
    accepted_at: DateTime<Utc>,
}

/// Usage over time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageSeries, examples(json!({
    "meter": "api_calls", "unit": "call", "aggregation": "sum", "granularity": "hour", "timezone": "UTC",
    "from": "2026-01-31T12:00:00Z", "to": "2026-01-31T14:00:00Z",
    "series": [{"start": "2026-01-31T12:00:00Z", "quantity": 1204}, {"start": "2026-01-31T13:00:00Z", "quantity": 0}],
})))]
pub(crate) struct SeriesView {
    #[schema(value_type = String)]
    meter: MeterKey,
    unit: String,
    #[schema(value_type = schema::Aggregation)]
    aggregation: Aggregation,
    #[schema(value_type = schema::Granularity)]
    granularity: &'static str,
    /// Hours and days are those of UTC, whatever the tenant's time zone.
    #[schema(examples("UTC"))]
    timezone: &'static str,
    /// The start of the first interval.
    from: DateTime<Utc>,
    /// The end of the last interval, exclusive.
    to: DateTime<Utc>,
    /// Every interval, including those without usage.
    series: Vec<PointView>,
}

/// Usage of an hour or a day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsagePoint)]
pub(crate) struct PointView {
    start: DateTime<Utc>,
    quantity: u64,
}

/// Usage of every meter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageSummary, examples(json!({
    "meters": [{
        "meter": "api_calls", "title": "API calls", "unit": "call", "aggregation": "sum", "used": 1204, "included": 10000,
        "limit": null, "period_start": "2026-01-01T00:00:00Z", "resets_at": "2026-02-01T00:00:00Z",
    }],
})))]
pub(crate) struct SummaryView {
    meters: Vec<UsedView>,
}

/// Usage of a meter in the current period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MeterUsage)]
pub(crate) struct UsedView {
    #[schema(value_type = String)]
    meter: MeterKey,
    /// The display name.
    title: String,
    unit: String,
    #[schema(value_type = schema::Aggregation)]
    aggregation: Aggregation,
    used: u64,
    /// The units that the price includes; null for unlimited.
    #[schema(required = true)]
    included: Option<u64>,
    /// The hard limit; null for unlimited.
    #[schema(required = true)]
    limit: Option<u64>,
    period_start: DateTime<Utc>,
    /// When the next period begins.
    resets_at: DateTime<Utc>,
}

/// Options of recording usage.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordParams {
    /// Accepts events of up to 90 days ago. Events older than 24 hours are marked.
    backfill: bool,
}

/// The usage to return.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesParams {
    /// The meter; `api_calls` when absent.
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = "^[a-z][a-z0-9_]{0,62}$", example = "api_calls")]
    meter: Option<MeterKey>,
    /// `hour` (up to 90 days) or `day` (up to two years); `hour` when absent.
    #[serde(default)]
    #[param(value_type = schema::Granularity, inline, required = false)]
    granularity: Option<Granularity>,
    /// The start: the hour or day around this time. When absent: 24 hours (by hour) or 30 days (by day) before `to`.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<Moment>,
    /// The end, including the hour or day around this time; now when absent.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<Moment>,
}

/// The events of a request, in whichever form.
pub(crate) struct Events {
    events: Vec<Result<NewUsage, Invalid>>,
    /// Whether it is the only one and not in a list.
    single: bool,
}

/// With what the headers of a CloudEvent in binary mode begin.
const ATTRIBUTE: &str = "ce-";

/// A CloudEvent, and a list of them.
const CLOUD_EVENT: &str = "application/cloudevents+json";
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// The types of bodies that are taken.
const TYPES: &str = "application/json, application/cloudevents+json, application/cloudevents-batch+json";

impl FromRequest for Events {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let content_type = request.content_type().trim().to_ascii_lowercase();
            let is_structured = [CLOUD_EVENT, CLOUD_EVENTS].contains(&content_type.as_str());
            let is_binary = !is_structured && attributes(request.headers()).next().is_some();
            // A CloudEvent in binary mode may have no body, and then no type of it.
            if !(is_binary && content_type.is_empty()) {
                body::require_type(&request, TYPES)?;
            }
            let bytes = body::read(&request, payload).await?;
            if is_binary {
                return binary(request.headers(), &content_type, &bytes);
            }
            events(&content_type, &bytes)
        })
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/usage").get(series))
        .service(Endpoint::at("/usage/summary").get(summary))
        .service(Endpoint::at("/usage/events").post(record))
        .service(Endpoint::at("/usage/events/{id}/invalidate").post(invalidate));
}

/// Record usage
///
/// Accepts one event, or a list of up to 1000. Each event of a list is accepted or refused on its own, except by the
/// bounds of a day: a list that exceeds one is refused as a whole, and nothing of it is recorded. `quota_exceeded` then has
/// the `index` of the first event that does not fit and the number of new events that fit (`fitting`): send the events before
/// it now and the others after `Retry-After`. Of quantities that exceed a day's maximum the pointer names the first event that
/// does not fit. An event that was recorded before counts once; another event with its key is refused. Minimum role: admin,
/// because usage can cost money.
#[utoipa::path(
    post, path = "/api/v1/usage/events", operation_id = "record_usage", tag = "Usage",
    params(RecordParams),
    request_body(content(
        (RecordUsageBody = "application/json"),
        (CloudEventBody = "application/cloudevents+json"),
        (Vec<CloudEventBody> = "application/cloudevents-batch+json"),
    )),
    responses((status = 200, description = "The outcome of each event.", body = RecordedView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!([
        "unknown_meter", "meter_reserved", "usage_conflict", "usage_too_old", "usage_in_future", "quota_exceeded"
    ]))),
)]
pub(crate) async fn record(cx: Ctx<RecordUsage>, query: Query<RecordParams>, body: Events) -> Answer {
    let recorded = usage::ingest(&cx, body.events, query.0.backfill).await;
    let recorded = recorded.map_err(|error| match error {
        UsageError::Own(UsageReason::TooMuch { index, invalid }) if !body.single => {
            invalid.under(&format!("/{index}")).into()
        }
        error => ApiError::from(error),
    })?;
    if body.single
        && let [Recorded::Failed(failure)] = recorded.outcomes.as_slice()
    {
        return Err(ApiError::from(failure.clone()));
    }
    Ok(HttpResponse::Ok().json(RecordedView::from(recorded)))
}

/// Invalidate a usage event
///
/// The event no longer counts and stays in the ledger beside the record of its invalidation. Its quantity is given back to
/// the maximum of its day. It still counts as one of the events that were accepted in a day (`usage_events_per_day`), because
/// it stays stored. An event can be invalidated once. Usage that the server counts itself cannot be invalidated. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/usage/events/{id}/invalidate", operation_id = "invalidate_usage", tag = "Usage",
    params(("id" = Uuid, Path)), request_body = InvalidateBody,
    responses((status = 200, description = "The record of the invalidation.", body = InvalidationView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["usage_conflict", "usage_too_old"]))),
)]
pub(crate) async fn invalidate(
    cx: Ctx<InvalidateUsage>,
    id: Id<UsageEventId>,
    body: Body<InvalidateBody>,
) -> Answer {
    let correction = usage::invalidate(&cx, id.0, &body.reason).await?;
    Ok(HttpResponse::Ok().json(InvalidationView::from(correction)))
}

/// Get usage over time
///
/// Returns every interval of the period, without gaps. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/usage", operation_id = "get_usage", tag = "Usage",
    params(SeriesParams),
    responses((status = 200, description = "The usage by hour or day.", body = SeriesView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field"]))),
)]
pub(crate) async fn series(cx: Ctx<ReadUsage>, query: Query<SeriesParams>) -> Answer {
    let of = query.0.within(cx.now());
    let series = usage::series(&cx, &of).await?;
    Ok(HttpResponse::Ok().json(SeriesView::new(series, of.granularity)))
}

/// Get the usage of the current period
///
/// Used, included and allowed units of every meter, and when its next period begins. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/usage/summary", operation_id = "get_usage_summary", tag = "Usage",
    responses((status = 200, description = "The usage, by meter.", body = SummaryView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn summary(cx: Ctx<ReadUsage>) -> Answer {
    let meters = usage::summary(&cx).await?.into_iter().map(UsedView::from);
    Ok(HttpResponse::Ok().json(SummaryView {
        meters: meters.collect(),
    }))
}

impl SeriesParams {
    fn within(self, now: DateTime<Utc>) -> SeriesOf {
        let granularity = self.granularity.unwrap_or(Granularity::Hour);
        let usual = match granularity {
            Granularity::Hour => Duration::days(1),
            Granularity::Day => Duration::days(30),
        };
        let to = self.to.map_or(now, |to| to.0);
        SeriesOf {
            meter: self.meter,
            granularity,
            from: self.from.map_or_else(|| to - usual, |from| from.0),
            to,
        }
    }
}

fn events(content_type: &str, bytes: &[u8]) -> Result<Events, ApiError> {
    let Checked { value, errors } = body::checked(bytes)?;
    let (is_list, list) = match value {
        Value::Array(list) => (true, list),
        one => (false, vec![one]),
    };
    let read: fn(Event) -> Result<NewUsage, Invalid> = match content_type {
        CLOUD_EVENT if is_list => return Err(wrong_shape("must be one event; a list is of another type")),
        CLOUD_EVENTS if !is_list => return Err(wrong_shape("must be a list of events")),
        CLOUD_EVENT | CLOUD_EVENTS => cloud_event,
        _ => native,
    };
    if list.is_empty() || list.len() > USAGE_BATCH {
        return Err(Invalid::one("", "invalid_length", "must be 1 to 1000 events").into());
    }
    let size = bytes.len();
    let event = |(index, value)| {
        let errors = if is_list {
            errors_of_item(&errors, index)
        } else {
            errors.clone()
        };
        read(Event { value, errors, size })
    };
    Ok(Events {
        events: list.into_iter().enumerate().map(event).collect(),
        single: !is_list,
    })
}

/// One event of a body, and what is known to be wrong with it.
struct Event {
    value: Value,
    errors: Vec<FieldError>,
    /// Of the whole body, so that a large one is not read too often.
    size: usize,
}

/// The errors within one item of a list, with pointers from there.
fn errors_of_item(errors: &[FieldError], index: usize) -> Vec<FieldError> {
    let item = format!("/{index}");
    let within = |error: &FieldError| {
        let rest = error.pointer.strip_prefix(&item)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| FieldError {
            pointer: rest.to_owned(),
            ..error.clone()
        })
    };
    errors.iter().filter_map(within).collect()
}

/// A CloudEvent in binary mode (HTTP protocol binding 1.0.2, section 3.1): its attributes are headers, its data is the body.
fn binary(headers: &HeaderMap, content_type: &str, bytes: &[u8]) -> Result<Events, ApiError> {
    let mut event = Map::new();
    for (name, value) in attributes(headers) {
        let pointer = || format!("/{name}");
        let text = value.to_str().ok().and_then(percent_decoded);
        let text =
            text.ok_or_else(|| Invalid::one(pointer(), "invalid_text", "must be percent-encoded UTF-8"))?;
        if event.insert(name.to_owned(), Value::String(text)).is_some() {
            let detail = "is there more than once";
            return Err(Invalid::one(pointer(), "duplicate_field", detail).into());
        }
    }
    for in_body in ["data", "data_base64"] {
        if event.contains_key(in_body) {
            let detail = "is the body of a CloudEvent in binary mode, not a header";
            return Err(Invalid::one(format!("/{in_body}"), "misplaced", detail).into());
        }
    }
    if !content_type.is_empty() {
        event.insert("datacontenttype".into(), content_type.into());
    }
    let mut errors = Vec::new();
    if !bytes.is_empty() {
        let data = body::checked(bytes)?;
        let within = |error: FieldError| FieldError {
            pointer: format!("/data{}", error.pointer),
            ..error
        };
        errors = data.errors.into_iter().map(within).collect();
        event.insert("data".into(), data.value);
    }
    let event = Event {
        value: Value::Object(event),
        errors,
        size: bytes.len(),
    };
    Ok(Events {
        events: vec![cloud_event(event)],
        single: true,
    })
}

/// The attributes of a CloudEvent in binary mode, by name.
fn attributes(headers: &HeaderMap) -> impl Iterator<Item = (&str, &HeaderValue)> {
    let all = headers.iter();
    all.filter_map(|(name, value)| Some((name.as_str().strip_prefix(ATTRIBUTE)?, value)))
}

/// A header's value as it was before it was percent-encoded; `None` of what is no UTF-8.
fn percent_decoded(value: &str) -> Option<String> {
    let bytes = value.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).ok()?);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

fn wrong_shape(detail: &str) -> ApiError {
    Invalid::one("", "invalid_type", detail).into()
}

fn native(event: Event) -> Result<NewUsage, Invalid> {
    let body: NewUsageBody = object(event)?;
    Ok(NewUsage {
        key: UsageKey::new(UsageKey::API, body.idempotency_key),
        meter: body.meter,
        quantity: body.quantity,
        event_at: body.occurred_at.map(|at| at.0),
        subject: body.subject,
        properties: body.properties,
        origin: UsageOrigin::Api,
    })
}

/// CloudEvents 1.0.2, section 3.1, and the JSON format, section 3. Attributes that are not known are extensions, which a
/// receiver passes over; but those that would be taken for what belongs into the data are refused.
fn cloud_event(event: Event) -> Result<NewUsage, Invalid> {
    for in_data in ["quantity", "meter"] {
        if event.value.get(in_data).is_some() {
            let detail = format!("belongs into `data`: /data/{in_data}");
            return Err(Invalid::one(format!("/{in_data}"), "misplaced", detail));
        }
    }
    let body: CloudEventBody = object(event)?;
    if body.specversion != "1.0" {
        return Err(Invalid::one("/specversion", "invalid_value", "must be 1.0"));
    }
    if body.source.starts_with(UsageKey::RESERVED) {
        let detail = "must not begin with `tenantry:`";
        return Err(Invalid::one("/source", "reserved", detail));
    }
    let is_json = |kind: &String| kind.starts_with("application/json") || kind.contains("+json");
    if !body.datacontenttype.as_ref().is_none_or(is_json) {
        return Err(Invalid::one(
            "/datacontenttype",
            "invalid_value",
            "must be application/json",
        ));
    }
    let mut data = match (body.data, body.data_base64) {
        (Some(_), Some(_)) => {
            let detail = "must not be there beside `data`";
            return Err(Invalid::one("/data_base64", "exclusive", detail));
        }
        (data, None) => data.unwrap_or_default(),
        (None, Some(text)) => data_of(&text)?,
    };
    let quantity = match data.remove("quantity") {
        None => Some(1),
        Some(quantity) => quantity.as_u64(),
    };
    let meter = match data.remove("meter") {
        None => MeterKey::parse(&body.kind),
        Some(meter) => meter.as_str().and_then(MeterKey::parse),
    };
    let not_a_meter = || Invalid::one("/type", "invalid_value", "must be the key of a meter");
    Ok(NewUsage {
        key: UsageKey::new(body.source, body.id),
        meter: meter.ok_or_else(not_a_meter)?,
        quantity: quantity
            .ok_or_else(|| Invalid::one("/data/quantity", "invalid_value", "must be an integer in range"))?,
        event_at: body.time.map(|time| time.0),
        subject: body.subject,
        properties: (!data.is_empty()).then_some(Value::Object(data)),
        origin: UsageOrigin::CloudEvents,
    })
}

/// The object that is the data of an event, of Base64.
fn data_of(text: &str) -> Result<Map<String, Value>, Invalid> {
    let decoded = STANDARD.decode(text).ok();
    let read = decoded.and_then(|bytes| body::checked(&bytes).ok());
    match read {
        Some(Checked {
            value: Value::Object(data),
            errors,
        }) if errors.is_empty() => Ok(data),
        _ => {
            let detail = "must be the Base64 of a JSON object, without a member that is there twice";
            Err(Invalid::one("/data_base64", "invalid_data", detail))
        }
    }
}

fn object<T: DeserializeOwned>(event: Event) -> Result<T, Invalid> {
    let Event { value, errors, size } = event;
    if !value.is_object() {
        return Err(Invalid::one("", "invalid_type", "must be an object"));
    }
    let tree = Tree {
        value: &value,
        leaves: Leaves::Typed,
        root: "",
        size,
    };
    tree.read(errors)
}

impl From<UsageFailure> for ApiError {
    fn from(failure: UsageFailure) -> Self {
        let code = code(&failure);
        match failure {
            UsageFailure::Invalid(invalid) => invalid.into(),
            UsageFailure::UnknownMeter(_)
            | UsageFailure::Reserved(_)
            | UsageFailure::OutOfWindow(_)
            | UsageFailure::Conflict => {
                Self::new(code).with_detail(format!("The event was not taken: {failure}."))
            }
        }
    }
}

fn code(failure: &UsageFailure) -> ErrorCode {
    match failure {
        UsageFailure::Invalid(_) => ErrorCode::ValidationFailed,
        UsageFailure::UnknownMeter(_) => ErrorCode::UnknownMeter,
        UsageFailure::Reserved(_) => ErrorCode::MeterReserved,
        UsageFailure::OutOfWindow(OutOfWindow::TooOld) => ErrorCode::UsageTooOld,
        UsageFailure::OutOfWindow(OutOfWindow::InFuture) => ErrorCode::UsageInFuture,
        UsageFailure::Conflict => ErrorCode::UsageConflict,
    }
}

impl FailureView {
    fn new(index: usize, failure: &UsageFailure) -> Self {
        let detail = match failure {
            UsageFailure::Invalid(Invalid(errors)) => {
                let errors = errors
                    .iter()
                    .map(|error| format!("{} {}", error.pointer, error.detail));
                errors.collect::<Vec<_>>().join("; ")
            }
            other => other.to_string(),
        };
        Self {
            index,
            code: code(failure).as_str(),
            detail,
        }
    }
}

impl From<Ingested> for RecordedView {
    fn from(recorded: Ingested) -> Self {
        let mut view = Self {
            accepted: 0,
            duplicates: 0,
            failures: Vec::new(),
            ids: Vec::with_capacity(recorded.outcomes.len()),
            over_limit: recorded.over_limit.into_iter().map(OverLimitView::from).collect(),
        };
        for (index, outcome) in recorded.outcomes.iter().enumerate() {
            view.ids.push(match outcome {
                Recorded::Accepted(id) => {
                    view.accepted += 1;
                    Some(*id)
                }
                Recorded::Duplicate(id) => {
                    view.duplicates += 1;
                    Some(*id)
                }
                Recorded::Failed(failure) => {
                    view.failures.push(FailureView::new(index, failure));
                    None
                }
            });
        }
        view
    }
}

impl From<UsageEvent> for InvalidationView {
    fn from(event: UsageEvent) -> Self {
        Self {
            id: event.id,
            invalidates: event.invalidates,
            meter: event.meter,
            occurred_at: event.event_at,
            accepted_at: event.accepted_at,
        }
    }
}

impl SeriesView {
    fn new(series: Series, granularity: Granularity) -> Self {
        let point = |(start, quantity)| PointView { start, quantity };
        Self {
            meter: series.meter.key.clone(),
            unit: series.meter.unit.clone(),
            aggregation: series.meter.aggregation,
            granularity: granularity.as_str(),
            timezone: "UTC",
            from: series.period.start,
            to: series.period.end,
            series: series.points.into_iter().map(point).collect(),
        }
    }
}

impl From<Used> for UsedView {
    fn from(used: Used) -> Self {
        let most = |limit| match limit {
            Limit::Of(most) => Some(most),
            Limit::Unlimited => None,
        };
        Self {
            meter: used.meter.key.clone(),
            title: used.meter.title.clone(),
            unit: used.meter.unit.clone(),
            aggregation: used.meter.aggregation,
            used: used.used,
            included: most(used.included),
            limit: most(used.limit),
            period_start: used.period.start,
            resets_at: used.period.end,
        }
    }
}
