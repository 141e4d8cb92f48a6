use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use crate::flags::{Condition, FlagDefinition, FlagOverride, Lifecycle, Segment};
use crate::kernel::{Check, Invalid, OperatorId, StoreError, Time};

/// How many flags may stand one behind the other. Evaluation stops there as well, whatever is stored.
pub(crate) const MAX_DEPTH: usize = 5;

/// How many flags may have to be evaluated for one.
const MAX_EVALUATIONS: usize = 100;

/// All definitions: the flags of everybody, and the segments that their rules name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlagCatalogue {
    flags: BTreeMap<String, Arc<FlagDefinition>>,
    segments: BTreeMap<String, Segment>,
}

impl FlagCatalogue {
    /// A catalogue of these.
    pub fn new(
        flags: impl IntoIterator<Item = FlagDefinition>,
        segments: impl IntoIterator<Item = Segment>,
    ) -> Self {
        let flags = flags.into_iter().map(|flag| (flag.key.clone(), Arc::new(flag)));
        let segments = segments.into_iter().map(|segment| (segment.key.clone(), segment));
        Self {
            flags: flags.collect(),
            segments: segments.collect(),
        }
    }

    /// The same with what comes with the code, where nobody has defined a flag of that key.
    #[must_use]
    pub fn over(mut self, of_code: &[FlagDefinition]) -> Self {
        for flag in of_code {
            let flag = || Arc::new(flag.clone());
            self.flags.entry(flag().key.clone()).or_insert_with(flag);
        }
        self
    }

    /// A flag, archived ones included.
    pub fn flag(&self, key: &str) -> Option<&Arc<FlagDefinition>> {
        self.flags.get(key)
    }

    /// Returns the segment with that key.
    pub fn segment(&self, key: &str) -> Option<&Segment> {
        self.segments.get(key)
    }

    /// All flags, by key.
    pub fn flags(&self) -> impl Iterator<Item = &Arc<FlagDefinition>> {
        self.flags.values()
    }

    /// All segments, by key.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// Whether a definition may take its place among these.
    ///
    /// # Errors
    /// Every field that does not hold, by itself or because of the others.
    pub fn check_flag(&self, flag: &FlagDefinition) -> Result<(), Invalid> {
        let mut check = Check::new();
        check.take(flag.check());
        self.check_segments(&mut check, flag);
        self.check_dependents(&mut check, flag);
        let sound = self.check_prerequisites(&mut check, flag);
        if sound && flag.lifecycle != Lifecycle::Archived {
            self.check_size(&mut check, flag);
        }
        check.verdict()
    }

    /// The flags whose rules name a segment; it cannot go while there are any.
    pub fn users_of(&self, segment: &str) -> Vec<&str> {
        let names = |condition: &Condition| match condition {
            Condition::Segment { segment: named, .. } => named == segment,
            Condition::Attribute { .. } => false,
        };
        let uses = |flag: &&Arc<FlagDefinition>| flag.rules.iter().any(|rule| rule.when.iter().any(names));
        self.flags().filter(uses).map(|flag| flag.key.as_str()).collect()
    }

    fn check_segments(&self, check: &mut Check, flag: &FlagDefinition) {
        for (rule_index, rule) in flag.rules.iter().enumerate() {
            for (index, condition) in rule.when.iter().enumerate() {
                if let Condition::Segment { segment, .. } = condition
                    && !self.segments.contains_key(segment)
                {
                    let pointer = format!("/rules/{rule_index}/when/{index}/segment");
                    check.fail(&pointer, "unknown_segment", "there is no such segment");
                }
            }
        }
    }

    /// What other flags need of this one stays there.
    fn check_dependents(&self, check: &mut Check, flag: &FlagDefinition) {
        let in_use = self
            .flags()
            .filter(|other| other.lifecycle != Lifecycle::Archived && other.key != flag.key);
        for (other, needed) in
            in_use.flat_map(|other| other.prerequisites.iter().map(move |needed| (other, needed)))
        {
            if needed.flag != flag.key {
                continue;
            }
            if flag.lifecycle == Lifecycle::Archived {
                let detail = format!("the flag `{}` needs this one", other.key);
                check.fail("/lifecycle", "flag_in_use", detail);
            } else if !flag.variants.contains_key(&needed.variant) {
                let detail = format!("the flag `{}` needs the variant `{}`", other.key, needed.variant);
                check.fail("/variants", "variant_in_use", detail);
            }
        }
    }

