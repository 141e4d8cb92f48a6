use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::flags::flag_concern::Concern;
use crate::flags::flag_program::{CompiledFlag, Digest, LEVELS, Outcome, place};
use crate::flags::{
    Bucket, FlagCatalogue, FlagDefinition, FlagOverride, FlagProgram, FlagTenant, Subject,
    flag_catalogue::MAX_DEPTH,
};
use crate::kernel::name::named_enum;
use crate::kernel::{Level, Role, TenantId, Time, resolve};

/// What holds of all flags in one tenant: evaluating it waits for nothing and stores nothing.
#[derive(Debug)]
pub struct FlagSet {
    program: Arc<FlagProgram>,
    tenant: FlagTenant,
    /// By place of the flag, in order: what the tenant has chosen, where that still means something.
    chosen: Box<[(usize, usize)]>,
    overrides: Vec<FlagOverride>,
    /// By place of the flag: whether everybody of the tenant gets the same, always.
    fixed: Box<[bool]>,
    concern: Concern,
    /// A digest of what the tenant has chosen.
    choices: Digest,
}

/// What a flag is, for somebody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation<'a> {
    /// The definition that was evaluated.
    pub flag: &'a FlagDefinition,
    /// The name of the variant.
    pub variant: &'a str,
    /// What the variant stands for, of the flag's type.
    pub value: &'a Value,
    /// Why this one.
    pub reason: Reason,
    /// The level that said so.
    pub level: Level,
}

named_enum! {
    /// Why somebody gets a variant, in the words of OpenFeature.
    pub enum Reason {
        /// Everybody gets it, always: the flag has no rules.
        Static = "STATIC",
        /// No rule says anything; it is the default.
        Default = "DEFAULT",
        /// A rule, or what the tenant has chosen.
        TargetingMatch = "TARGETING_MATCH",
        /// A part of a percentage rollout.
        Split = "SPLIT",
        /// It is switched off, not in use yet, or a prerequisite does not hold.
        Disabled = "DISABLED",
    }
}

/// How a flag came to what it is for somebody. It holds nothing that belongs to another tenant: rules that cannot be
/// about this one are left out, and of the others neither conditions nor descriptions nor segments are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The name of the variant.
    pub variant: String,
    /// What the variant stands for, of the flag's type.
    pub value: Value,
    /// Why this one.
    pub reason: Reason,
    /// The level that said so.
    pub level: Level,
    /// What buckets are salted with.
    pub salt: String,
    /// Whether it is in use and not switched off.
    pub enabled: bool,
    /// Each flag that has to be something first.
    pub prerequisites: Vec<PrerequisiteResult>,
    /// What each level says, the least specific first.
    pub levels: Vec<LevelResult>,
}

/// Whether another flag is what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrerequisiteResult {
    /// The other flag; `None` for one that tenants do not see.
    pub flag: Option<String>,
    /// Whether it is.
    pub holds: bool,
}

/// What a level says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelResult {
    /// User, tenant, plan, global or default.
    pub level: Level,
    /// The variant, when it says something.
    pub variant: Option<String>,
    /// Whether that is what the tenant has chosen.
    pub chosen: bool,
    /// Its rules that can be about this tenant, in their order, up to the one that matched.
    pub rules: Vec<RuleResult>,
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleResult {
    /// Whether the rule matched, or why not.
    pub result: RuleOutcome,
    /// In which of ten thousand buckets the subject is, where that was asked.
    pub bucket: Option<Bucket>,
}

