//! Archives that were taken before a person was erased: no import brings the person back.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_domain::archive::{
    ArchiveError, ArchiveSource, ErasedPerson, Manifest, TableShape, erased_user,
};
use tenantry_domain::identity::Erasure;
use tenantry_domain::kernel::SystemScope;

use crate::Tenancy;

/// An archive without the people who were erased since it was taken.
pub(super) struct Forgetting<'a> {
    app: &'a Tenancy,
    source: &'a mut dyn ArchiveSource,
    erased: Vec<ErasedPerson>,
    ids: BTreeSet<String>,
    /// Of each table the columns whose rows go with a user.
    going: BTreeMap<String, Vec<String>>,
    table: String,
    /// Whether the rows of erased users are anonymous rather than left out: those of a new tenant, which other rows refer to.
    keep: bool,
}

impl<'a> Forgetting<'a> {
    /// Asks who was erased from the tenant of the archive, which need not be there any more.
    pub(super) async fn of(
        app: &'a Tenancy,
        because: SystemScope,
        source: &'a mut dyn ArchiveSource,
        keep: bool,
    ) -> Result<Self, ArchiveError> {
        let archive = &app.ports.tenant_archive;
        let erased = archive.erased(because, source.manifest().tenant.id).await?;
        let going = |table: TableShape| {
            let columns = table.users().filter(|(reference, _)| reference.cascades);
            let columns = columns.map(|(_, column)| column.clone()).collect();
            (table.name, columns)
        };
        let tables = archive.tables(because).await?;
        Ok(Self {
            app,
            source,
            ids: erased.iter().map(|person| person.id.to_string()).collect(),
            erased,
            going: tables.into_iter().map(going).collect(),
            table: String::new(),
            keep,
        })
    }

    /// The row as it is imported, if it is.
    fn keep(&self, row: String) -> Option<String> {
        let is_named = self.ids.iter().any(|id| row.contains(id.as_str()));
        if !is_named && self.table != "invitations" {
            return Some(row);
        }
        let Ok(parsed) = serde_json::from_str::<Value>(&row) else {
            return Some(row);
        };
        let names = |column: &str| parsed[column].as_str().is_some_and(|id| self.ids.contains(id));
        if self.table == "users" && names("id") {
            let taken_at = json!(self.source.manifest().taken_at);
            return erased_user(&row, &taken_at).filter(|_| self.keep);
        }
        let goes = self
            .going
            .get(&self.table)
            .into_iter()
            .flatten()
            .any(|column| names(column));
        let is_invited = self.table == "invitations"
            && parsed["email"]
                .as_str()
                .is_some_and(|email| self.was_erased(email));
        (!goes && !is_invited).then_some(row)
    }

    fn was_erased(&self, email: &str) -> bool {
        let seal = &self.app.ports.seal;
        let mut digests = self.erased.iter().flat_map(|person| &person.digests);
        digests.any(|digest| seal.is_digest(Erasure::PLACE, email.as_bytes(), digest))
    }
}

#[async_trait]
impl ArchiveSource for Forgetting<'_> {
    fn manifest(&self) -> &Manifest {
        self.source.manifest()
    }

    async fn verify(&mut self) -> Result<(), ArchiveError> {
        self.source.verify().await
    }

    async fn open(&mut self, table: &str) -> Result<(), ArchiveError> {
        table.clone_into(&mut self.table);
        self.source.open(table).await
    }

    async fn next(&mut self, bytes: usize) -> Result<Vec<String>, ArchiveError> {
        if self.erased.is_empty() {
            return self.source.next(bytes).await;
        }
        // No rows mean the end of the table, so a batch of which nothing is left is not returned.
        loop {
            let rows = self.source.next(bytes).await?;
            let is_end = rows.is_empty();
            let kept: Vec<String> = rows.into_iter().filter_map(|row| self.keep(row)).collect();
            if is_end || !kept.is_empty() {
                return Ok(kept);
            }
        }
    }
}
