use async_trait::async_trait;

use crate::billing::{InvoiceRef, ProviderInvoice};
use crate::kernel::{InvoiceId, Page, PageRequest, StoreError, Time};

/// An invoice of the scope's tenant: what the provider said of it when we last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// Its id with us.
    pub id: InvoiceId,
    /// What it is with the provider.
    pub mirror: ProviderInvoice,
    /// When it was last changed here.
    pub updated_at: Time,
}

/// Invoices of the scope's tenant.
#[async_trait]
pub trait Invoices: Send {
    /// A page, newest first.
    async fn list(&mut self, page: PageRequest) -> Result<Page<Invoice>, StoreError>;
    /// Those of the given that are there.
    async fn find_all(&mut self, references: &[InvoiceRef]) -> Result<Vec<Invoice>, StoreError>;
    /// Adds one.
    async fn insert(&mut self, invoice: &Invoice) -> Result<(), StoreError>;
    /// Stores its new state.
    async fn update(&mut self, invoice: &Invoice) -> Result<(), StoreError>;
}
