//! The networks from which somebody has lately logged in.

use chrono::Duration;
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Network, StoreError};
use tenantry_domain::store::Work;

use crate::Cx;

/// Whether the user with that mail address has lately logged in from this network. An unknown user has not, and costs the
/// same.
///
/// # Errors
/// Those of the store.
pub async fn is_known_network(cx: &Cx, email: &str, network: Option<Network>) -> Result<bool, StoreError> {
    let Ok(email) = Email::parse(email, "/email") else {
        return Ok(false);
    };
    let addresses = cx.read(async |work| logins(cx, work, &email).await).await?;
    Ok(is_among(network, &addresses))
}

/// For how long a network is known from which somebody has logged in.
pub(crate) const KNOWN_FOR: Duration = Duration::days(30);

/// Whether one of these addresses is in the network.
pub(crate) fn is_among(network: Option<Network>, addresses: &[Option<String>]) -> bool {
    let mut networks = addresses.iter().map(|address| {
        let address = address.as_ref().and_then(|address| address.parse().ok());
        Network::site(address)
    });
    networks.any(|known| known == network)
}

/// From where the account of an address has lately logged in.
pub(crate) async fn logins(
    cx: &Cx,
    work: &mut Work,
    email: &Email,
) -> Result<Vec<Option<String>>, StoreError> {
    work.sessions().login_addresses(email, cx.now() - KNOWN_FOR).await
}
