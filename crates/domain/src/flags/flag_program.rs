use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::flags::condition::{Comparison, Known};
use crate::flags::{
    Bucket, Condition, FlagCatalogue, FlagDefinition, FlagRule, FlagTenant, Lifecycle, Segment, Serve, Split,
    Subject,
};
use crate::kernel::number::Exact;
use crate::kernel::{Level, Time};

/// All definitions in the form in which they are quick to evaluate. One for all tenants: what differs from tenant to
/// tenant is in the [`FlagSet`](super::FlagSet), which is small.
#[derive(Debug)]
pub struct FlagProgram {
    catalogue: Arc<FlagCatalogue>,
    pub(crate) flags: Box<[CompiledFlag]>,
    pub(crate) by_key: HashMap<Box<str>, usize>,
    segments: Box<[Box<[Test]>]>,
}

#[derive(Debug)]
pub(crate) struct CompiledFlag {
    pub(crate) definition: Arc<FlagDefinition>,
    pub(crate) default: usize,
    pub(crate) off: usize,
    /// Whether it is in use and not switched off.
    pub(crate) open: bool,
    /// The flag, when there is one, and the variant that it must have.
    pub(crate) prerequisites: Box<[(Option<usize>, usize)]>,
    /// By level: user, tenant, plan, global.
    rules: [Box<[CompiledRule]>; 4],
}

/// The levels that rules are of, the most specific first.
pub(crate) const LEVELS: [Level; 4] = [Level::User, Level::Tenant, Level::Plan, Level::Global];

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) when: Box<[Test]>,
    pub(crate) from: Option<Time>,
    pub(crate) until: Option<Time>,
    serve: CompiledServe,
    /// A digest of what it serves.
    pub(crate) serves: Digest,
}

/// SHA-256 of the JSON of a part of a definition.
pub(crate) type Digest = [u8; 32];

fn digest(part: &impl serde::Serialize) -> Digest {
    Sha256::digest(serde_json::to_vec(part).unwrap_or_default()).into()
}

#[derive(Debug)]
enum CompiledServe {
    Variant(usize),
    /// Each part with the first bucket that is not its own any more.
    Split(By, Box<[(u16, usize)]>),
}

#[derive(Debug)]
enum By {
    UserOrTenant,
    User,
    Tenant,
    Attribute(Box<str>),
}

#[derive(Debug)]
pub(crate) enum Test {
    /// An attribute, how it compares, and a digest of the condition.
    Attribute(Attribute, Comparison, Digest),
    /// A segment, when there is one, and whether one must not be in it.
    Segment(Option<usize>, bool),
}

#[derive(Debug)]
pub(crate) enum Attribute {
    TenantId,
    TenantSlug,
    Plan,
    UserId,
    Role,
    Other(Box<str>),
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    OutsideSchedule,
    ConditionsFail,
    NothingToDivideBy,
    OutsideShare(Bucket),
    Serves(usize, Option<Bucket>),
}

impl FlagProgram {
    /// Definitions made ready for evaluation. What does not hold together ends as off, never as a panic.
    pub fn compile(catalogue: Arc<FlagCatalogue>) -> Self {
        let by_key: HashMap<Box<str>, usize> = catalogue
            .flags()
            .enumerate()
            .map(|(index, flag)| (flag.key.as_str().into(), index))
            .collect();
        let segment_places: HashMap<&str, usize> = catalogue
            .segments()
            .enumerate()
            .map(|(index, segment)| (segment.key.as_str(), index))
            .collect();
        let tests = |conditions: &[Condition]| {
            conditions
                .iter()
                .map(|one| Test::of(one, &segment_places))
                .collect()
        };
        let flags = catalogue
            .flags()
            .map(|flag| CompiledFlag::of(flag, &catalogue, &by_key, &tests))
            .collect();
        let segments = catalogue
            .segments()
            .map(|segment: &Segment| tests(&segment.when))
            .collect();
        Self {
            flags,
            segments,
            by_key,
            catalogue,
        }
    }

    /// What it was made of.
    pub fn catalogue(&self) -> &Arc<FlagCatalogue> {
        &self.catalogue
    }

