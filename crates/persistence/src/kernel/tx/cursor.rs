use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Row as _};
use tenantry_domain::archive::{ArchiveError, RowSink, Rows};
use tenantry_domain::kernel::{StoreError, TenantId};
use tenantry_domain::store::Mode;

use super::{OpenTx, Party, Pool, TenantTx, beginning, trace};
use crate::kernel::error::from_sqlx;

/// So many rows are asked for in a statement: few enough that none runs into the timeout of statements.
const FETCH: &str = "FETCH FORWARD 1000 FROM tenant_archive";
const FETCHED: u64 = 1_000;

const CLOSE: &str = "CLOSE tenant_archive";

/// Lines are given on when they have so many bytes.
const CHUNK: usize = 256 * 1024;

impl TenantTx {
    /// Begins a READ ONLY transaction that sees every row as it is now until it ends.
    pub(crate) async fn begin_snapshot(pool: &Pool, tenant: TenantId) -> Result<Self, StoreError> {
        let begin =
            beginning(tenant, Mode::Read).replacen("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", 1);
        let begin = format!("{begin}; SET LOCAL TimeZone = 'UTC'");
        Ok(Self {
            open: OpenTx::begin(pool, Party::Tenant(tenant), &begin).await?,
            tenant,
            mode: Mode::Read,
        })
    }

    /// Gives the rows of the open cursor `tenant_archive` to a sink, and closes it.
    pub(crate) async fn drain_cursor(&mut self, sink: &mut dyn RowSink) -> Result<(), ArchiveError> {
        while self.open.drain(FETCH, sink).await? == FETCHED {}
        Ok(self.open.command(CLOSE).await?)
    }
}

impl OpenTx {
    /// Gives the lines that a statement returns to a sink, as they come: the server waits while the sink works. Returns how many
    /// there were.
    async fn drain(&mut self, sql: &'static str, sink: &mut dyn RowSink) -> Result<u64, ArchiveError> {
        trace(sql);
        let (mut rows, mut fetched) = (Rows::default(), 0);
        let mut stream = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(self.connection()?);
        let ended = loop {
            let row = match stream.try_next().await {
                Ok(Some(row)) => row,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let line: &str = row.try_get(0).map_err(from_sqlx)?;
            rows.lines.push_str(line);
            rows.lines.push('\n');
            (rows.count, fetched) = (rows.count + 1, fetched + 1);
            if rows.lines.len() >= CHUNK {
                sink.rows(std::mem::take(&mut rows)).await?;
            }
        };
        drop(stream);
        self.note(ended)?;
        if rows.count > 0 {
            sink.rows(rows).await?;
        }
        Ok(fetched)
    }
}
