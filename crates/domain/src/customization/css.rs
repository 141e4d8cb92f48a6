//! CSS that tenants write, reduced to what can do no harm in a page that others look at.
//!
//! What is let through is listed here: at-rules, selectors, properties, functions and units. Everything else is left out
//! and reported. What is let through is not copied but written anew from parsed tokens that are plain: there are no escapes,
//! no comments and no characters outside of a small part of ASCII in the result, so that no reader of it can see another
//! meaning in it than we do. Each selector matches inside [`SCOPE`] only, and [`CONTAINMENT`] clips what is painted to the
//! element of that class. The box of that element is the page's: rules that match it set colors, backgrounds and text only.

use std::collections::BTreeSet;

use cssparser::{
    AtRuleParser, CowRcStr, DeclarationParser, Delimiter, ParseError, ParseErrorKind, Parser, ParserState,
    QualifiedRuleParser, RuleBodyItemParser, RuleBodyParser, SourceLocation, StyleSheetParser, Token,
    parse_nth,
};
use serde::Serialize;

use crate::kernel::PublicUrl;

/// The class of the element that a tenant's CSS applies to, and to whatever is in it.
pub const SCOPE: &str = "tenant-brand";

/// The declaration of ours that clips everything inside the element of [`SCOPE`] to that element. No property that is let
/// through takes it back.
pub const CONTAINMENT: &str = "contain: paint";

/// The most bytes of CSS that are looked at.
pub const CSS_LIMIT: usize = 65_536;

/// The most rules that are kept.
const RULES: usize = 1_000;
/// The most things removed that are reported one by one.
const REPORTED: usize = 100;
/// The most characters of a selector.
const LONGEST_SELECTOR: usize = 256;
/// How deep functions and brackets in a value may go.
const DEEPEST: usize = 6;

/// What a sanitised sheet may use of the page around it: the variables of the branding.
pub const VARIABLES: [&str; 4] = [
    "--brand-primary",
    "--brand-on-primary",
    "--brand-accent",
    "--brand-on-accent",
];

/// Properties that change how things look, and none that put them over, before or outside of others (`position`,
/// `z-index`, `transform`), that make text (`content`), or that run or fetch something in any browser there ever was
/// (`behavior`, `-moz-binding`, `filter`).
const PROPERTIES: &str = "\
    accent-color align-content align-items align-self aspect-ratio background background-clip \
    background-color background-image background-origin background-position background-repeat \
    background-size border border-block border-bottom border-bottom-color border-bottom-left-radius \
    border-bottom-right-radius border-bottom-style border-bottom-width border-collapse border-color \
    border-inline border-left border-left-color border-left-style border-left-width border-radius \
    border-right border-right-color border-right-style border-right-width border-spacing border-style \
    border-top border-top-color border-top-left-radius border-top-right-radius border-top-style \
    border-top-width border-width box-shadow box-sizing caret-color clear color color-scheme \
    column-count column-gap column-rule column-width columns cursor display fill flex flex-basis \
    flex-direction flex-flow flex-grow flex-shrink flex-wrap float font font-family font-size \
    font-stretch font-style font-variant font-weight gap grid-auto-columns grid-auto-flow grid-auto-rows \
    grid-column grid-row grid-template-columns grid-template-rows height hyphens justify-content \
    justify-items justify-self letter-spacing line-height list-style-position list-style-type margin \
    margin-block margin-bottom margin-inline margin-left margin-right margin-top max-height max-width \
    min-height min-width object-fit object-position opacity order outline outline-color outline-offset \
    outline-style outline-width overflow overflow-wrap padding padding-block padding-bottom \
    padding-inline padding-left padding-right padding-top row-gap stroke stroke-width tab-size \
    text-align text-decoration text-decoration-color text-decoration-line text-decoration-style \
    text-decoration-thickness text-indent text-overflow text-shadow text-transform text-underline-offset \
    text-wrap transition transition-delay transition-duration transition-property \
    transition-timing-function vertical-align visibility white-space width word-break word-spacing";

/// Properties whose value may be a picture.
const PICTURES: &str = "background background-image";
/// Properties whose value may be a text.
const TEXTS: &str = "font font-family";