named_enum! {
    /// What can come of a rule.
    pub enum RuleOutcome {
        /// The subject gets what the rule serves.
        Matched = "matched",
        /// It does not count yet, or no more.
        OutsideSchedule = "outside_schedule",
        /// A condition does not hold.
        ConditionsFail = "conditions_fail",
        /// The subject lacks what it would be divided by.
        NothingToDivideBy = "nothing_to_divide_by",
        /// The subject's bucket is beyond all parts.
        OutsideShare = "outside_share",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    variant: usize,
    reason: Reason,
    level: Level,
}

impl FlagSet {
    /// What holds in a tenant that has made these choices. A choice of a variant that is gone, or of a flag that is no
    /// more the tenant's to choose, stays stored and counts for nothing.
    pub fn new(program: Arc<FlagProgram>, tenant: FlagTenant, overrides: Vec<FlagOverride>) -> Self {
        let counts = |chosen: &FlagOverride| {
            let index = *program.by_key.get(chosen.flag.as_str())?;
            let flag = &program.flags[index].definition;
            let variant = place(flag, &chosen.variant)?;
            flag.tenant_overridable.then_some((index, variant))
        };
        let mut chosen: Vec<_> = overrides.iter().filter_map(counts).collect();
        chosen.sort_unstable();
        let choices = overrides
            .iter()
            .map(|one| json!([one.flag, one.variant, one.version]));
        // A rule that cannot be about this tenant must not be noticed here.
        let is_fixed = |flag: &CompiledFlag| {
            flag.is_plain() && !flag.all_rules().any(|rule| program.concerns(rule, &tenant))
        };
        Self {
            chosen: chosen.into(),
            choices: Sha256::digest(Value::from_iter(choices).to_string()).into(),
            fixed: program.flags.iter().map(is_fixed).collect(),
            concern: Concern::of(&program, &tenant),
            program,
            tenant,
            overrides,
        }
    }

    /// The flags of code alone, in a tenant that has chosen nothing: for a service without operators' definitions.
    ///
    /// ```
    /// use tenantry_domain::{flags::{Condition, FlagDefinition, FlagRule, FlagSet, FlagTenant, Comparator, Share, Subject}, kernel::{Level, TenantId, Time}};
    ///
    /// // Two flags, defined where they are used.
    /// let quarter = Share::of_percent(25.0).unwrap();
    /// let flags = [
    ///     FlagDefinition::boolean("new-checkout", "The checkout on one page")
    ///         .with_rule(FlagRule::rollout(Level::Global, "on", quarter, Some("tenant"))),
    ///     FlagDefinition::boolean("export", "Export to spreadsheets").with_rule(
    ///         FlagRule::variant(Level::Plan, "on")
    ///             .when(Condition::attribute("plan", Comparator::In, ["pro".into(), "business".into()])),
    ///     ),
    /// ];
    /// let tenant: TenantId = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11".parse().unwrap();
    /// let set = FlagSet::of_code(&flags, FlagTenant::new(tenant, "acme", "pro"));
    ///
    /// // Evaluating waits for nothing: no lock, no query, no clock.
    /// let ada = Subject::of("ada").with("country", "uk");
    /// let now = Time::UNIX_EPOCH;
    /// assert!(set.is_on("export", &ada, now));
    /// assert_eq!(set.is_on("new-checkout", &ada, now), set.is_on("new-checkout", &Subject::of("bob"), now));
    /// assert!(!set.is_on("no-such-flag", &ada, now));
    /// ```
    pub fn of_code(flags: &[FlagDefinition], tenant: FlagTenant) -> Self {
        let catalogue = FlagCatalogue::new(flags.iter().cloned(), []);
        Self::new(
            Arc::new(FlagProgram::compile(Arc::new(catalogue))),
            tenant,
            Vec::new(),
        )
    }

    /// Returns the id of the tenant that flags are evaluated in.
    pub const fn tenant(&self) -> TenantId {
        self.tenant.id()
    }

    /// Whether an id or a slug is this tenant's.
    pub fn is_of(&self, name: &str) -> bool {
        name == self.tenant.id_text() || name == self.tenant.slug()
    }

    /// A flag, unless it is archived.
    pub fn flag(&self, key: &str) -> Option<&FlagDefinition> {
        self.compiled(key).map(|(_, flag)| &*flag.definition)
    }

    /// What the tenant has chosen of a flag, whether or not it counts.
    pub fn chosen(&self, key: &str) -> Option<&FlagOverride> {
        self.overrides.iter().find(|chosen| chosen.flag == key)
    }

    /// Other bytes when something may be different for somebody in this tenant: definitions that concern it, its choices,
    /// its plan, the time of a schedule. What is said of other tenants makes no difference.
    ///
    /// They must not leave the server as they are: whoever guesses a definition could tell from them whether it is the one.
    pub fn fingerprint(&self, now: Time) -> [u8; 88] {
        self.concern.fingerprint(self.tenant.id(), &self.choices, now)
    }

    /// What a flag is for somebody; `None` when there is no such flag, or no more.
    pub fn evaluate(&self, key: &str, subject: &Subject, now: Time) -> Option<Evaluation<'_>> {
        let (index, flag) = self.compiled(key)?;
        self.evaluation(flag, self.decide(index, subject, now, 0))
    }

    /// Whether a boolean flag is true for somebody; false when there is none.
    pub fn is_on(&self, key: &str, subject: &Subject, now: Time) -> bool {
        self.evaluate(key, subject, now)
            .is_some_and(|flag| flag.value == &Value::Bool(true))
    }

    /// All flags that somebody of that role may know of, by key.
    pub fn evaluate_visible<'a>(
        &'a self,
        role: Option<Role>,
        subject: &'a Subject,
        now: Time,
    ) -> impl Iterator<Item = Evaluation<'a>> {
        let visible = move |(_, flag): &(usize, &CompiledFlag)| flag.definition.visible_to(role);
        let flags = self.program.flags.iter().enumerate().filter(visible);
        flags.filter_map(move |(index, flag)| self.evaluation(flag, self.decide(index, subject, now, 0)))
    }

    /// How a flag came to what it is for somebody.
    pub fn explain(&self, key: &str, subject: &Subject, now: Time) -> Option<Explanation> {
        let (index, flag) = self.compiled(key)?;
        let decision = self.decide(index, subject, now, 0);
        let evaluation = self.evaluation(flag, decision)?;
        let default = LevelResult {
            level: Level::Default,
            variant: Some(flag.definition.default_variant.clone()),
            chosen: false,
            rules: Vec::new(),
        };
        let said = LEVELS.map(|level| self.explain_level(index, flag, level, subject, now));
        let resolved = resolve(
            flag.definition.default_variant.clone(),
            said.iter().map(|one| (one.level, one.variant.clone())),
        );
        debug_assert!(decision.reason == Reason::Disabled || resolved.value == evaluation.variant);
        let prerequisites =
            flag.prerequisites
                .iter()
                .zip(&flag.definition.prerequisites)
                .map(|(needed, named)| {
                    let visible =
                        |other: usize| self.program.flags[other].definition.visible_to(Some(Role::Admin));
                    PrerequisiteResult {
                        flag: needed
                            .0
                            .filter(|other| visible(*other))
                            .map(|_| named.flag.clone()),
                        holds: self.prerequisite_holds(*needed, subject, now, 0),
                    }
                });
        Some(Explanation {
            variant: evaluation.variant.to_owned(),
            value: evaluation.value.clone(),
            reason: evaluation.reason,
            level: evaluation.level,
            salt: flag.definition.salt().to_owned(),
            enabled: flag.open,
            prerequisites: prerequisites.collect(),
            levels: [default].into_iter().chain(said.into_iter().rev()).collect(),
        })
    }

    fn compiled(&self, key: &str) -> Option<(usize, &CompiledFlag)> {
        let index = *self.program.by_key.get(key)?;
        let flag = &self.program.flags[index];
        (flag.definition.lifecycle != crate::flags::Lifecycle::Archived).then_some((index, flag))
    }

    fn evaluation<'a>(&'a self, flag: &'a CompiledFlag, decision: Decision) -> Option<Evaluation<'a>> {
        let (variant, value) = flag.definition.variants.iter().nth(decision.variant)?;
        Some(Evaluation {
            flag: &flag.definition,
            variant,
            value,
            reason: decision.reason,
            level: decision.level,
        })
    }

    fn decide(&self, index: usize, subject: &Subject, now: Time, depth: usize) -> Decision {
        let flag = &self.program.flags[index];
        let holds = |needed: &(Option<usize>, usize)| self.prerequisite_holds(*needed, subject, now, depth);
        if !flag.open || !flag.prerequisites.iter().all(holds) {
            return Decision {
                variant: flag.off,
                reason: Reason::Disabled,
                level: Level::Default,
            };
        }
        for level in LEVELS {
            if let Some(decision) = self.decide_level(index, flag, level, subject, now) {
                return decision;
            }
        }
        Decision {
            variant: flag.default,
            reason: if self.fixed[index] {
                Reason::Static
            } else {
                Reason::Default
            },
            level: Level::Default,
        }
    }

    /// What the tenant chose goes before what operators say of tenants: the flag was left to the tenant.
    fn decide_level(
        &self,
        index: usize,
        flag: &CompiledFlag,
        level: Level,
        subject: &Subject,
        now: Time,
    ) -> Option<Decision> {
        let decision = |variant, reason| Decision {
            variant,
            reason,
            level,
        };
        if level == Level::Tenant
            && let Some(variant) = self.chosen_variant(index)
        {
            return Some(decision(variant, Reason::TargetingMatch));
        }
        flag.rules(level).iter().find_map(|rule| {
            match self.program.apply(flag, rule, &self.tenant, subject, now) {
                Outcome::Serves(variant, None) => Some(decision(variant, Reason::TargetingMatch)),
                Outcome::Serves(variant, Some(_)) => Some(decision(variant, Reason::Split)),
                Outcome::OutsideSchedule
                | Outcome::ConditionsFail
                | Outcome::NothingToDivideBy
                | Outcome::OutsideShare(_) => None,
            }
        })
    }

    fn prerequisite_holds(
        &self,
        (other, variant): (Option<usize>, usize),
        subject: &Subject,
        now: Time,
        depth: usize,
    ) -> bool {
        // Writing refuses cycles and long chains; this ends what got stored all the same.
        depth < MAX_DEPTH
            && other.is_some_and(|other| self.decide(other, subject, now, depth + 1).variant == variant)
    }

    fn chosen_variant(&self, index: usize) -> Option<usize> {
        let place = self.chosen.binary_search_by_key(&index, |(flag, _)| *flag).ok()?;
        Some(self.chosen[place].1)
    }

    fn explain_level(
        &self,
        index: usize,
        flag: &CompiledFlag,
        level: Level,
        subject: &Subject,
        now: Time,
    ) -> LevelResult {
        let decision = self.decide_level(index, flag, level, subject, now);
        let chosen = level == Level::Tenant && self.chosen_variant(index).is_some();
        let concerning = flag
            .rules(level)
            .iter()
            .filter(|rule| self.program.concerns(rule, &self.tenant));
        let mut rules = Vec::new();
        // What comes after the rule that decided was not looked at.
        for rule in concerning.take_while(|_| !chosen) {
            let (result, bucket) = match self.program.apply(flag, rule, &self.tenant, subject, now) {
                Outcome::OutsideSchedule => (RuleOutcome::OutsideSchedule, None),
                Outcome::ConditionsFail => (RuleOutcome::ConditionsFail, None),
                Outcome::NothingToDivideBy => (RuleOutcome::NothingToDivideBy, None),
                Outcome::OutsideShare(bucket) => (RuleOutcome::OutsideShare, Some(bucket)),
                Outcome::Serves(_, bucket) => (RuleOutcome::Matched, bucket),
            };
            rules.push(RuleResult { result, bucket });
            if result == RuleOutcome::Matched {
                break;
            }
        }
        let variant = decision.and_then(|decision| flag.definition.variants.keys().nth(decision.variant));
        LevelResult {
            level,
            variant: variant.cloned(),
            chosen,
            rules,
        }
    }
}

#[cfg(test)]
#[path = "flag_set_tests.rs"]
mod tests;
