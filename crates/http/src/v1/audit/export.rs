use std::fmt::Write as _;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Bytes, Data, ServiceConfig},
};
use futures_util::stream::unfold;
use serde::Deserialize;
use tenantry_domain::audit::{AuditFilter, AuditRecord, Risk};
use tenantry_domain::kernel::{Invalid, Page, Permission, Position, Time};
use tenantry_tenancy::tenant::audit_export;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::extract::api_key::{self, Credential};
use crate::v1::audit::event::{AuditEventView, audit_params};
use crate::v1::kernel::schema;
use crate::{
    Answer, Api, ApiError, Ctx, Endpoint, Moment, Query, RequireFeature, feature, permission::ExportAudit,
};

/// The format of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A JSON object on each line.
    #[default]
    Ndjson,
    /// Comma-separated values (RFC 4180) with a line of names.
    Csv,
}

audit_params! {
    /// The format and the filters of an export.
    ExportParams {
        /// `ndjson` when absent.
        #[serde(default)]
        #[param(value_type = schema::ExportFormat, inline, required = false)]
        format: Format,
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(
        Endpoint::at("/audit-events/export")
            .without_deadline()
            .get(export),
    );
}

/// Export the audit log
///
/// Streams all entries up to the present, newest first. Needs the plan feature `audit_export`. An export that ends early is cut
/// off without the end of a chunked response. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/audit-events/export", operation_id = "export_audit_log", tag = "Audit log",
    params(ExportParams),
    responses((
        status = 200, description = "The entries.",
        content((String = "application/x-ndjson"), (String = "text/csv")),
    )),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed", "plan_feature_required"]))),
)]
pub(crate) async fn export(
    cx: Ctx<ExportAudit>,
    _plan: RequireFeature<feature::AuditExport>,
    request: HttpRequest,
    query: Query<ExportParams>,
) -> Answer {
    let api = Api::of(&request)?;
    let credential = api_key::presented(request.headers(), &api)?.into_owned();
    let format = query.0.format;
    let filter = audit_export::begin(&cx, &AuditFilter::try_from(&query.0)?, format.name()).await?;
    let first = audit_export::next(&cx, &filter, None).await?;
    let export = Export {
        next: first.next,
        pending: Some(format.head() + &format.rows(first)),
        cx,
        api,
        credential,
        filter,
        format,
    };
    let chunks = unfold(export, |mut export| async move {
        let chunk = export.chunk().await?;
        Some((chunk.map_err(actix_web::Error::from), export))
    });
    Ok(HttpResponse::Ok()
        .content_type(format.content_type())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"audit-events.{}\"", format.name()),
        ))
        .streaming(Box::pin(chunks)))
}

/// An export that is under way. A few hundred entries are in memory at a time.
struct Export {
    cx: Ctx<ExportAudit>,
    api: Data<Api>,
    credential: Credential<'static>,
    filter: AuditFilter,
    format: Format,
    pending: Option<String>,
    next: Option<Position>,
}

impl Export {
    /// The next part; `None` at the end.
    async fn chunk(&mut self) -> Option<Result<Bytes, ApiError>> {
        if let Some(pending) = self.pending.take() {
            return Some(Ok(pending.into()));
        }
        let after = self.next.take()?;
        let page = self.page(after).await;
        if let Err(error) = &page {
            tracing::warn!(
                code = error.code().as_str(),
                "an export of the audit log is cut off"
            );
        }
        Some(page.map(|page| {
            self.next = page.next;
            self.format.rows(page).into()
        }))
    }

    /// The next entries, for a caller who is still admitted.
    async fn page(&self, after: Position) -> Result<Page<AuditRecord>, ApiError> {
        let request = self.cx.scope().request().clone();
        let admission = api_key::still_admits(&self.api, &self.credential, self.cx.origin(), request).await?;
        admission.scope.require(Permission::ExportAudit)?;
        Ok(audit_export::next(&self.cx, &self.filter, Some(after)).await?)
    }
}

/// The names of the columns.
const COLUMNS: [&str; 17] = [
    "id",
    "sequence",
    "at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "action",
    "entity",
    "entity_id",
    "before",
    "after",
    "address",
    "user_agent",
    "request_id",
    "outcome",
    "risk",
    "hash",
];

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn head(self) -> String {
        match self {
            Self::Ndjson => String::new(),
            Self::Csv => COLUMNS.join(",") + "\r\n",
        }
    }

    fn rows(self, page: Page<AuditRecord>) -> String {
        let mut rows = String::new();
        for record in page.items {
            let view = AuditEventView::from(record);
            match self {
                Self::Ndjson => {
                    rows.push_str(&serde_json::to_string(&view).unwrap_or_default());
                    rows.push('\n');
                }
                Self::Csv => row(&mut rows, view),
            }
        }
        rows
    }
}

fn row(rows: &mut String, view: AuditEventView) {
    let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let state = |state: Option<serde_json::Value>| state.map(|state| state.to_string()).unwrap_or_default();
    let cells = [
        view.id.to_string(),
        view.sequence
            .map(|sequence| sequence.to_string())
            .unwrap_or_default(),
        view.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        view.actor.kind,
        text(view.actor.id),
        view.actor.name.unwrap_or_default(),
        view.action,
        view.entity,
        text(view.entity_id),
        state(view.before),
        state(view.after),
        view.address.unwrap_or_default(),
        view.user_agent.unwrap_or_default(),
        view.request_id,
        view.outcome.as_str().to_owned(),
        view.risk.as_str().to_owned(),
        view.hash.unwrap_or_default(),
    ];
    for (index, cell) in cells.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = write!(rows, "{comma}{}", quoted(cell));
    }
    rows.push_str("\r\n");
}

/// A cell in quotes. Spreadsheets run what begins like a formula, also behind spaces; an apostrophe makes a text of it.
fn quoted(cell: &str) -> String {
    const FORMULAS: [char; 10] = [
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff20}',
    ];
    let runs = cell.starts_with(['\t', '\r', '\n']) || cell.trim_start().starts_with(FORMULAS);
    let apostrophe = if runs { "'" } else { "" };
    format!("\"{apostrophe}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_run_no_formula() {
        for (cell, expected) in [
            ("", "\"\""),
            ("plain, \"quoted\"", "\"plain, \"\"quoted\"\"\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("  =1", "\"'  =1\""),
            ("\t=1", "\"'\t=1\""),
            ("\r\nx", "\"'\r\nx\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("a=1", "\"a=1\""),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}