/// Properties that paint around an element's box: their lengths are bounded, see [`Value::is_near`].
const AROUND_THE_BOX: &str = "box-shadow outline outline-offset outline-width text-shadow";

/// Properties that a rule for the element of [`SCOPE`] itself may set: what changes neither the box that the page gives it,
/// nor whether [`CONTAINMENT`] holds for it, nor what is painted outside of it.
const OF_SCOPE: &str = "\
    accent-color background background-clip background-color background-image background-origin \
    background-position background-repeat background-size caret-color color color-scheme cursor fill \
    font-family font-size font-stretch font-style font-variant font-weight hyphens letter-spacing \
    line-height list-style-position list-style-type overflow-wrap stroke tab-size text-align \
    text-decoration text-decoration-color text-decoration-line text-decoration-style text-shadow \
    text-transform text-wrap word-break";

/// Of those the ones that other lengths may depend on, the page's own included (`em`, `lh`): their values are bounded.
const SIZES_OF_SCOPE: &str = "font-size letter-spacing line-height tab-size";

const MATHEMATICS: &str = "calc clamp max min";

const FUNCTIONS: &str = "\
    calc clamp color-mix conic-gradient cubic-bezier fit-content hsl hsla hwb lab lch linear-gradient \
    max min minmax oklab oklch radial-gradient repeat repeating-linear-gradient \
    repeating-radial-gradient rgb rgba steps";

const UNITS: &str = "ch cm deg dvh dvw em ex fr grad in lh mm ms pc pt px rad rem rlh s turn vh vmax vmin vw";

/// Elements that are the page itself, or are no part of what is looked at.
const FOREIGN_ELEMENTS: &str = "\
    base body embed frame frameset head html iframe link meta noscript object script slot style template \
    title";

const PSEUDO_CLASSES: &str = "\
    active checked disabled empty enabled first-child first-of-type focus focus-visible focus-within \
    hover last-child last-of-type link only-child only-of-type";
const COUNTING_PSEUDO_CLASSES: &str = "nth-child nth-last-child nth-last-of-type nth-of-type";
const PSEUDO_ELEMENTS: &str = "first-letter first-line marker placeholder selection";

const MEDIA_WORDS: &str = "\
    all and any-hover any-pointer coarse dark fine height hover landscape less light max-height \
    max-width min-height min-width more no-preference none not only or orientation pointer portrait \
    prefers-color-scheme prefers-contrast prefers-reduced-motion print reduce screen width";

/// The CSS is too long to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {CSS_LIMIT} bytes")]
pub struct CssTooLong;

/// CSS that can do no harm, and what is not in it any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SafeCss {
    /// The sanitized text; sanitizing it again changes nothing.
    pub css: String,
    /// What was removed, from the beginning to the end; the first hundred.
    pub removed: Vec<Removed>,
    /// How many more things were removed.
    pub more_removed: usize,
}

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The line, from 1.
    pub line: u32,
    /// The byte in the line, from 1.
    pub column: u32,
    /// Its beginning.
    pub text: String,
    /// Why.
    pub reason: Objection,
}

/// Why something was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// It is no CSS.
    Syntax,
    /// An at-rule other than `@media`.
    AtRule,
    /// A condition of `@media` that is not on the list.
    MediaQuery,
    /// A selector that could reach the page, read what people type, or that is not on the list.
    Selector,
    /// A rule within a rule.
    NestedRule,
    /// A property that is not on the list.
    Property,
    /// A property that is not allowed in a rule for the element of [`SCOPE`] itself.
    ScopeProperty,
    /// Part of a value that is not on the list.
    Value,
    /// A function that is not on the list.
    Function,
    /// An address that is not https or not on the tenant's own hosts.
    Url,
    /// More than anybody needs.
    TooMuch,
}

/// Why a part of the sheet was left out: for a reason to report, or because all of its parts were, and are reported.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Because(Objection),
    Reported,
}

type Refused = ParseError<Refusal>;

fn because(reason: Objection) -> Refused {
    ParseError::custom(Refusal::Because(reason))
}

