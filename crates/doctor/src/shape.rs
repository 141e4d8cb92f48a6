use crate::token::Token;

/// The parts between separators that lie in no parentheses.
pub(crate) fn split(tokens: &[Token], is_separator: impl Fn(&Token) -> bool) -> Vec<&[Token]> {
    let mut depth = 0;
    tokens
        .split(move |token| {
            let separates = depth == 0 && is_separator(token);
            depth += token.depth();
            separates
        })
        .collect()
}

/// Without parentheses around the whole.
pub(crate) fn unwrap(mut tokens: &[Token]) -> &[Token] {
    while let [first, inner @ .., last] = tokens {
        let mut depth = 0;
        // The first parenthesis may close before the end, as in `(a) = (b)`.
        let closes = inner.iter().any(|token| {
            depth += token.depth();
            depth < 0
        });
        if !first.is_symbol("(") || !last.is_symbol(")") || closes {
            return tokens;
        }
        tokens = inner;
    }
    tokens
}

/// The name of a function and its arguments.
pub(crate) fn call(tokens: &[Token]) -> Option<(&[Token], Vec<&[Token]>)> {
    let open = tokens.iter().position(|token| token.is_symbol("("))?;
    let (name, arguments) = tokens.split_at(open);
    let is_name = match name {
        [_] => true,
        [_, dot, _] => dot.is_symbol("."),
        _ => false,
    };
    // Nothing can be unwrapped where the parenthesis closes before the end, as in `f(a) + g(b)`.
    if !is_name || unwrap(arguments).len() == arguments.len() {
        return None;
    }
    match arguments {
        [_, inner @ .., _] if !inner.is_empty() => Some((name, split(inner, |token| token.is_symbol(",")))),
        _ => Some((name, Vec::new())),
    }
}

/// The schema in front of a name.
pub(crate) fn name_schema(tokens: &[Token]) -> Option<&Token> {
    match tokens {
        [schema, dot, ..] if dot.is_symbol(".") => Some(schema),
        _ => None,
    }
}
