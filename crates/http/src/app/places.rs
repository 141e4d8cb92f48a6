//! Places for work that goes on longer than other requests: so many of a tenant or an operator, and so many in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use tenantry_domain::kernel::ErrorCode;
use uuid::Uuid;

use crate::ApiError;

/// The places of one kind of work on this server.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_holder: HashMap<Uuid, usize>,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The tenant, or the operator, has as many as it may.
    Holder,
    /// All tenants together have as many as there are.
    Instance,
}

impl Full {
    /// The answer, with what the holder has too many of, what this server has too many of, and after how many seconds a place may be
    /// free. Another server may have a place, so that a full one is no fault of the tenant's.
    pub(crate) fn refused(&self, of_holder: String, of_server: &'static str, seconds: u32) -> ApiError {
        let error = match self {
            Self::Holder => ApiError::new(ErrorCode::RateLimited).with_detail(of_holder),
            Self::Instance => ApiError::new(ErrorCode::Unavailable).with_detail(of_server),
        };
        error.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }
}

impl Places {
    /// A place for one more of a tenant or an operator, unless it or all together have as many as they may.
    pub(crate) fn enter(
        self: &Arc<Self>,
        holder: impl Into<Uuid>,
        (of_one, of_all): (usize, usize),
    ) -> Result<Place, Full> {
        let holder = holder.into();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_holder = taken.by_holder.get(&holder).copied().unwrap_or_default();
        if of_holder >= of_one {
            return Err(Full::Holder);
        }
        if taken.all >= of_all {
            return Err(Full::Instance);
        }
        taken.all += 1;
        taken.by_holder.insert(holder, of_holder + 1);
        Ok(Place {
            places: Arc::clone(self),
            holder,
        })
    }
}

/// A place, which is free again when this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    holder: Uuid,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_holder.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::kernel::TenantId;

    use super::*;

    #[test]
    fn a_tenant_has_so_many_places_and_all_together_have_so_many() {
        let places = Arc::new(Places::default());
        let [one, two, three] = [1, 2, 3].map(|id| TenantId::from(Uuid::from_u128(id)));
        let enter = |tenant: TenantId| places.enter(tenant, (2, 3));
        let (first, second) = (enter(one).ok().unwrap(), enter(one).ok().unwrap());
        assert_eq!(enter(one).err(), Some(Full::Holder));
        let third = enter(two).ok().unwrap();
        assert_eq!(enter(three).err(), Some(Full::Instance));
        drop(first);
        let fourth = enter(three).ok().unwrap();
        assert_eq!(enter(one).err(), Some(Full::Instance));
        drop((second, third, fourth));
        let left = places.0.lock().unwrap();
        assert!(left.all == 0 && left.by_holder.is_empty());
    }
}