    /// Whether prerequisites are there and lead to an end.
    fn check_prerequisites(&self, check: &mut Check, flag: &FlagDefinition) -> bool {
        let mut sound = true;
        for (index, needed) in flag.prerequisites.iter().enumerate() {
            let mut fail = |member: &str, code, detail| {
                sound = false;
                check.fail(&format!("/prerequisites/{index}{member}"), code, detail);
            };
            if needed.flag == flag.key || self.leads_to(&needed.flag, &flag.key) {
                fail("/flag", "cycle", "must not lead back to this flag");
                continue;
            }
            match self.flag(&needed.flag) {
                Some(other) if other.lifecycle == Lifecycle::Archived => {
                    fail("/flag", "unknown_flag", "is archived");
                }
                Some(other) if !other.variants.contains_key(&needed.variant) => {
                    fail(
                        "/variant",
                        "unknown_variant",
                        "must be one of the variants of that flag",
                    );
                }
                Some(_) => {}
                None => fail("/flag", "unknown_flag", "there is no such flag"),
            }
        }
        sound
    }

    fn leads_to(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(key) = open.pop() {
            if key == to {
                return true;
            }
            if let (Some(flag), true) = (self.flag(key), seen.insert(key)) {
                open.extend(flag.prerequisites.iter().map(|needed| needed.flag.as_str()));
            }
        }
        false
    }

    /// No flag may need too many others, this one or one that needs it. There are no cycles any more.
    fn check_size(&self, check: &mut Check, flag: &FlagDefinition) {
        let mut known = BTreeMap::new();
        let others = self
            .flags()
            .filter(|other| other.key != flag.key)
            .map(Arc::as_ref);
        for one in others.chain([flag]) {
            let (depth, evaluations) = self.size(one, flag, &mut known);
            if depth > MAX_DEPTH || evaluations > MAX_EVALUATIONS {
                let detail = format!(
                    "`{}` would stand on {depth} flags one behind the other and take {evaluations} evaluations; \
                     {MAX_DEPTH} and {MAX_EVALUATIONS} are allowed",
                    one.key
                );
                check.fail("/prerequisites", "too_deep", detail);
                return;
            }
        }
    }

    fn size<'a>(
        &'a self,
        one: &'a FlagDefinition,
        changed: &'a FlagDefinition,
        known: &mut BTreeMap<&'a str, (usize, usize)>,
    ) -> (usize, usize) {
        if let Some(size) = known.get(one.key.as_str()) {
            return *size;
        }
        // What is stored ought to have no cycle. Should it have one all the same, this ends it.
        known.insert(&one.key, (0, 1));
        let mut size = (0, 1);
        for needed in &one.prerequisites {
            let other = if needed.flag == changed.key {
                Some(changed)
            } else {
                self.flag(&needed.flag).map(Arc::as_ref)
            };
            if let Some(other) = other {
                let (depth, evaluations) = self.size(other, changed, known);
                size = (size.0.max(depth + 1), size.1 + evaluations);
            }
        }
        known.insert(&one.key, size);
        size
    }
}

/// Changing definitions, in a transaction of an operator's.
#[async_trait]
pub trait FlagEditing: Send {
    /// All definitions, archived ones included. Nobody else changes any until the transaction ends: whether one may be
    /// changed depends on the others.
    async fn catalogue_for_update(&mut self) -> Result<FlagCatalogue, StoreError>;

    /// Stores a flag as the next version of itself, or the first.
    async fn store_flag(&mut self, flag: &FlagDefinition, at: Time) -> Result<(), StoreError>;

