//! The form in which passwords are judged, and the rule that keeps the names of an account out of them.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Words of fewer characters are in too many good passwords to be refused.
const SHORTEST_WORD: usize = 4;

/// A whole name of so many letters is found also where separators, digits or accents differ. Shorter ones would be found by chance
/// across the words of a phrase: `near` in `fine art`.
const SHORTEST_SPELLED: usize = 8;

/// How many letters or digits a password has beside the words of names that it contains.
const REST: usize = 8;

/// Returns what is wrong with a normalized password that contains names, in words for its user; `None` when nothing is. The names are
/// those that an attacker of the account tries first. Of a mail address the part before the `@` is a name, too.
///
/// - It contains no whole name of 4 or more characters, whatever the case. A name of 8 or more letters is also found with other
///   separators, digits or accents, or without them.
/// - Names without their separators, and each of their words, may be in it from 4 letters on, if at least 8 letters or digits remain
///   when all of these are taken out: a short common word in a name refuses no long phrase.
pub(super) fn fault<'a>(password: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let (text, letters) = (folded(password), letters(password));
    let mut words = Vec::new();
    for name in names {
        let local = name.split('@').next().unwrap_or(name);
        for whole in [local, name] {
            if contains_whole((&text, &letters), whole) {
                return Some(format!("must not contain '{}'", folded(whole)));
            }
        }
        words.extend(words_of(local));
    }
    let digits = text.chars().filter(|character| character.is_numeric()).count();
    let (rest, found) = without(letters, words);
    let is_name = !found.is_empty() && rest + digits < REST;
    is_name.then(|| {
        format!(
            "must have at least {REST} letters or digits beside '{}'",
            found.join("', '")
        )
    })
}

/// Returns a text in the form in which passwords are judged and hashed: NFKC, after NIST SP 800-63B section 5.1.1.2, so that
/// it does not matter how a keyboard writes an accent.
pub fn normalized(text: &str) -> String {
    text.nfkc().collect()
}

/// A normalized text without case. Lower case of a few characters is not normalized again.
fn folded(text: &str) -> String {
    normalized(&normalized(text).to_lowercase())
}

/// Whether a password, folded and as its letters alone, contains a whole name.
fn contains_whole((text, spelled): (&str, &str), name: &str) -> bool {
    let (typed, name) = (folded(name), letters(name));
    let is_typed = typed.chars().count() >= SHORTEST_WORD && text.contains(&typed);
    is_typed || (name.chars().count() >= SHORTEST_SPELLED && spelled.contains(&name))
}

/// The words of a name, and all of it without separators, as letters.
fn words_of(name: &str) -> Vec<String> {
    let is_separator = |character: char| !character.is_alphabetic() && !is_combining_mark(character);
    let words = name.split(is_separator).chain([name]).map(letters);
    words
        .filter(|word| word.chars().count() >= SHORTEST_WORD)
        .collect()
}

/// Takes words out of letters, the longest ones first. Returns how many letters remain, and the words that were there.
fn without(mut letters: String, mut words: Vec<String>) -> (usize, Vec<String>) {
    words.sort_by(|one, other| (other.chars().count(), one).cmp(&(one.chars().count(), other)));
    words.dedup();
    // It stays in the place of a word, so that what stood around it makes no further one.
    let place = '\0';
    words.retain(|word| {
        let is_there = letters.contains(word);
        if is_there {
            letters = letters.replace(word, "\0");
        }
        is_there
    });
    let rest = letters.chars().filter(|letter| *letter != place).count();
    (rest, words)
}