/// Reduces CSS to what is allowed. Pictures may be fetched from `hosts` only.
///
/// What comes out goes in again unchanged.
///
/// # Errors
/// [`CssTooLong`].
pub fn sanitise_css(css: &str, hosts: &BTreeSet<String>) -> Result<SafeCss, CssTooLong> {
    if css.len() > CSS_LIMIT {
        return Err(CssTooLong);
    }
    let mut sheet = Sheet {
        hosts,
        removed: Vec::new(),
        more_removed: 0,
        rules: 0,
        within_media: false,
    };
    let mut input = Parser::new(css);
    let mut kept = String::new();
    let mut rules = StyleSheetParser::new(&mut input, &mut sheet);
    while let Some(rule) = rules.next() {
        match rule {
            // What comes out is let in again, when hosts change.
            Ok(rule) if kept.len() + rule.len() > CSS_LIMIT => {
                let at = rules.input.current_source_location();
                rules.parser.report((because(Objection::TooMuch), &rule, at));
            }
            Ok(rule) => kept.push_str(&rule),
            Err(refused) => rules.parser.report(refused),
        }
    }
    Ok(SafeCss {
        css: kept,
        removed: sheet.removed,
        more_removed: sheet.more_removed,
    })
}

struct Sheet<'h> {
    hosts: &'h BTreeSet<String>,
    removed: Vec<Removed>,
    more_removed: usize,
    rules: usize,
    within_media: bool,
}

impl Sheet<'_> {
    fn report(&mut self, (error, text, at): (Refused, &str, SourceLocation)) {
        let reason = match error.kind {
            ParseErrorKind::Custom(Refusal::Reported) => return,
            ParseErrorKind::Custom(Refusal::Because(reason)) => reason,
            ParseErrorKind::Basic(_) => Objection::Syntax,
        };
        if self.removed.len() == REPORTED {
            self.more_removed += 1;
            return;
        }
        let text: String = text.trim().chars().take(60).collect();
        self.removed.push(Removed {
            line: at.line + 1,
            column: at.column,
            text: text.replace(char::is_control, " "),
            reason,
        });
    }
}

/// The selectors of a rule.
#[derive(Default)]
struct Selectors {
    texts: Vec<String>,
    /// Whether one of them can match the element of [`SCOPE`] itself.
    of_scope: bool,
}

impl<'i> QualifiedRuleParser<'i> for Sheet<'_> {
    type Prelude = Selectors;
    type QualifiedRule = String;
    type Error = Refusal;

    /// The selectors that are kept; the rule goes with the last of them.
    fn parse_prelude(&mut self, input: &mut Parser<'i>) -> Result<Selectors, Refused> {
        let mut selectors = Selectors::default();
        loop {
            input.skip_whitespace();
            let start = input.state();
            let parsed = input.parse_until_before(Delimiter::Comma, selector);
            match parsed {
                Ok((selector, of_scope)) => {
                    selectors.texts.push(selector);
                    selectors.of_scope |= of_scope;
                }
                Err(error) => {
                    let text = input.slice_from(start.position());
                    self.report((error, text, start.source_location()));
                }
            }
            if input.next().is_err() {
                break;
            }
        }
        if selectors.texts.is_empty() {
            return Err(ParseError::custom(Refusal::Reported));
        }
        Ok(selectors)
    }

    fn parse_block(
        &mut self,
        selectors: Selectors,
        _: &ParserState,
        input: &mut Parser<'i>,
    ) -> Result<String, Refused> {
        self.rules += 1;
        if self.rules > RULES {
            return Err(because(Objection::TooMuch));
        }
        let mut body = Body {
            hosts: self.hosts,
            of_scope: selectors.of_scope,
        };
        let mut declarations = Vec::new();
        for declaration in RuleBodyParser::new(input, &mut body) {
            match declaration {
                Ok(declaration) => declarations.push(declaration),
                Err(refused) => self.report(refused),
            }
        }
        if declarations.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(
            "{} {{\n  {};\n}}\n",
            selectors.texts.join(", "),
            declarations.join(";\n  ")
        ))
    }
}