    /// Versions of a flag, newest first, from below version `before` on.
    async fn flag_versions(
        &mut self,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<FlagVersion>, StoreError>;

    /// Returns the version of a flag with that number, from 1.
    async fn flag_version(&mut self, key: &str, version: i64) -> Result<Option<FlagVersion>, StoreError>;

    /// Stores a segment as the next version of itself, or the first.
    async fn store_segment(&mut self, segment: &Segment, at: Time) -> Result<(), StoreError>;

    /// Removes a segment, which is the version of that number.
    async fn delete_segment(&mut self, key: &str, version: i64, at: Time) -> Result<(), StoreError>;

    /// Versions of a segment, deleted ones included, newest first, from below version `before` on.
    async fn segment_versions(
        &mut self,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SegmentVersion>, StoreError>;

    /// Returns the version of a segment with that number, from 1.
    async fn segment_version(
        &mut self,
        key: &str,
        version: i64,
    ) -> Result<Option<SegmentVersion>, StoreError>;
}

/// A flag as it was.
pub type FlagVersion = DefinitionVersion<FlagDefinition>;

/// A segment as it was; `None` where it was deleted.
pub type SegmentVersion = DefinitionVersion<Option<Segment>>;

/// What an operator defined, as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinitionVersion<T> {
    /// The number of the version, from 1.
    pub version: i64,
    /// The definition then.
    pub definition: T,
    /// Who made it so; `None` for a command on the server.
    pub operator: Option<OperatorId>,
    /// When.
    pub created_at: Time,
}

/// What the tenant's admins have chosen, of the scope's tenant.
#[async_trait]
pub trait FlagOverrides: Send {
    /// All of them, by key of the flag.
    async fn list(&mut self) -> Result<Vec<FlagOverride>, StoreError>;

    /// The one of a flag, which stays as it is until the transaction ends.
    async fn find_for_update(&mut self, flag: &str) -> Result<Option<FlagOverride>, StoreError>;

    /// Adds one.
    async fn insert(&mut self, chosen: &FlagOverride) -> Result<(), StoreError>;

    /// Stores a changed one.
    async fn update(&mut self, chosen: &FlagOverride) -> Result<(), StoreError>;

