use crate::kernel::name::named_enum;

named_enum! {
    /// Where a value of the configuration comes from. A later level is more specific and wins over the ones before it.
    #[derive(PartialOrd, Ord)]
    pub enum Level {
        /// What the definition itself says.
        Default = "default",
        /// What the operator says for everybody.
        Global = "global",
        /// What the tenant's plan says.
        Plan = "plan",
        /// What the tenant says.
        Tenant = "tenant",
        /// What is said of one user of the tenant.
        User = "user",
    }
}

impl Level {
    /// The levels of a flag's rules: all but the default, which is the flag's `default_variant`.
    pub const OF_RULES: [Self; 4] = [Self::Global, Self::Plan, Self::Tenant, Self::User];
}

/// A value, the level that it comes from, and what every level had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<V> {
    /// What holds.
    pub value: V,
    /// The level that won.
    pub level: Level,
    /// What was considered, the least specific level first; `None` where a level says nothing.
    pub considered: Vec<(Level, Option<V>)>,
}

/// What holds when `default` and these levels are asked: the value of the most specific level that has one.
///
/// The order of `levels` does not matter. Of two values for one level the later one counts.
pub fn resolve<V: Clone>(default: V, levels: impl IntoIterator<Item = (Level, Option<V>)>) -> Resolved<V> {
    let mut considered = vec![(Level::Default, Some(default.clone()))];
    considered.extend(levels);
    considered.sort_by_key(|(level, _)| *level);
    let winner = considered
        .iter()
        .rev()
        .find_map(|(level, value)| Some((*level, value.clone()?)));
    let (level, value) = winner.unwrap_or((Level::Default, default));
    Resolved {
        value,
        level,
        considered,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 4] = [Level::Global, Level::Plan, Level::Tenant, Level::User];

    #[test]
    fn the_default_holds_where_nobody_says_anything() {
        let resolved = resolve(1, LEVELS.map(|level| (level, None)));
        assert_eq!((resolved.value, resolved.level), (1, Level::Default));
        assert_eq!(resolved.considered.len(), 5);
    }

    proptest! {
        #[test]
        fn the_most_specific_level_that_speaks_wins_in_any_order(
            said in proptest::array::uniform4(proptest::option::of(0_u8..9)),
            order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let levels = order.iter().map(|place| (LEVELS[*place], said[*place]));
            let resolved = resolve(100, levels);
            let winner = (0..4).rev().find_map(|place| Some((said[place]?, LEVELS[place])));
            prop_assert_eq!((resolved.value, resolved.level), winner.unwrap_or((100, Level::Default)));
            prop_assert!(resolved.considered.is_sorted_by_key(|(level, _)| *level));
        }
    }
}
