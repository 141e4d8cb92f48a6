use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use futures_util::lock::Mutex;
use serde_json::Value;
use tenantry_domain::kernel::{StoreError, SystemScope, Time};
use tenantry_domain::operations::TenantRates;
use tenantry_domain::plans::{PlanCatalogue, PlanTerms, PlanVersion, PlanVersions};
use tenantry_domain::usage::Meters;

use crate::plans::stated_rates::{of_plan, of_plan_or};
use crate::plans::{Plan, Plans, RateError};

/// The plans on offer and every version of them that was ever on offer.
///
/// A plan that changes gets a new version ([`PlanBook::sync`]); tenants keep the one that they bought. Everything is kept
/// in memory, since there are few: a look at it waits for nobody.
pub struct PlanBook {
    default: String,
    meters: Meters,
    /// In the order of the file.
    plans: Vec<Plan>,
    known: RwLock<Known>,
    /// Where the versions are stored.
    store: OnceLock<Arc<dyn PlanVersions>>,
    /// When they were last read because one was not known.
    refreshed_at: Mutex<Option<Time>>,
}

/// How long a refresh stands for those that follow, in seconds.
const REFRESH_SECONDS: i64 = 1;

#[derive(Default)]
struct Known {
    on_offer: Vec<Arc<Version>>,
    all: HashMap<String, BTreeMap<u32, Arc<Version>>>,
}

struct Version {
    terms: Arc<PlanTerms>,
    rates: TenantRates,
}

impl std::fmt::Debug for PlanBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanBook")
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl PlanBook {
    /// A book of these plans, each at its first version until the stored ones are known.
    ///
    /// # Errors
    /// For a plan whose limits make no rates.
    pub fn new(plans: Plans) -> Result<Self, RateError> {
        let default = plans.default_plan().to_owned();
        let meters = plans.meters().clone();
        let plans = plans.into_all();
        let first = |plan: &Plan| {
            let version = Version {
                terms: terms(plan, 1),
                rates: of_plan(plan)?,
            };
            Ok(Arc::new(version))
        };
        let on_offer = plans.iter().map(first).collect::<Result<Vec<_>, RateError>>()?;
        let known = RwLock::new(Known {
            on_offer,
            all: HashMap::new(),
        });
        Ok(Self {
            default,
            meters,
            plans,
            known,
            store: OnceLock::new(),
            refreshed_at: Mutex::default(),
        })
    }

    /// Lets [`PlanCatalogue::refresh`] read from this store; without one it reads nothing. The first call counts.
    pub fn refresh_from(&self, store: Arc<dyn PlanVersions>) {
        let _ = self.store.set(store);
    }

    /// Stores the plans on offer as versions where they are new, and learns all versions. For the start of a server, and
    /// of commands that found tenants or change their plan.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sync(&self, store: &dyn PlanVersions, now: Time) -> Result<(), StoreError> {
        let because = SystemScope::because("keep the plans on offer as versions");
        let definitions = self
            .plans
            .iter()
            .map(|plan| Ok((plan.name.clone(), definition(plan)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let stored = store.keep(because, &definitions, now).await?;
        self.learn(&stored, Unstored::First)
    }

    /// Learns all versions and stores none, for commands that read: a plan on offer that equals no stored version has the number that
    /// [`PlanBook::sync`] would give it. No tenant may get such a version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preview(&self, store: &dyn PlanVersions) -> Result<(), StoreError> {
        let because = SystemScope::because("read the versions of plans for a command");
        self.learn(&store.all(because).await?, Unstored::Next)
    }

    /// Whether a version of a plan is stored, as far as this book has learned.
    pub fn is_stored(&self, plan: &str, version: u32) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .all
            .get(plan)
            .is_some_and(|versions| versions.contains_key(&version))
    }

    /// Learns versions that other servers have added.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reload(&self, store: &dyn PlanVersions) -> Result<(), StoreError> {
        let because = SystemScope::because("learn versions of plans that other servers added");
        self.learn(&store.all(because).await?, Unstored::First)
    }

    /// The rates of a version of a plan.
    pub(crate) fn rates(&self, plan: &str, version: u32) -> TenantRates {
        self.version(plan, version).rates
    }

    fn learn(&self, stored: &[PlanVersion], unstored: Unstored) -> Result<(), StoreError> {
        let mut known = Known::default();
        for row in stored {
            let version = match serde_json::from_value::<Plan>(row.definition.clone()) {
                Ok(plan) => self.read(&plan, row.version),
                Err(error) => {
                    tracing::error!(plan = row.name, version = row.version, %error, "a stored version of a plan is not used");
                    continue;
                }
            };
            let versions = known.all.entry(row.name.clone()).or_default();
            versions.insert(row.version, Arc::new(version));
        }
        for plan in &self.plans {
            let wanted = definition(plan)?;
            let found = stored
                .iter()
                .rev()
                .find(|row| row.name == plan.name && row.definition == wanted);
            let newest = || {
                stored
                    .iter()
                    .filter(|row| row.name == plan.name)
                    .map(|row| row.version)
                    .max()
            };
            let number = match (found, unstored) {
                (Some(row), _) => row.version,
                (None, Unstored::First) => 1,
                (None, Unstored::Next) => newest().unwrap_or_default() + 1,
            };
            known.on_offer.push(Arc::new(self.read(plan, number)));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// A version may be older than a limit that rates are made of; then the plan's present rates apply, or those of
    /// the default plan.
    fn read(&self, plan: &Plan, version: u32) -> Version {
        let on_offer = |name: &str| self.plans.iter().find(|now| now.name == name);
        let now = on_offer(&plan.name).or_else(|| on_offer(&self.default));
        Version {
            terms: terms(plan, version),
            rates: of_plan_or(plan, now.unwrap_or(plan)),
        }
    }

    fn version(&self, plan: &str, version: u32) -> Arc<Version> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let on_offer = |name: &str| known.on_offer.iter().find(|it| it.terms.name == name);
        let bought = known.all.get(plan).and_then(|versions| versions.get(&version));
        let found = bought
            .or_else(|| on_offer(plan))
            .or_else(|| on_offer(&self.default));
        // There is always a default plan: the catalogue is not read without one.
        found
            .or(known.on_offer.first())
            .map_or_else(|| unreachable!("a catalogue without plans"), Arc::clone)
    }
}

