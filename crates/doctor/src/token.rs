/// A piece of an SQL expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A keyword, or a name without quotes.
    Word(String),
    /// A name in quotes.
    Quoted(String),
    /// A text, or a number.
    Value(String),
    /// An operator, a parenthesis, a comma.
    Symbol(String),
}

impl Token {
    pub(crate) fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(found) if found == symbol)
    }

    /// Whether it is that name, as the catalogue has it.
    pub(crate) fn is_name(&self, name: &str) -> bool {
        match self {
            Self::Word(word) => word.to_ascii_lowercase() == name,
            Self::Quoted(quoted) => quoted == name,
            Self::Value(_) | Self::Symbol(_) => false,
        }
    }

    /// How much deeper what follows lies.
    pub(crate) fn depth(&self) -> i32 {
        match self {
            Self::Symbol(symbol) if symbol == "(" || symbol == "[" => 1,
            Self::Symbol(symbol) if symbol == ")" || symbol == "]" => -1,
            // The deparser puts no parentheses around CASE, so what is in it must not pass for what is beside it.
            Self::Word(word) if word.eq_ignore_ascii_case("case") => 1,
            Self::Word(word) if word.eq_ignore_ascii_case("end") => -1,
            _ => 0,
        }
    }
}

/// Takes an expression apart; `None` where it is not one that ends.
pub(crate) fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut rest = text.trim_start();
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '"' => quoted(rest, '"').map(|(name, after)| (Token::Quoted(name), after))?,
            '\'' => quoted(rest, '\'').map(|(value, after)| (Token::Value(value), after))?,
            letter if is_word_start(letter) => word(rest),
            digit if digit.is_ascii_digit() => number(rest),
            _ => symbol(rest, first),
        };
        found.push(token);
        rest = after.trim_start();
    }
    Some(found)
}

/// Reads to the closing quote; a doubled one stands for itself.
///
/// An escape string comes as the word `E` and a text, which is no form of anything that is recognised.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut rest = text.get(1..)?;
    loop {
        let (before, after) = rest.split_once(quote)?;
        content.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                content.push(quote);
                rest = more;
            }
            None => return Some((content, after)),
        }
    }
}

fn word(text: &str) -> (Token, &str) {
    let end = text.find(|c| !is_word_start(c) && !char::is_ascii_digit(&c) && c != '$');
    let (word, after) = text.split_at(end.unwrap_or(text.len()));
    (Token::Word(word.to_owned()), after)
}

fn number(text: &str) -> (Token, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, after) = text.split_at(end.unwrap_or(text.len()));
    (Token::Value(number.to_owned()), after)
}

/// Operators are as long as they can be: `<=` is not `<` and `=`.
fn symbol(text: &str, first: char) -> (Token, &str) {
    const OPERATOR: &str = "+-*/<>=~!@#%^&|`?:";
    let length = if OPERATOR.contains(first) {
        text.find(|c| !OPERATOR.contains(c)).unwrap_or(text.len())
    } else {
        first.len_utf8()
    };
    let (symbol, after) = text.split_at(length);
    (Token::Symbol(symbol.to_owned()), after)
}

fn is_word_start(letter: char) -> bool {
    letter.is_alphabetic() || letter == '_' || !letter.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_taken_apart() {
        let found = tokens(r#"("we""ird"::text <= 'it''s' AND f(1.5))"#).unwrap();
        let word = |text: &str| Token::Word(text.to_owned());
        let symbol = |text: &str| Token::Symbol(text.to_owned());
        let expected = [
            symbol("("),
            Token::Quoted("we\"ird".to_owned()),
            symbol("::"),
            word("text"),
            symbol("<="),
            Token::Value("it's".to_owned()),
            word("AND"),
            word("f"),
            symbol("("),
            Token::Value("1.5".to_owned()),
            symbol(")"),
            symbol(")"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_end_is_nothing() {
        assert_eq!(tokens("'a"), None);
        assert_eq!(tokens("\"a"), None);
    }
}