impl<'i> AtRuleParser<'i> for Sheet<'_> {
    type Prelude = String;
    type AtRule = String;
    type Error = Refusal;

    fn parse_prelude(&mut self, name: CowRcStr<'i>, input: &mut Parser<'i>) -> Result<String, Refused> {
        if !name.eq_ignore_ascii_case("media") || self.within_media {
            return Err(because(Objection::AtRule));
        }
        let query = media_query(input, 0)?;
        if query.is_empty() {
            return Err(because(Objection::MediaQuery));
        }
        Ok(query)
    }

    fn parse_block(
        &mut self,
        query: String,
        _: &ParserState,
        input: &mut Parser<'i>,
    ) -> Result<String, Refused> {
        self.within_media = true;
        let mut kept = String::new();
        let mut rules: RuleBodyParser<'_, '_, Self, String, Refusal> = RuleBodyParser::new(input, self);
        while let Some(rule) = rules.next() {
            match rule {
                Ok(rule) => kept.push_str(&rule),
                Err(refused) => rules.parser.report(refused),
            }
        }
        self.within_media = false;
        if kept.is_empty() {
            return Ok(kept);
        }
        Ok(format!("@media {query} {{\n{kept}}}\n"))
    }
}

impl DeclarationParser<'_> for Sheet<'_> {
    type Declaration = String;
    type Error = Refusal;
}

impl RuleBodyItemParser<'_, String, Refusal> for Sheet<'_> {
    fn parse_declarations(&self) -> bool {
        false
    }

    fn parse_qualified(&self) -> bool {
        true
    }
}

/// What is between the braces of a rule.
struct Body<'h> {
    hosts: &'h BTreeSet<String>,
    of_scope: bool,
}

impl<'i> DeclarationParser<'i> for Body<'_> {
    type Declaration = String;
    type Error = Refusal;

    fn parse_value(
        &mut self,
        name: CowRcStr<'i>,
        input: &mut Parser<'i>,
        _: &ParserState,
    ) -> Result<String, Refused> {
        let property = name.to_ascii_lowercase();
        if !listed(PROPERTIES, &property) {
            return Err(because(Objection::Property));
        }
        if self.of_scope && !listed(OF_SCOPE, &property) {
            return Err(because(Objection::ScopeProperty));
        }
        let value = Value {
            property: &property,
            hosts: self.hosts,
            of_scope: self.of_scope,
        };
        let text = value.read(input, 0, false)?;
        if text.is_empty() || text.starts_with('!') {
            return Err(because(Objection::Value));
        }
        Ok(format!("{property}: {text}"))
    }
}

impl AtRuleParser<'_> for Body<'_> {
    type Prelude = ();
    type AtRule = String;
    type Error = Refusal;

    fn parse_prelude(&mut self, _: CowRcStr<'_>, _: &mut Parser<'_>) -> Result<(), Refused> {
        Err(because(Objection::AtRule))
    }
}

impl QualifiedRuleParser<'_> for Body<'_> {
    type Prelude = ();
    type QualifiedRule = String;
    type Error = Refusal;

    fn parse_prelude(&mut self, _: &mut Parser<'_>) -> Result<(), Refused> {
        Err(because(Objection::NestedRule))
    }
}

impl RuleBodyItemParser<'_, String, Refusal> for Body<'_> {
    fn parse_declarations(&self) -> bool {
        true
    }

    fn parse_qualified(&self) -> bool {
        true
    }
}

/// The value of a property, read token by token.
struct Value<'a> {
    property: &'a str,
    hosts: &'a BTreeSet<String>,
    of_scope: bool,
}

