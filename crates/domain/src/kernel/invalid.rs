use std::ops::RangeInclusive;

/// One field that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request body, for example `/admin/email`.
    pub pointer: String,
    /// Stable machine name, for example `invalid_email`.
    pub code: &'static str,
    /// What is wrong and what would be right, for a person.
    pub detail: String,
}

/// Input that breaks at least one rule; says all that is wrong with it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid fields: {}", .0.len())]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// A single invalid field.
    pub fn one(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self(vec![FieldError {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }])
    }

    /// The same errors with `prefix` before each pointer: for input nested in other input.
    pub fn under(mut self, prefix: &str) -> Self {
        for error in &mut self.0 {
            error.pointer.insert_str(0, prefix);
        }
        self
    }
}

/// Collects the errors of several fields before it gives its verdict.
#[derive(Debug, Default)]
pub struct Check(Vec<FieldError>);

impl Check {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the verdict on some checks: `Check::all(|check| check.text("/text", text, 1..=1_000))?`.
    ///
    /// # Errors
    /// [`Invalid`] with each field error that they note.
    pub fn all(checks: impl FnOnce(&mut Self)) -> Result<(), Invalid> {
        let mut check = Self::new();
        checks(&mut check);
        check.verdict()
    }

    /// Notes one field error.
    pub fn fail(&mut self, pointer: &str, code: &'static str, detail: impl Into<String>) {
        self.0.push(FieldError {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        });
    }

    /// Notes a field error unless `holds`.
    pub fn require(&mut self, holds: bool, pointer: &str, code: &'static str, detail: &str) {
        if !holds {
            self.fail(pointer, code, detail);
        }
    }

    /// The value of a fallible field, or `None` with its errors noted.
    pub fn take<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| self.0.extend(invalid.0)).ok()
    }

    /// One line of text: see [`check_text`].
    pub fn line(&mut self, pointer: &str, text: &str, length: RangeInclusive<usize>) {
        if let Err(detail) = check_text(text, length, false) {
            self.fail(pointer, "invalid_text", detail);
        }
    }

    /// Text that may have several lines: see [`check_text`].
    pub fn text(&mut self, pointer: &str, text: &str, length: RangeInclusive<usize>) {
        if let Err(detail) = check_text(text, length, true) {
            self.fail(pointer, "invalid_text", detail);
        }
    }

    /// `Ok` when nothing was noted.
    pub fn verdict(self) -> Result<(), Invalid> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Invalid(self.0))
        }
    }
}

/// Whether `text` has a length (in characters) in `length`, and no control characters or noncharacters: PostgreSQL cannot
/// store U+0000, and the others only ever hurt (`several_lines` admits tab, line feed and carriage return). Names and reasons, which have
/// one line, have no embeddings, overrides or isolates of bidirectional text either: they would reorder what is shown behind them.
pub fn check_text(text: &str, length: RangeInclusive<usize>, several_lines: bool) -> Result<(), String> {
    let count = text.chars().count();
    if !length.contains(&count) {
        return Err(format!(
            "must have {} to {} characters, has {count}",
            length.start(),
            length.end()
        ));
    }
    if *length.start() > 0 && text.chars().all(is_invisible) {
        return Err("must not be blank".into());
    }
    let allowed = |c: char| !c.is_control() || (several_lines && matches!(c, '\n' | '\r' | '\t'));
    if !text.chars().all(allowed) {
        return Err("must not contain control characters".into());
    }
    if !several_lines && text.chars().any(reorders) {
        return Err("must not contain U+202A to U+202E or U+2066 to U+2069, which reorder text".into());
    }
    if text.chars().any(is_no_text) {
        return Err("must not contain noncharacters of Unicode or U+FFF9 to U+FFFB".into());
    }
    Ok(())
}

/// Whether a character is none of a text: the noncharacters, which Unicode reserves for use within programs, and the controls
/// of interlinear annotation, which hide what they enclose.
const fn is_no_text(c: char) -> bool {
    matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

/// Whether a character changes the order in which the characters behind it are shown (UAX 9, explicit formatting). The marks U+200E, U+200F and
/// U+061C are none: they say of themselves only in which direction they run.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character shows nothing: white space, control characters, what Unicode lets a reader leave out
/// (`Default_Ignorable_Code_Point`), and the blank pattern of Braille. Combining marks show something.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A name as a segment of a JSON pointer (RFC 6901 section 3).
pub fn pointer_segment(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Check {
    /// Notes an error when a field that may not be empty is patched with `null`.
    pub fn not_null<T>(&mut self, pointer: &str, patch: &crate::kernel::Patch<T>) {
        if matches!(patch, crate::kernel::Patch::Clear) {
            self.fail(pointer, "required", "must not be null");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn noncharacters_and_controls_of_annotation_and_order_are_refused() {
        let planes = (0..=16).flat_map(|plane: u32| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
        let refused: BTreeSet<u32> = planes.chain(0xfdd0..=0xfdef).chain(0xfff9..=0xfffb).collect();
        for code in (0..=0x10_ffff).filter(|code| *code >= 0x20 && !(0x7f..=0x9f).contains(code)) {
            let Some(c) = char::from_u32(code) else { continue };
            for several_lines in [false, true] {
                let checked = check_text(&format!("a{c}"), 1..=120, several_lines);
                let reorders = (0x202a..=0x202e).contains(&code) || (0x2066..=0x2069).contains(&code);
                assert_eq!(
                    checked.is_err(),
                    refused.contains(&code) || (reorders && !several_lines),
                    "U+{code:04X}: {checked:?}"
                );
            }
        }
    }

    #[test]
    fn name_that_reads_as_another_is_refused() {
        let told = check_text("fdp.\u{202e}exe", 1..=120, false).unwrap_err();
        assert!(told.contains("reorder text"), "{told}");
        assert!(check_text("a\u{85}b", 1..=120, false).is_err(), "C1");
        assert_eq!(check_text("שלום\u{200f} world", 1..=120, false), Ok(()));
    }

    #[test]
    fn text_of_invisible_characters_only_is_blank() {
        for text in [
            " ",
            "\u{200b}",
            "\u{200b}\u{200d}\u{feff}",
            "\u{3164}",
            "\u{2800}\u{2800}",
            "\u{ad}\u{a0}",
            "\u{202e}\u{2066}",
            "\u{e0041}\u{fe0f}",
            "\u{115f}\u{1160}",
        ] {
            assert_eq!(
                check_text(text, 1..=120, false),
                Err("must not be blank".into()),
                "{text:?}"
            );
        }
        for text in [
            "a",
            "\u{200b}a",
            "می\u{200c}خواهم",
            "👩\u{200d}💻",
            "☃\u{fe0f}",
            "\u{301}",
        ] {
            assert_eq!(check_text(text, 1..=120, false), Ok(()), "{text:?}");
        }
        assert_eq!(check_text("\u{200b}", 0..=120, false), Ok(()), "it may be empty");
    }
}
