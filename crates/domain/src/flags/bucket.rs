//! In which part of a percentage somebody is: the same one each time, everywhere, without anything being stored.

/// All of them: percentages are counted in hundredths of a percent.
pub const WHOLE: u16 = 10_000;

/// Where somebody stands among ten thousand, 0 to 9,999.
///
/// `bucket = (u64(murmur3_x86_32("{salt}:{stickiness}", seed 0)) * 10_000) >> 32`. The formula is frozen: with another
/// one everybody would stand elsewhere, and whoever has a feature at 20 % could lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// Where whoever `stickiness` stands for is, in what `salt` stands for. Two salts are independent of each other.
    pub fn of(salt: &str, stickiness: &str) -> Self {
        let hash = murmur3_x86_32(salt.bytes().chain([b':']).chain(stickiness.bytes()));
        let scaled = (u64::from(hash) * u64::from(WHOLE)) >> 32;
        Self(u16::try_from(scaled).unwrap_or(WHOLE - 1))
    }

    /// Returns the position, 0 to 9,999.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// A part of all, in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

impl Share {
    /// Everybody.
    pub const ALL: Self = Self(WHOLE);

    /// So many hundredths of a percent; `None` for more than all.
    pub const fn of_basis_points(points: u16) -> Option<Self> {
        if points <= WHOLE { Some(Self(points)) } else { None }
    }

    /// A percentage with at most two decimal places; `None` for any other number.
    pub fn of_percent(percent: f64) -> Option<Self> {
        let points = percent * 100.0;
        let rounded = points.round();
        // Two decimal places have no exact form in binary: 12.34 times 100 is not quite 1234.
        let holds = (0.0..=f64::from(WHOLE)).contains(&rounded) && (points - rounded).abs() < 1e-6;
        // The cast cannot truncate: the number is whole and in range.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "see above"
        )]
        holds.then_some(Self(rounded as u16))
    }

    /// In hundredths of a percent.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// Returns 0.0 to 100.0, with at most two decimal places.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// `MurmurHash3_x86_32` with the seed 0, by Austin Appleby, in the public domain:
/// <https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>.
fn murmur3_x86_32(mut bytes: impl Iterator<Item = u8>) -> u32 {
    let scramble = |block: u32| {
        block
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let (mut hash, mut length) = (0_u32, 0_u32);
    loop {
        let (mut block, mut taken) = (0_u32, 0_u32);
        for byte in bytes.by_ref().take(4) {
            block |= u32::from(byte) << (8 * taken);
            taken += 1;
        }
        length = length.wrapping_add(taken);
        hash ^= scramble(block);
        if taken < 4 {
            break;
        }
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        let hash = |text: &str| murmur3_x86_32(text.bytes());
        assert_eq!((hash(""), hash("hello")), (0, 613_153_351));
        // The vectors of Unleash's client specification are of the same hash: modulo 100, plus 1.
        let unleash = |text: &str| hash(text) % 100 + 1;
        for (text, normalized) in [
            ("demo:user-1", 95),
            ("demo:user-2", 96),
            ("demo:user-7", 81),
            ("demo:user-42", 87),
            ("demo:alice", 32),
            ("demo:bob", 76),
            ("Feature.flexibleRollout.10:174", 10),
            ("Feature.flexibleRollout.10:499", 32),
            ("Feature.flexibleRollout.userId.55:25", 55),
        ] {
            assert_eq!(unleash(text), normalized, "{text}");
        }
    }

    #[test]
    fn the_bucket_is_frozen() {
        for (salt, stickiness, bucket) in [
            ("new_checkout", "tenant_1", 1353),
            ("new_checkout", "user-123", 6706),
        ] {
            assert_eq!(Bucket::of(salt, stickiness).number(), bucket);
        }
        assert_eq!(murmur3_x86_32("new_checkout:tenant_1".bytes()), 581_436_814);
        assert_eq!(murmur3_x86_32("new_checkout:user-123".bytes()), 2_880_407_401);
    }

    #[test]
    fn a_share_is_a_percentage_with_two_decimal_places() {
        for (percent, points) in [
            (0.0, 0),
            (0.01, 1),
            (12.34, 1234),
            (33.33, 3333),
            (99.99, 9999),
            (100.0, 10_000),
        ] {
            assert_eq!(Share::of_percent(percent).map(Share::basis_points), Some(points));
        }
        for percent in [
            -0.01,
            100.01,
            0.001,
            33.333,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e300,
        ] {
            assert_eq!(Share::of_percent(percent), None, "{percent}");
        }
        assert_eq!(Share::of_basis_points(10_001), None);
    }

    #[test]
    fn buckets_are_evenly_filled() {
        let mut tenths = [0_u32; 10];
        for number in 0..100_000 {
            tenths[usize::from(Bucket::of("even", &format!("tenant-{number}")).number() / 1_000)] += 1;
        }
        // Ten times the standard deviation (95) would still pass; a skewed hash would not.
        assert!(
            tenths.iter().all(|count| count.abs_diff(10_000) < 500),
            "{tenths:?}"
        );
    }

    proptest! {
        #[test]
        fn a_bucket_is_one_of_ten_thousand_and_always_the_same(salt in ".*", stickiness in ".*") {
            let bucket = Bucket::of(&salt, &stickiness);
            prop_assert!(bucket.number() < WHOLE);
            prop_assert_eq!(bucket, Bucket::of(&salt, &stickiness));
        }

        #[test]
        fn every_share_survives_being_written_as_a_percentage(points in 0..=WHOLE) {
            let share = Share::of_basis_points(points).unwrap();
            prop_assert_eq!(Share::of_percent(share.percent()), Some(share));
        }
    }
}