/// The letters of a text, without case and accents.
fn letters(text: &str) -> String {
    let folded = folded(text);
    let decomposed = folded.nfd().filter(|character| !is_combining_mark(*character));
    let composed = decomposed.nfc();
    composed.filter(|character| character.is_alphabetic()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = [
        "moonbase-station",
        "Moonbase Station",
        "ada.lovelace@moon.example",
        "Ada Lovelace",
    ];

    fn judged(password: &str) -> Option<String> {
        fault(password, NAMES.into_iter())
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        for text in [
            "AdaLovelace2026",
            "Ada-Lovelace-2026",
            "ada_lovelace_1",
            "ada1lovelace1815",
            "I am Ada Lovelace from the moon",
            "my name is ada...LOVELACE of London",
            "a\u{301}da lovela\u{327}ce",
            "moonbasestation",
            "MoonbaseStation1",
            "the moonbase 77 station of mine",
        ] {
            let fault = judged(text).unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(fault.starts_with("must not contain '"), "{text}: {fault}");
        }
    }

    #[test]
    fn words_of_names_need_eight_other_characters() {
        for (text, word) in [
            ("Lovelace2026!", "'lovelace'"),
            ("lovelace1815", "'lovelace'"),
            ("lovelace.ada1", "'lovelace'"),
            ("Moonbase2026!", "'moonbase'"),
            ("L-o-v-e-l-a-c-e 1815", "'lovelace'"),
            ("station and moonbase", "'moonbase', 'station'"),
            ("moonbase 1234567", "'moonbase'"),
        ] {
            let expected = format!("must have at least 8 letters or digits beside {word}");
            assert_eq!(judged(text), Some(expected), "{text}");
        }
        for text in [
            "moonbase 12345678",
            "station wagon trips",
            "the station of my childhood",
            "canada maple",
            "correct horse",
        ] {
            assert_eq!(judged(text), None, "{text}");
        }
    }

    /// Short names of two words are no words of their own.
    #[test]
    fn short_names_are_found_without_their_separator() {
        let judged = |text: &str| fault(text, ["Ada Lee"].into_iter());
        assert!(judged("AdaLee2026!!").is_some());
        assert!(judged("ada7lee7 2026").is_some());
        assert_eq!(judged("fleeing canada"), None);
        assert_eq!(judged("adalee and a good horse"), None);
        assert_eq!(fault("a fine art gallery", ["Near"].into_iter()), None);
        assert_eq!(fault("a fine art gallery", ["An of it"].into_iter()), None);
    }

    /// A word in any case, with separators between any two letters.
    fn written(word: &'static str) -> impl Strategy<Value = String> {
        let letter = (any::<bool>(), "[-_. 0-9]?");
        prop::collection::vec(letter, word.len()).prop_map(move |how| {
            let letters = word.chars().zip(how);
            let each = letters.map(|(letter, (upper, between))| {
                let letter = if upper {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                };
                format!("{letter}{between}")
            });
            each.collect()
        })
    }

    proptest! {
        #[test]
        fn whole_names_are_refused_in_any_phrase(
            before in "[a-z ]{0,20}",
            name in prop_oneof![written("adalovelace"), written("moonbasestation")],
            after in "[a-z ]{0,20}",
        ) {
            let text = format!("{before}{name}{after}");
            prop_assert!(judged(&text).is_some(), "{}", text);
        }

        #[test]
        fn words_of_names_with_little_else_are_refused(
            word in prop_oneof![Just("lovelace"), Just("LOVELACE"), Just("Moonbase"), Just("station")],
            rest in "[0-9qxz]{0,7}",
            ends in "[-_.!? ]{0,8}",
        ) {
            for text in [format!("{word}{ends}{rest}"), format!("{rest}{ends}{word}")] {
                prop_assert!(judged(&text).is_some(), "{}", text);
            }
        }

        #[test]
        fn words_of_names_beside_enough_else_are_accepted(
            word in prop_oneof![Just("lovelace"), Just("Moonbase"), Just("station"), Just("ada")],
            rest in "[0-9qxz]{8,30}",
            ends in "[-_.!? ]{0,8}",
        ) {
            for text in [format!("{word}{ends}{rest}"), format!("{rest}{ends}{word}")] {
                prop_assert_eq!(judged(&text), None, "{}", text);
            }
        }

        #[test]
        fn passwords_without_a_name_are_accepted(text in "[b-df-hj-kp-rt-z0-9 .-]{12,64}") {
            prop_assert_eq!(judged(&text), None);
        }
    }
}