/// The number of a plan on offer that equals no stored version.
#[derive(Clone, Copy)]
enum Unstored {
    /// The first, until the start of a server stores it.
    First,
    /// The one that it would get.
    Next,
}

#[async_trait]
impl PlanCatalogue for PlanBook {
    fn default_plan(&self) -> &str {
        &self.default
    }

    fn is_open_to_signup(&self, plan: &str) -> bool {
        let is_marked = |it: &Plan| it.name == plan && it.open_to_signup;
        plan == self.default || self.plans.iter().any(is_marked)
    }

    fn on_offer(&self) -> Vec<Arc<PlanTerms>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.on_offer.iter().map(|it| Arc::clone(&it.terms)).collect()
    }

    fn meters(&self) -> &Meters {
        &self.meters
    }

    fn terms(&self, plan: &str, version: u32) -> Arc<PlanTerms> {
        Arc::clone(&self.version(plan, version).terms)
    }

    async fn refresh(&self, now: Time) -> Result<(), StoreError> {
        let Some(store) = self.store.get() else {
            return Ok(());
        };
        // Held while it is read: those that come meanwhile decide by what is read.
        let mut refreshed_at = self.refreshed_at.lock().await;
        let is_fresh = |at: Time| (now - at).num_seconds().abs() < REFRESH_SECONDS;
        if !refreshed_at.is_some_and(is_fresh) {
            self.reload(store.as_ref()).await?;
            *refreshed_at = Some(now);
        }
        Ok(())
    }
}

fn terms(plan: &Plan, version: u32) -> Arc<PlanTerms> {
    Arc::new(PlanTerms {
        name: plan.name.clone(),
        version,
        title: plan.title.clone(),
        limits: plan.limits.clone(),
        features: plan.features.iter().cloned().collect::<BTreeSet<_>>(),
        settings: plan.settings.clone(),
        meters: plan.meters.clone(),
        prices: plan.prices.clone(),
        trial_days: plan.trial_days,
        grace_days: plan.grace_days,
    })
}