    pub(crate) fn apply(
        &self,
        flag: &CompiledFlag,
        rule: &CompiledRule,
        tenant: &FlagTenant,
        subject: &Subject,
        now: Time,
    ) -> Outcome {
        if rule.from.is_some_and(|from| now < from) || rule.until.is_some_and(|until| until <= now) {
            return Outcome::OutsideSchedule;
        }
        if !self.all_hold(&rule.when, tenant, subject) {
            return Outcome::ConditionsFail;
        }
        match &rule.serve {
            CompiledServe::Variant(variant) => Outcome::Serves(*variant, None),
            CompiledServe::Split(by, parts) => by.divide(flag.definition.salt(), parts, tenant, subject),
        }
    }

    /// Whether a rule can be about anybody of this tenant. Of one that cannot a tenant is told nothing, not even that
    /// it is there: it may be about another.
    pub(crate) fn concerns(&self, rule: &CompiledRule, tenant: &FlagTenant) -> bool {
        self.all_of_tenant(&rule.when, tenant) != Some(false)
    }

    fn all_hold(&self, tests: &[Test], tenant: &FlagTenant, subject: &Subject) -> bool {
        tests.iter().all(|test| match test {
            Test::Attribute(attribute, comparison, _) => attribute
                .known(tenant, subject)
                .is_some_and(|known| comparison.holds(known)),
            Test::Segment(Some(segment), negate) => {
                self.all_hold(&self.segments[*segment], tenant, subject) != *negate
            }
            Test::Segment(None, _) => false,
        })
    }

    /// Whether all hold for every subject of a tenant; `None` where it depends on the subject.
    fn all_of_tenant(&self, tests: &[Test], tenant: &FlagTenant) -> Option<bool> {
        let mut all = Some(true);
        for test in tests {
            match self.of_tenant(test, tenant) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    /// Whether one holds for every subject of a tenant; `None` where it depends on the subject.
    pub(crate) fn of_tenant(&self, test: &Test, tenant: &FlagTenant) -> Option<bool> {
        match test {
            Test::Attribute(attribute, comparison, _) => attribute
                .of_tenant(tenant)
                .map(|known| comparison.holds(Known::Text(known))),
            Test::Segment(Some(segment), negate) => self
                .all_of_tenant(self.segment(*segment), tenant)
                .map(|holds| holds != *negate),
            Test::Segment(None, _) => Some(false),
        }
    }

    pub(crate) fn segment(&self, index: usize) -> &[Test] {
        &self.segments[index]
    }
}

impl CompiledFlag {
    fn of(
        flag: &Arc<FlagDefinition>,
        catalogue: &FlagCatalogue,
        by_key: &HashMap<Box<str>, usize>,
        tests: &impl Fn(&[Condition]) -> Box<[Test]>,
    ) -> Self {
        let off = place(flag, &flag.off_variant).unwrap_or(0);
        let prerequisites = flag.prerequisites.iter().map(|needed| {
            let variant = catalogue
                .flag(&needed.flag)
                .and_then(|other| place(other, &needed.variant));
            // Without the variant it cannot hold, as without the flag.
            let other = variant.and(by_key.get(needed.flag.as_str())).copied();
            (other, variant.unwrap_or(0))
        });
        let rules = LEVELS.map(|level| {
            let of_level = flag.rules.iter().filter(|rule| rule.level == level);
            of_level
                .filter_map(|rule| CompiledRule::of(flag, rule, tests))
                .collect()
        });
        let in_use = match flag.lifecycle {
            Lifecycle::Active | Lifecycle::Deprecated => true,
            Lifecycle::Draft | Lifecycle::Archived => false,
        };
        Self {
            default: place(flag, &flag.default_variant).unwrap_or(off),
            off,
            open: in_use && flag.enabled,
            prerequisites: prerequisites.collect(),
            rules,
            definition: Arc::clone(flag),
        }
    }

    pub(crate) fn rules(&self, level: Level) -> &[CompiledRule] {
        LEVELS
            .iter()
            .position(|one| *one == level)
            .map_or(&[], |place| &self.rules[place])
    }

    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules.iter().flatten()
    }

    /// Whether it depends on nothing but its rules.
    pub(crate) fn is_plain(&self) -> bool {
        self.prerequisites.is_empty() && !self.definition.tenant_overridable
    }
}

impl CompiledRule {
    fn of(
        flag: &FlagDefinition,
        rule: &FlagRule,
        tests: &impl Fn(&[Condition]) -> Box<[Test]>,
    ) -> Option<Self> {
        let serve = match &rule.serve {
            Serve::Variant(variant) => CompiledServe::Variant(place(flag, variant)?),
            Serve::Split(split) => CompiledServe::Split(By::of(split), ranges(flag, split)?),
        };
        Some(Self {
            when: tests(&rule.when),
            from: rule.from,
            until: rule.until,
            serve,
            serves: digest(&rule.serve),
        })
    }
}

/// Where each part ends.
fn ranges(flag: &FlagDefinition, split: &Split) -> Option<Box<[(u16, usize)]>> {
    let mut end = 0_u16;
    let parts = split.parts.iter().map(|part| {
        end = end.saturating_add(part.percent.basis_points());
        Some((end, place(flag, &part.variant)?))
    });
    parts.collect()
}

/// Which of the variants one is, in the order of their names.
pub(crate) fn place(flag: &FlagDefinition, variant: &str) -> Option<usize> {
    flag.variants.keys().position(|name| name == variant)
}

impl By {
    fn of(split: &Split) -> Self {
        match split.by.as_deref() {
            None => Self::UserOrTenant,
            Some("user") => Self::User,
            Some("tenant") => Self::Tenant,
            Some(attribute) => Self::Attribute(attribute.into()),
        }
    }