impl Value<'_> {
    fn read(&self, input: &mut Parser<'_>, depth: usize, mathematics: bool) -> Result<String, Refused> {
        if depth > DEEPEST {
            return Err(because(Objection::TooMuch));
        }
        let mut text = String::new();
        loop {
            input.skip_whitespace();
            let start = input.position();
            let Ok(token) = input.next().cloned() else {
                return Ok(text);
            };
            let raw = input.slice_from(start);
            let piece = match token {
                Token::Ident(word) if is_name(&word) => word.to_string(),
                Token::Hash(digits) | Token::IDHash(digits) if is_colour(&digits) => format!("#{digits}"),
                Token::Number { .. } => self.factor(raw, raw, 8.0)?,
                Token::Percentage { .. } => self.factor(raw, raw.trim_end_matches('%'), 200.0)?,
                Token::Dimension { unit, .. } => self.dimension(raw, &unit)?,
                Token::Comma => ",".to_owned(),
                Token::Delim('/') => "/".to_owned(),
                Token::Delim('-') if mathematics && !self.must_not_be_negative() => "-".to_owned(),
                Token::Delim(sign @ ('+' | '*')) if mathematics => sign.to_string(),
                Token::Delim('!') if depth == 0 => important(input)?,
                Token::QuotedString(words) if listed(TEXTS, self.property) && is_words(&words) => {
                    format!("\"{words}\"")
                }
                Token::UnquotedUrl(address) => self.url(&address)?,
                Token::Function(name) => {
                    let name = name.to_ascii_lowercase();
                    input.parse_nested_block(|input| self.function(&name, input, depth, mathematics))?
                }
                Token::ParenthesisBlock if mathematics => {
                    let inner = input.parse_nested_block(|input| self.read(input, depth + 1, true))?;
                    format!("({inner})")
                }
                _ => return Err(because(Objection::Value)),
            };
            if !text.is_empty() && piece != "," {
                text.push(' ');
            }
            text.push_str(&piece);
        }
    }

    fn function(
        &self,
        name: &str,
        input: &mut Parser<'_>,
        depth: usize,
        mathematics: bool,
    ) -> Result<String, Refused> {
        match name {
            "url" => {
                let address = input.expect_string_cloned()?;
                self.url(&address)
            }
            "var" => {
                let variable = input.expect_ident_cloned()?;
                if VARIABLES.contains(&variable.as_ref()) {
                    Ok(format!("var({variable})"))
                } else {
                    Err(because(Objection::Value))
                }
            }
            name if listed(FUNCTIONS, name) => {
                let mathematics = mathematics || listed(MATHEMATICS, name);
                if mathematics && self.is_bounded() {
                    return Err(because(Objection::Function));
                }
                let inner = self.read(input, depth + 1, mathematics)?;
                Ok(format!("{name}({inner})"))
            }
            _ => Err(because(Objection::Function)),
        }
    }

    /// A negative margin lays an element over its neighbours, or itself out of sight.
    fn must_not_be_negative(&self) -> bool {
        self.property.starts_with("margin") || self.property == "text-indent"
    }

    /// A number as it was written, when it was written plainly.
    fn number(&self, raw: &str, digits: &str) -> Result<String, Refused> {
        let unsigned = digits.trim_start_matches(['+', '-']);
        let plain = unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let pulls_out = digits.starts_with('-') && self.must_not_be_negative();
        if plain && unsigned.len() <= 12 && !pulls_out {
            Ok(raw.to_owned())
        } else {
            Err(because(Objection::Value))
        }
    }

    /// A number or percentage; where it sizes the element of [`SCOPE`], at most `most`.
    fn factor(&self, raw: &str, digits: &str, most: f64) -> Result<String, Refused> {
        let near = || digits.parse::<f64>().is_ok_and(|number| number.abs() <= most);
        if self.sizes_the_scope() && !near() {
            return Err(because(Objection::Value));
        }
        self.number(raw, digits)
    }

    fn dimension(&self, raw: &str, unit: &str) -> Result<String, Refused> {
        // A unit with an escape in it does not end the token as it is written.
        let digits = raw.strip_suffix(unit).ok_or_else(|| because(Objection::Value))?;
        let unit = unit.to_ascii_lowercase();
        let near = !self.is_bounded() || self.is_near(digits, &unit);
        if !listed(UNITS, &unit) || !near {
            return Err(because(Objection::Value));
        }
        self.number(raw, digits)
    }

    /// Whether the lengths of the property are bounded.
    fn is_bounded(&self) -> bool {
        listed(AROUND_THE_BOX, self.property) || self.sizes_the_scope()
    }

    fn sizes_the_scope(&self) -> bool {
        self.of_scope && listed(SIZES_OF_SCOPE, self.property)
    }

    /// Whether a bounded length is at most 32 pixels, or what usually is as much. The font size of the element of
    /// [`SCOPE`] is the tenant's to choose, so lengths that depend on it are not for that element.
    fn is_near(&self, digits: &str, unit: &str) -> bool {
        let most = match unit {
            "px" => 32.0,
            "pt" => 24.0,
            "rem" => 2.0,
            "em" if !self.of_scope => 2.0,
            // Angles are for the functions of colors.
            "deg" | "grad" | "rad" | "turn" => return true,
            _ => return false,
        };
        digits.parse::<f64>().is_ok_and(|length| length.abs() <= most)
    }

    fn url(&self, address: &str) -> Result<String, Refused> {
        let refused = || because(Objection::Url);
        if !listed(PICTURES, self.property) {
            return Err(refused());
        }
        let url = PublicUrl::parse(address).map_err(|_| refused())?;
        let plain = url
            .as_str()
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"\\<>".contains(&b));
        if plain && self.hosts.contains(url.host()) {
            Ok(format!("url(\"{}\")", url.as_str()))
        } else {
            Err(refused())
        }
    }
}

