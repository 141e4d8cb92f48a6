use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::billing::{Invoice, InvoiceRef, InvoiceStatus, Invoices, ProviderInvoice};
use tenantry_domain::kernel::{Page, PageRequest, Period, Position, StoreError};

use crate::billing::billing_account::{currency, customer, subscription_ref};
use crate::kernel::error::from_json;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::operations::job::signed;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "invoices")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub invoice_ref: String,
        pub customer_ref: String,
        pub subscription_ref: Option<String>,
        pub number: Option<String>,
        pub status: Option<String>,
        pub currency: String,
        pub total: i64,
        pub amount_due: i64,
        pub amount_paid: i64,
        pub period_start: DateTimeUtc,
        pub period_end: DateTimeUtc,
        pub attempts: i32,
        pub next_attempt_at: Option<DateTimeUtc>,
        pub url: Option<String>,
        pub lines: Json,
        pub updated_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Invoices for PgStore {
    async fn list(&mut self, page: PageRequest) -> Result<Page<Invoice>, StoreError> {
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let find = self.tx.find::<Entity>();
        let rows = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        rows.try_map(Invoice::try_from)
    }

    async fn find_all(&mut self, references: &[InvoiceRef]) -> Result<Vec<Invoice>, StoreError> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let references = references.iter().map(InvoiceRef::as_str);
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::InvoiceRef.is_in(references));
        find.all().await?.into_iter().map(Invoice::try_from).collect()
    }

    async fn insert(&mut self, invoice: &Invoice) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(invoice.id.uuid()),
            created_at: Set(invoice.mirror.created_at),
            invoice_ref: Set(invoice.mirror.id.to_string()),
            customer_ref: Set(invoice.mirror.customer.to_string()),
            ..changes(invoice)?
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, invoice: &Invoice) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(invoice)?);
        exactly_one(update.filter(Column::Id.eq(invoice.id.uuid())).run().await?)
    }
}

impl TryFrom<Model> for Invoice {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let id = InvoiceRef::parse(&row.invoice_ref);
        let status =
            |text: &String| InvoiceStatus::parse(text).ok_or_else(|| unknown("invoices.status", text));
        Ok(Self {
            id: row.id.into(),
            updated_at: row.updated_at,
            mirror: ProviderInvoice {
                id: id.ok_or_else(|| unknown("invoices.invoice_ref", &row.invoice_ref))?,
                customer: customer(&row.customer_ref)?,
                subscription: row
                    .subscription_ref
                    .as_deref()
                    .map(subscription_ref)
                    .transpose()?,
                number: row.number,
                status: row.status.as_ref().map(status).transpose()?,
                currency: currency(row.currency)?,
                total: row.total,
                amount_due: row.amount_due,
                amount_paid: row.amount_paid,
                period: Period {
                    start: row.period_start,
                    end: row.period_end,
                },
                attempts: row.attempts.unsigned_abs(),
                next_attempt_at: row.next_attempt_at,
                url: row.url,
                created_at: row.created_at,
                lines: serde_json::from_value(row.lines).map_err(from_json)?,
            },
        })
    }
}

/// All columns that may change.
fn changes(invoice: &Invoice) -> Result<ActiveModel, StoreError> {
    let mirror = &invoice.mirror;
    Ok(ActiveModel {
        subscription_ref: Set(mirror.subscription.as_ref().map(ToString::to_string)),
        number: Set(mirror.number.clone()),
        status: Set(mirror.status.map(|status| status.as_str().to_owned())),
        currency: Set(mirror.currency.to_string()),
        total: Set(mirror.total),
        amount_due: Set(mirror.amount_due),
        amount_paid: Set(mirror.amount_paid),
        period_start: Set(mirror.period.start),
        period_end: Set(mirror.period.end),
        attempts: Set(signed(mirror.attempts)),
        next_attempt_at: Set(mirror.next_attempt_at),
        url: Set(mirror.url.clone()),
        lines: Set(serde_json::to_value(&mirror.lines).map_err(from_json)?),
        updated_at: Set(invoice.updated_at),
        ..Default::default()
    })
}