    fn divide(&self, salt: &str, parts: &[(u16, usize)], tenant: &FlagTenant, subject: &Subject) -> Outcome {
        let Some(bucket) = self.bucket(salt, tenant, subject) else {
            return Outcome::NothingToDivideBy;
        };
        match parts.iter().find(|(end, _)| bucket.number() < *end) {
            Some((_, variant)) => Outcome::Serves(*variant, Some(bucket)),
            None => Outcome::OutsideShare(bucket),
        }
    }

    fn bucket(&self, salt: &str, tenant: &FlagTenant, subject: &Subject) -> Option<Bucket> {
        let of = |stickiness: &str| Some(Bucket::of(salt, stickiness));
        match (self, subject.key.as_deref()) {
            (Self::User | Self::UserOrTenant, Some(user)) => of(user),
            (Self::User, None) => None,
            (Self::Tenant, _) | (Self::UserOrTenant, None) => of(tenant.id_text()),
            (Self::Attribute(name), _) => match Attribute::of(name).known(tenant, subject)? {
                Known::Text(text) => of(text),
                Known::Json(serde_json::Value::String(text)) => of(text),
                // A whole number is written in one way only; fractions are not.
                Known::Json(serde_json::Value::Number(number)) => match Exact::of(number) {
                    Exact::Whole(number) => of(&number.to_string()),
                    Exact::Other(_) => None,
                },
                Known::Json(_) => None,
            },
        }
    }
}

impl Test {
    fn of(condition: &Condition, segments: &HashMap<&str, usize>) -> Self {
        match condition {
            Condition::Attribute {
                attribute,
                operator,
                values,
            } => Self::Attribute(
                Attribute::of(attribute),
                Comparison::of(*operator, values),
                digest(condition),
            ),
            Condition::Segment { segment, negate } => {
                Self::Segment(segments.get(segment.as_str()).copied(), *negate)
            }
        }
    }
}

impl Attribute {
    fn of(name: &str) -> Self {
        match name {
            "tenant_id" => Self::TenantId,
            "tenant_slug" => Self::TenantSlug,
            "plan" => Self::Plan,
            "user_id" => Self::UserId,
            "role" => Self::Role,
            other => Self::Other(other.into()),
        }
    }

    /// What is known of it; the server's own word first.
    fn known<'a>(&self, tenant: &'a FlagTenant, subject: &'a Subject) -> Option<Known<'a>> {
        match self {
            Self::TenantId | Self::TenantSlug | Self::Plan => self.of_tenant(tenant).map(Known::Text),
            Self::UserId => subject.key.as_deref().map(Known::Text),
            Self::Role => match subject.role {
                Some(role) => Some(Known::Text(role.as_str())),
                None => subject.attributes.get("role").map(Known::Json),
            },
            Self::Other(name) => subject.attributes.get(&**name).map(Known::Json),
        }
    }

    /// What is the same for everybody of a tenant.
    fn of_tenant<'a>(&self, tenant: &'a FlagTenant) -> Option<&'a str> {
        match self {
            Self::TenantId => Some(tenant.id_text()),
            Self::TenantSlug => Some(tenant.slug()),
            Self::Plan => Some(tenant.plan()),
            Self::UserId | Self::Role | Self::Other(_) => None,
        }
    }
}