/// What follows the exclamation mark, which is the last thing of a value.
fn important(input: &mut Parser<'_>) -> Result<String, Refused> {
    input.expect_ident_matching("important")?;
    input.expect_exhausted()?;
    Ok("!important".to_owned())
}

/// Whether a word is on one of the lists above.
fn listed(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == word)
}

/// A name that can be written without an escape and is none of a variable.
fn is_name(word: &str) -> bool {
    let first = word.trim_start_matches('-').chars().next();
    !word.starts_with("--")
        && word.len() <= 64
        && first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn is_words(words: &str) -> bool {
    (1..=64).contains(&words.len())
        && words
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_'))
}

fn is_colour(digits: &str) -> bool {
    matches!(digits.len(), 3 | 4 | 6 | 8) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A condition of `@media`, of words on the list, colons, numbers and brackets.
fn media_query(input: &mut Parser<'_>, depth: usize) -> Result<String, Refused> {
    let number = Value {
        property: "@media",
        hosts: &BTreeSet::new(),
        of_scope: false,
    };
    let refused = || because(Objection::MediaQuery);
    if depth > DEEPEST {
        return Err(refused());
    }
    let mut text = String::new();
    loop {
        input.skip_whitespace();
        let start = input.position();
        let Ok(token) = input.next().cloned() else {
            return Ok(text);
        };
        let raw = input.slice_from(start);
        let piece = match token {
            Token::Ident(word) if listed(MEDIA_WORDS, &word.to_ascii_lowercase()) => {
                word.to_ascii_lowercase()
            }
            Token::Number { .. } => number.number(raw, raw).map_err(|_| refused())?,
            Token::Dimension { unit, .. } => number.dimension(raw, &unit).map_err(|_| refused())?,
            Token::Colon => ":".to_owned(),
            Token::Comma => ",".to_owned(),
            Token::ParenthesisBlock => {
                let inner = input.parse_nested_block(|input| media_query(input, depth + 1))?;
                format!("({inner})")
            }
            _ => return Err(refused()),
        };
        if !text.is_empty() && !matches!(piece.as_str(), "," | ":") {
            text.push(' ');
        }
        text.push_str(&piece);
    }
}

/// Simple selectors without a combinator between them.
#[derive(Default)]
struct Compound {
    text: String,
    has_scope: bool,
    /// Nothing may follow a pseudo-element.
    ended: bool,
}

/// One selector, made to match within the scope only, and whether it can match the element of the scope itself.
fn selector(input: &mut Parser<'_>) -> Result<(String, bool), Refused> {
    let refused = || because(Objection::Selector);
    let mut compounds = vec![Compound::default()];
    let mut combinators: Vec<char> = Vec::new();
    let mut gap = false;
    loop {
        let Ok(token) = input.next_including_whitespace_and_comments().cloned() else {
            break;
        };
        let last = compounds.last_mut().ok_or_else(refused)?;
        match token {
            Token::Comment(_) => continue,
            Token::WhiteSpace(_) => {
                gap = !last.text.is_empty();
                continue;
            }
            Token::Delim(combinator @ ('>' | '+' | '~')) => {
                if last.text.is_empty() {
                    return Err(refused());
                }
                gap = false;
                combinators.push(combinator);
                compounds.push(Compound::default());
                continue;
            }
            token => {
                if gap {
                    gap = false;
                    combinators.push(' ');
                    compounds.push(Compound::default());
                }
                let last = compounds.last_mut().ok_or_else(refused)?;
                simple_selector(token, input, last)?;
            }
        }
    }
    if compounds.iter().any(|compound| compound.text.is_empty()) {
        return Err(refused());
    }
    let of_scope = compounds.last().is_some_and(|subject| subject.has_scope);
    scoped(&compounds, &combinators)
        .filter(|text| text.len() <= LONGEST_SELECTOR)
        .map(|text| (text, of_scope))
        .ok_or_else(refused)
}

fn simple_selector(token: Token<'_>, input: &mut Parser<'_>, to: &mut Compound) -> Result<(), Refused> {
    let refused = || because(Objection::Selector);
    if to.ended {
        return Err(refused());
    }
    match token {
        Token::Ident(name) if to.text.is_empty() => {
            let name = name.to_ascii_lowercase();
            if !is_name(&name) || listed(FOREIGN_ELEMENTS, &name) {
                return Err(refused());
            }
            to.text.push_str(&name);
        }
        Token::Delim('*') if to.text.is_empty() => to.text.push('*'),
        Token::IDHash(name) if is_name(&name) => to.text.push_str(&format!("#{name}")),
        Token::Delim('.') => match input.next_including_whitespace_and_comments()? {
            Token::Ident(name) if is_name(name) => {
                to.has_scope |= name.as_ref() == SCOPE;
                to.text.push_str(&format!(".{name}"));
            }
            _ => return Err(refused()),
        },
        Token::Colon => pseudo(input, to)?,
        _ => return Err(refused()),
    }
    Ok(())
}

fn pseudo(input: &mut Parser<'_>, to: &mut Compound) -> Result<(), Refused> {
    let refused = || because(Objection::Selector);
    match input.next_including_whitespace_and_comments()?.clone() {
        Token::Ident(name) => {
            let name = name.to_ascii_lowercase();
            if !listed(PSEUDO_CLASSES, &name) {
                return Err(refused());
            }
            to.text.push_str(&format!(":{name}"));
        }
        Token::Function(name) => {
            let name = name.to_ascii_lowercase();
            if !listed(COUNTING_PSEUDO_CLASSES, &name) {
                return Err(refused());
            }
            let (step, offset) = input.parse_nested_block(|input| Ok::<_, Refused>(parse_nth(input)?))?;
            to.text.push_str(&format!(":{name}({step}n{offset:+})"));
        }
        Token::Colon => match input.next_including_whitespace_and_comments()? {
            Token::Ident(name) if listed(PSEUDO_ELEMENTS, &name.to_ascii_lowercase()) => {
                to.text.push_str(&format!("::{}", name.to_ascii_lowercase()));
                to.ended = true;
            }
            _ => return Err(refused()),
        },
        _ => return Err(refused()),
    }
    Ok(())
}

/// The selector as it is when it begins with the scope, else with the scope before it. `.tenant-brand + a` is outside of
/// the scope, so it gets one.
fn scoped(compounds: &[Compound], combinators: &[char]) -> Option<String> {
    let first = compounds.first()?;
    let leaves = matches!(combinators.first(), Some('+' | '~'));
    let mut text = if first.has_scope && !leaves {
        String::new()
    } else {
        format!(".{SCOPE} ")
    };
    text.push_str(&first.text);
    for (compound, combinator) in compounds[1..].iter().zip(combinators) {
        match combinator {
            ' ' => text.push(' '),
            other => text.push_str(&format!(" {other} ")),
        }
        text.push_str(&compound.text);
    }
    Some(text)
}
