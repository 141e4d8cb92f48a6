use async_trait::async_trait;
use tenantry_domain::identity::SpentChallenges;
use tenantry_domain::kernel::{StoreError, SystemScope, Time};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::tx::PlatformTx;

/// The answered challenges, as the platform role; the runtime role has no grant on their table.
#[derive(Debug, Clone)]
pub struct PgSpentChallenges {
    platform: Pool,
}

impl PgSpentChallenges {
    /// Challenges over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl SpentChallenges for PgSpentChallenges {
    async fn spend(
        &self,
        because: SystemScope,
        challenge: [u8; 32],
        expires_at: Time,
        now: Time,
    ) -> Result<bool, StoreError> {
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Write).await?;
        let spent = tx
            .fetch_fixed(SPEND, [challenge.to_vec().into(), expires_at.into()])
            .await?;
        // Each answer makes place for itself, so that the table holds what has not expired.
        tx.fetch_fixed(DELETE_EXPIRED, [now.into()]).await?;
        tx.commit().await?;
        Ok(!spent.is_empty())
    }
}

/// `$1` challenge, `$2` its expiry: a row, the first time.
const SPEND: &str = "\
INSERT INTO spent_challenges (challenge, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING expires_at";

/// `$1` now. An expired challenge is refused by its own text, so its row is not needed.
const DELETE_EXPIRED: &str = "\
DELETE FROM spent_challenges WHERE challenge IN (\
SELECT challenge FROM spent_challenges WHERE expires_at < $1 ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED)";
