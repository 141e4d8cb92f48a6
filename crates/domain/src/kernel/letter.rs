//! Mails in words, and the lines that nobody can break out of.

use serde::Serialize;

/// One line of text, whatever it was made of: control characters, line and paragraph separators become a
/// space, the marks with which Unicode turns the direction of what follows are left out, and what is too long
/// is cut. So nothing that somebody chose can begin another header, or make a line read as another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Line(String);

impl Line {
    /// The most characters of a line; what is longer ends with `…`.
    pub const LONGEST: usize = 200;

    /// The most characters of a name within another line, such as a subject.
    pub const SHORT: usize = 60;

    /// The text as one line.
    pub fn of(text: &str) -> Self {
        Self::within(text, Self::LONGEST)
    }

    /// The same with at most so many characters; at least 1.
    pub fn within(text: &str, longest: usize) -> Self {
        let plain = text
            .chars()
            .filter(|c| !turns_direction(*c))
            .map(|c| if breaks_line(c) { ' ' } else { c });
        let plain: String = plain.collect();
        let words: Vec<&str> = plain.split_whitespace().collect();
        let line = words.join(" ");
        if line.chars().count() <= longest {
            return Self(line);
        }
        let kept: String = line.chars().take(longest.max(1) - 1).collect();
        Self(format!("{}…", kept.trim_end()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// For whom a mail is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// What they are called.
    pub name: Line,
    /// What their tenant is called.
    pub tenant: Line,
    /// The tenant's time zone, in which moments are shown; see [`wall_clock`](crate::kernel::wall_clock).
    pub zone: String,
    /// Where they go to act.
    pub app_url: Line,
}

impl Reader {
    /// The subject of a mail about something, with the name of the tenant.
    pub(crate) fn subject(&self, about: &str) -> Line {
        let tenant = Line::within(self.tenant.as_str(), Line::SHORT);
        Line::of(&format!("[{tenant}] {about}"))
    }
}

/// A mail in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// What it is about.
    pub subject: Line,
    /// What it says; lines end with a line feed.
    pub text: String,
}

fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The explicit formatting characters of Unicode's bidirectional algorithm (UAX #9, section 2). Letters that
/// are written from right to left need none of them.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_one_line() {
        for (text, line) in [
            ("Acme Inc", "Acme Inc"),
            ("  Acme\tInc \n", "Acme Inc"),
            ("Acme\r\nBcc: eve@example.com", "Acme Bcc: eve@example.com"),
            ("a\u{2028}b\u{2029}c\u{85}d\0e\u{b}f", "a b c d e f"),
            ("\u{202E}moc.elpmaxe\u{202C}", "moc.elpmaxe"),
            ("שלום עולם", "שלום עולם"),
            ("<script>", "<script>"),
            ("", ""),
        ] {
            assert_eq!(Line::of(text).as_str(), line, "{text:?}");
        }
        let long = Line::of(&"ab ".repeat(4_000));
        assert!(long.as_str().chars().count() <= Line::LONGEST && long.as_str().ends_with('…'));
        assert_eq!(Line::within("abcdef", 3).as_str(), "ab…");
    }

    proptest! {
        #[test]
        fn nothing_in_a_line_ends_it_or_turns_it(text: String, longest in 1_usize..50) {
            for line in [Line::of(&text), Line::within(&text, longest)] {
                prop_assert!(!line.as_str().contains(|c| breaks_line(c) || turns_direction(c)));
                prop_assert!(line.as_str().chars().count() <= Line::LONGEST);
                prop_assert_eq!(Line::of(line.as_str()), line);
            }
            prop_assert!(Line::within(&text, longest).as_str().chars().count() <= longest);
        }
    }
}