    /// Removes the one of a flag.
    async fn delete(&mut self, flag: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flags::{Comparator, FlagRule, Prerequisite};
    use crate::kernel::Level;

    fn flag(key: &str, needs: &[&str]) -> FlagDefinition {
        let prerequisites = needs.iter().map(|other| Prerequisite {
            flag: (*other).to_owned(),
            variant: "on".to_owned(),
        });
        FlagDefinition {
            prerequisites: prerequisites.collect(),
            ..FlagDefinition::boolean(key, "")
        }
    }

    fn errors(catalogue: &FlagCatalogue, flag: &FlagDefinition) -> Vec<(String, &'static str)> {
        catalogue.check_flag(flag).map_or_else(
            |invalid| {
                invalid
                    .0
                    .into_iter()
                    .map(|error| (error.pointer, error.code))
                    .collect()
            },
            |()| Vec::new(),
        )
    }

    fn one(pointer: &str, code: &'static str) -> Vec<(String, &'static str)> {
        vec![(pointer.to_owned(), code)]
    }

    #[test]
    fn prerequisites_are_there_and_lead_to_an_end() {
        let archived = FlagDefinition {
            lifecycle: Lifecycle::Archived,
            ..flag("gone", &[])
        };
        let catalogue = FlagCatalogue::new(
            [flag("a", &[]), flag("b", &["a"]), flag("c", &["b"]), archived],
            [],
        );
        assert_eq!(errors(&catalogue, &flag("d", &["c"])), []);
        assert_eq!(
            errors(&catalogue, &flag("a", &["c"])),
            one("/prerequisites/0/flag", "cycle")
        );
        assert_eq!(
            errors(&catalogue, &flag("n", &["n"])),
            one("/prerequisites/0/flag", "cycle")
        );
        assert_eq!(
            errors(&catalogue, &flag("d", &["a", "x"])),
            one("/prerequisites/1/flag", "unknown_flag")
        );
        assert_eq!(
            errors(&catalogue, &flag("d", &["gone"])),
            one("/prerequisites/0/flag", "unknown_flag")
        );
        let mut wrong = flag("d", &["a"]);
        wrong.prerequisites[0].variant = "blue".to_owned();
        assert_eq!(
            errors(&catalogue, &wrong),
            one("/prerequisites/0/variant", "unknown_variant")
        );
    }

    #[test]
    fn what_others_need_cannot_go() {
        let catalogue = FlagCatalogue::new([flag("a", &[]), flag("b", &["a"])], []);
        let mut renamed = flag("a", &[]);
        let on = renamed.variants.remove("on").unwrap();
        renamed.variants.insert("yes".to_owned(), on);
        assert_eq!(errors(&catalogue, &renamed), one("/variants", "variant_in_use"));
        let archived = FlagDefinition {
            lifecycle: Lifecycle::Archived,
            ..flag("a", &[])
        };
        assert_eq!(errors(&catalogue, &archived), one("/lifecycle", "flag_in_use"));
    }

    #[test]
    fn chains_have_an_end_and_trees_a_size() {
        let key = |number: usize| format!("f{number}");
        let chain = (0..=MAX_DEPTH).map(|number| match number {
            0 => flag("f0", &[]),
            number => flag(&key(number), &[&key(number - 1)]),
        });
        let catalogue = FlagCatalogue::new(chain, []);
        let last = key(MAX_DEPTH);
        assert_eq!(
            errors(&catalogue, &flag("one-more", &[&last])),
            one("/prerequisites", "too_deep")
        );
        // The one at the bottom must not stand on another either.
        let longer = FlagCatalogue::new(
            catalogue
                .flags()
                .map(|flag| (**flag).clone())
                .chain([flag("x", &[])]),
            [],
        );
        assert_eq!(
            errors(&longer, &flag("f0", &["x"])),
            one("/prerequisites", "too_deep")
        );
        let names: Vec<_> = (0..10).map(|number| format!("l{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let wide = names
            .iter()
            .map(|name| flag(name, &[]))
            .chain([flag("w", &names)]);
        let wide = FlagCatalogue::new(
            wide.chain((0..10).map(|number| flag(&format!("m{number}"), &["w"]))),
            [],
        );
        let all: Vec<_> = (0..10).map(|number| format!("m{number}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        assert_eq!(
            errors(&wide, &flag("top", &all)),
            one("/prerequisites", "too_deep")
        );
    }

    #[test]
    fn segments_are_there_and_known_to_be_used() {
        let rule = FlagRule::variant(Level::Global, "on").when(Condition::segment("beta"));
        let flag = FlagDefinition::boolean("a", "").with_rule(rule);
        assert_eq!(
            errors(&FlagCatalogue::default(), &flag),
            one("/rules/0/when/0/segment", "unknown_segment")
        );
        let segment = Segment {
            key: "beta".to_owned(),
            description: String::new(),
            when: vec![Condition::attribute("country", Comparator::In, ["de".into()])],
            version: 1,
        };
        segment.check().unwrap();
        let catalogue = FlagCatalogue::new([], [segment]);
        assert_eq!(errors(&catalogue, &flag), []);
        assert_eq!(FlagCatalogue::new([flag], []).users_of("beta"), ["a"]);
    }

    #[test]
    fn what_comes_with_the_code_is_there_until_somebody_defines_it() {
        let of_code = [
            flag("a", &[]),
            FlagDefinition {
                enabled: false,
                ..flag("b", &[])
            },
        ];
        let catalogue = FlagCatalogue::new([flag("b", &[])], []).over(&of_code);
        assert!(catalogue.flag("a").is_some());
        assert!(catalogue.flag("b").unwrap().enabled);
    }

    proptest! {
        /// Whatever is accepted one after the other, in whatever order, has no cycle.
        #[test]
        fn no_order_of_writes_makes_a_cycle(writes in proptest::collection::vec((0_usize..6, proptest::collection::vec(0_usize..6, 0..3)), 1..40)) {
            let key = |number: &usize| format!("f{number}");
            let mut catalogue = FlagCatalogue::new((0..6).map(|number| flag(&key(&number), &[])), []);
            for (number, needs) in writes {
                let needs: Vec<_> = needs.iter().map(key).collect();
                let needs: Vec<_> = needs.iter().map(String::as_str).collect();
                let next = flag(&key(&number), &needs);
                if catalogue.check_flag(&next).is_ok() {
                    catalogue.flags.insert(next.key.clone(), Arc::new(next));
                }
            }
            for one in catalogue.flags() {
                for needed in &one.prerequisites {
                    prop_assert!(!catalogue.leads_to(&needed.flag, &one.key));
                }
            }
        }
    }
}
