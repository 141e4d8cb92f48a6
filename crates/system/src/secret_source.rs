use tenantry_domain::identity::SecretSource;

use crate::secret;

/// Secrets from the random generator of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSecrets;

impl SecretSource for SystemSecrets {
    fn secret(&self) -> [u8; 32] {
        secret::random()
    }
}