fn definition(plan: &Plan) -> Result<Value, StoreError> {
    serde_json::to_value(plan).map_err(|error| StoreError::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tenantry_domain::kernel::Limit;

    use super::*;

    /// Versions in memory, as the store keeps them.
    #[derive(Default)]
    struct Kept(Mutex<Vec<PlanVersion>>);

    #[async_trait]
    impl PlanVersions for Kept {
        async fn all(&self, _: SystemScope) -> Result<Vec<PlanVersion>, StoreError> {
            Ok(self.0.lock().unwrap().clone())
        }

        async fn keep(
            &self,
            because: SystemScope,
            definitions: &[(String, Value)],
            at: Time,
        ) -> Result<Vec<PlanVersion>, StoreError> {
            for (name, definition) in definitions {
                let mut kept = self.0.lock().unwrap();
                let same = |row: &PlanVersion| row.name == *name && row.definition == *definition;
                if !kept.iter().any(same) {
                    let version = 1 + kept.iter().filter(|row| row.name == *name).count() as u32;
                    kept.push(PlanVersion {
                        name: name.clone(),
                        version,
                        definition: definition.clone(),
                        created_at: at,
                    });
                }
            }
            self.all(because).await
        }
    }

    fn book(users: u32, per_minute: u32) -> PlanBook {
        let text = format!(
            "[[plan]]\nname = 'one'\ntitle = 'One'\ndescription = 'The only one.'\ndefault = true\n\
             features = ['sso']\n[plan.limits]\nusers = {users}\nrequests_per_minute = {per_minute}\n\
             requests_burst = 1\nuser_requests_per_minute = 1\nuser_requests_burst = 1"
        );
        PlanBook::new(Plans::parse(&text).unwrap()).unwrap()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(work).unwrap()
    }

    #[test]
    fn preview_numbers_new_plans_and_stores_none() {
        let store = Kept::default();
        let unstored = book(5, 10);
        run(unstored.preview(&store)).unwrap();
        assert_eq!(unstored.current("one").unwrap().version, 1);
        assert!(!unstored.is_stored("one", 1));
        run(unstored.sync(&store, Time::default())).unwrap();
        assert!(unstored.is_stored("one", 1));
        let other = book(7, 20);
        run(other.preview(&store)).unwrap();
        assert_eq!(other.current("one").unwrap().version, 2);
        assert!(!other.is_stored("one", 2));
        assert_eq!(store.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_tenant_keeps_the_version_it_bought() {
        let store = Kept::default();
        let first = book(5, 10);
        run(first.sync(&store, Time::default())).unwrap();
        let second = book(7, 20);
        run(second.sync(&store, Time::default())).unwrap();
        assert_eq!(second.current("one").unwrap().version, 2);
        assert_eq!(second.terms("one", 1).limit("users"), Limit::Of(5));
        assert_eq!(second.terms("one", 2).limit("users"), Limit::Of(7));
        let per_minute = |version| second.rates("one", version).tenant.unwrap().per_minute();
        assert_eq!((per_minute(1), per_minute(2)), (10, 20));

        assert_eq!(
            first.terms("one", 2).version,
            1,
            "not heard of yet: what is on offer here"
        );
        run(first.reload(&store)).unwrap();
        assert_eq!(first.terms("one", 2).limit("users"), Limit::Of(7));
        assert_eq!(first.current("one").unwrap().version, 1, "what its own file says");
    }

    #[test]
    fn unknown_version_is_read_at_most_once_a_second() {
        let store = Arc::new(Kept::default());
        let here = book(5, 10);
        here.refresh_from(Arc::clone(&store) as Arc<dyn PlanVersions>);
        run(here.sync(store.as_ref(), Time::default())).unwrap();
        let added = |users| run(book(users, 10).sync(store.as_ref(), Time::default())).unwrap();
        let refresh = |milliseconds| {
            run(here.refresh(Time::from_timestamp_millis(milliseconds).unwrap())).unwrap();
        };
        added(6);
        assert!(here.knows("one", 1) && !here.knows("one", 2));
        refresh(0);
        assert!(here.knows("one", 2));
        added(7);
        refresh(999);
        assert!(!here.knows("one", 3), "it was read less than a second ago");
        refresh(1_000);
        assert!(here.knows("one", 3));
    }

    #[test]
    fn a_definition_that_comes_back_is_the_version_it_was() {
        let store = Kept::default();
        for (users, version) in [(5, 1), (7, 2), (5, 1), (7, 2)] {
            let book = book(users, 10);
            run(book.sync(&store, Time::default())).unwrap();
            assert_eq!(book.current("one").unwrap().version, version);
        }
        assert_eq!(store.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_known_is_what_is_on_offer() {
        let book = book(5, 10);
        assert_eq!(book.terms("one", 9).version, 1);
        assert_eq!(book.terms("gone", 1).name, "one", "the default plan");
        assert!(book.offers("one") && !book.offers("gone"));
        assert_eq!(book.names(), ["one"]);
        assert_eq!(book.terms("one", 1).limit("not stated"), Limit::Unlimited);
        assert!(book.terms("one", 1).has("sso"));
    }

    #[test]
    fn opening_a_plan_to_signup_makes_no_version() {
        let text = |signup: bool| {
            let limits = "limits = { requests_per_minute = 1, requests_burst = 1, user_requests_per_minute = 1, \
                          user_requests_burst = 1 }";
            format!(
                "[[plan]]\nname = 'one'\ntitle = 'One'\ndescription = 'One.'\ndefault = true\n{limits}\n\
                 [[plan]]\nname = 'two'\ntitle = 'Two'\ndescription = 'Two.'\nsignup = {signup}\n{limits}"
            )
        };
        let store = Kept::default();
        for signup in [false, true, false] {
            let book = PlanBook::new(Plans::parse(&text(signup)).unwrap()).unwrap();
            run(book.sync(&store, Time::default())).unwrap();
            assert_eq!(book.current("two").unwrap().version, 1);
            assert_eq!(book.is_open_to_signup("two"), signup);
            assert!(book.is_open_to_signup("one") && !book.is_open_to_signup("three"));
        }
    }

    #[test]
    fn a_stored_version_that_cannot_be_read_is_passed_over() {
        let store = Kept::default();
        let row = PlanVersion {
            name: "one".into(),
            version: 1,
            definition: Value::Null,
            created_at: Time::default(),
        };
        store.0.lock().unwrap().push(row);
        let book = book(5, 10);
        run(book.sync(&store, Time::default())).unwrap();
        assert_eq!(book.current("one").unwrap().version, 2);
        assert_eq!(book.terms("one", 1).version, 2);
    }
}
