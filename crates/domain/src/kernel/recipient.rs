//! Lines that nobody can break out of, and for whom a mail is written.

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

    /// A name as mail to a stranger shows it, short, and so that mail programs find neither a link nor a telephone number in
    /// it: the sender chooses the name, and the recipient may not know the sender. What separates the parts of a link becomes
    /// a space, a space follows each dot, and the digits of more than a year are left out.
    pub fn of_stranger(name: &str) -> Self {
        let has_number = name.chars().filter(|c| c.is_numeric()).count() > Self::MOST_DIGITS;
        let mut plain = String::with_capacity(name.len());
        for c in name.chars() {
            match c {
                '.' | '\u{2024}' | '\u{3002}' | '\u{FE52}' | '\u{FF0E}' | '\u{FF61}' => plain.push_str(". "),
                c if separates(c) => plain.push(' '),
                c if c.is_numeric() && has_number => {}
                c => plain.push(c),
            }
        }
        let line = Self::within(&plain, Self::SHORT);
        if line.0.is_empty() { Self("-".into()) } else { line }
    }

    /// The most digits in a name that a stranger reads.
    const MOST_DIGITS: usize = 6;

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
pub struct Recipient {
    /// What they are called.
    pub name: Line,
    /// What their tenant is called.
    pub tenant: Line,
    /// The tenant's time zone, in which moments are shown; see [`wall_clock`](crate::kernel::wall_clock).
    pub zone: String,
    /// Where they go to act.
    pub app_url: Line,
}

impl Recipient {
    /// Returns the subject of a mail about something, with the name of the tenant.
    pub fn subject(&self, about: &str) -> Line {
        let tenant = Line::within(self.tenant.as_str(), Line::SHORT);
        Line::of(&format!("[{tenant}] {about}"))
    }
}

/// What separates the parts of a link or address, or encloses a text: in ASCII, and what looks like it.
fn separates(c: char) -> bool {
    matches!(c, '/' | ':' | '@' | '\\' | '[' | ']' | '<' | '>' | '"')
        || matches!(c, '\u{2044}' | '\u{2215}' | '\u{2236}' | '\u{29F8}' | '\u{A789}')
        || matches!(
            c,
            '\u{FE13}' | '\u{FE55}' | '\u{FE6B}' | '\u{FF0F}' | '\u{FF1A}' | '\u{FF20}' | '\u{FF3C}'
        )
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

    #[test]
    fn names_of_strangers_hold_no_link_and_no_number() {
        for (name, shown) in [
            ("Acme Inc.", "Acme Inc."),
            ("Acme 2026", "Acme 2026"),
            ("https://evil.example/x", "https evil. example x"),
            ("www\u{FF0E}evil\u{3002}example", "www. evil. example"),
            ("https\u{FF1A}\u{FF0F}\u{FF0F}evil", "https evil"),
            ("mail eve@example.com", "mail eve example. com"),
            ("] Call +1 800 555 0100 [", "Call +"),
            ("://", "-"),
        ] {
            assert_eq!(Line::of_stranger(name).as_str(), shown, "{name}");
        }
        assert!(Line::of_stranger(&"x ".repeat(500)).as_str().chars().count() <= Line::SHORT);
    }

    proptest! {
        #[test]
        fn no_name_of_a_stranger_is_a_link(name in "[a-z0-9./:@\\[\\]+ -]{0,80}") {
            let line = Line::of_stranger(&name);
            let text = line.as_str();
            prop_assert!(!text.contains(['/', ':', '@', '[', ']']), "{}", text);
            let next = text.split('.').skip(1).all(|rest| rest.is_empty() || rest.starts_with([' ', '…']));
            prop_assert!(next, "{}", text);
        }

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
