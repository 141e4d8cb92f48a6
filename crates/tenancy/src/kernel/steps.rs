//! Steps at which something that is repeated is recorded: 1, 2 or 5 times a power of ten. So the number of records grows with the
//! logarithm of what happens.

/// The highest step that a count has reached, from the first one on; 0 below that.
pub(crate) fn step_of(count: u64, first: u64) -> u64 {
    if count < first {
        return 0;
    }
    let power = 10_u64.pow(count.ilog10());
    let step = match count / power {
        0..=1 => power,
        2..=4 => 2 * power,
        _ => 5 * power,
    };
    step.max(first)
}

/// Whether a count that grows passes a step.
pub(crate) fn passes_step(before: u64, after: u64, first: u64) -> bool {
    step_of(after, first) > step_of(before, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_two_and_five_times_powers_of_ten() {
        let steps: Vec<_> = (0..1_000)
            .filter(|count| passes_step(*count, count + 1, 5))
            .collect();
        assert_eq!(steps, [4, 9, 19, 49, 99, 199, 499, 999]);
        assert_eq!(
            (step_of(0, 5), step_of(4, 5), step_of(7, 7), step_of(8, 7)),
            (0, 0, 7, 7)
        );
        assert!(step_of(u64::MAX, 10) > 0);
        assert!(!passes_step(3, 3, 1));
    }
}
