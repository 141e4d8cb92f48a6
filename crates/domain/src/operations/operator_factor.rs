use async_trait::async_trait;

use crate::identity::TotpFactor;
use crate::kernel::{OperatorId, StoreError, Time};

/// The authenticator app of an operator.
pub type OperatorTotp = TotpFactor<OperatorId>;

/// The second factors of operators.
#[async_trait]
pub trait OperatorFactors: Send {
    /// An operator's app, confirmed or not.
    async fn find_totp(&mut self, operator: OperatorId) -> Result<Option<OperatorTotp>, StoreError>;
    /// The apps of all operators, locked until the transaction ends.
    async fn list_totp_for_update(&mut self) -> Result<Vec<OperatorTotp>, StoreError>;
    /// Stores an operator's app in place of the one that there is.
    async fn replace_totp(&mut self, factor: &OperatorTotp) -> Result<(), StoreError>;
    /// Stores the new state of an app.
    async fn update_totp(&mut self, factor: &OperatorTotp) -> Result<(), StoreError>;
    /// Removes an operator's app and recovery codes; whether there was an app.
    async fn delete_factor(&mut self, operator: OperatorId) -> Result<bool, StoreError>;
    /// Stores recovery codes in place of those that there are.
    async fn replace_recovery_codes(
        &mut self,
        operator: OperatorId,
        hashes: &[[u8; 32]],
    ) -> Result<(), StoreError>;
    /// Uses a recovery code up; whether it was one.
    async fn use_recovery_code(&mut self, operator: OperatorId, hash: [u8; 32]) -> Result<bool, StoreError>;
    /// Stores when a login with a factor was finished; see [`Operator::factor_at`](crate::operations::Operator::factor_at).
    async fn finish_login(&mut self, operator: OperatorId, at: Time) -> Result<(), StoreError>;
    /// Ends all tokens and waiting logins of an operator.
    async fn end_tokens(&mut self, operator: OperatorId) -> Result<(), StoreError>;
}
