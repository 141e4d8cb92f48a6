//! Whether the expression of a policy keeps rows to their tenant.
//!
//! What the catalogue gives back is compared by meaning: parentheses, casts that lose nothing, a `SELECT` around the
//! setting, the order of the two sides and further conditions with AND make no difference. Whatever is not
//! recognised does not count, so a mistake in here makes a false alarm and not a false peace.

use crate::quote;
use crate::token::{Token, tokens};

/// What an expression has to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    /// The table, should the column be written with it.
    pub(crate) table: &'a str,
    /// The tenant column.
    pub(crate) column: &'a str,
    /// Its type as the catalogue writes it.
    pub(crate) column_type: &'a str,
    /// Name of the setting that carries the tenant, such as `app.current_tenant`.
    pub(crate) setting: &'a str,
    /// Functions that stand for the setting.
    pub(crate) functions: &'a [Wrapper<'a>],
}

/// A function that was found to give the setting and nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrapper<'a> {
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    pub(crate) care: Care,
}

/// What an expression is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// It holds for rows of the tenant in the setting only.
    Standard(Care),
    /// It speaks of column and setting, but lets other rows through, or is not understood.
    Other,
    /// It has nothing to do with the tenant.
    Unrelated,
}

/// What happens when the setting is not set, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Care {
    /// Never set: no error.
    pub(crate) missing_ok: bool,
    /// Reset after a transaction, which leaves the empty text: neither an error nor a match.
    pub(crate) empty_ok: bool,
}

impl Rule<'_> {
    /// What an expression is under this rule.
    pub(crate) fn form(&self, expression: &str) -> Form {
        let Some(tokens) = tokens(expression) else {
            return Form::Other;
        };
        match self.condition(&tokens) {
            Some(care) => Form::Standard(care),
            None if self.is_related(&tokens) => Form::Other,
            None => Form::Unrelated,
        }
    }

    /// Whether the text gives the setting and nothing else: the body of a function.
    pub(crate) fn gives_setting(&self, body: &str) -> Option<Care> {
        let tokens = tokens(body)?;
        let tokens = tokens
            .strip_suffix(&[Token::Symbol(";".to_owned())])
            .unwrap_or(&tokens);
        match tokens.split_first()? {
            (first, rest) if first.is_word("return") || first.is_word("select") => self.value(rest),
            _ => None,
        }
    }

    /// The expression as it should be.
    pub(crate) fn standard(&self) -> String {
        let column = quote::identifier(self.column);
        let value = format!(
            "nullif(current_setting({}, true), '')",
            quote::literal(self.setting)
        );
        if self.column_type == "text" || self.column_type.starts_with("character varying") {
            format!("{column} = {value}")
        } else {
            format!("{column} = {value}::{}", self.column_type)
        }
    }

    fn condition(&self, tokens: &[Token]) -> Option<Care> {
        let tokens = unwrap(tokens);
        let either = split(tokens, |token| token.is_word("or"));
        if either.len() > 1 {
            let all: Option<Vec<Care>> = either.iter().map(|part| self.condition(part)).collect();
            return all?.into_iter().reduce(Care::and);
        }
        let both = split(tokens, |token| token.is_word("and"));
        if both.len() > 1 {
            return both.iter().find_map(|part| self.condition(part));
        }
        match split(tokens, |token| token.is_symbol("="))[..] {
            [left, right] if self.is_column(left) => self.value(right),
            [left, right] if self.is_column(right) => self.value(left),
            _ => None,
        }
    }

    fn is_column(&self, tokens: &[Token]) -> bool {
        match self.bare(tokens) {
            Some([column]) => column.is_name(self.column),
            Some([table, dot, column]) => {
                table.is_name(self.table) && dot.is_symbol(".") && column.is_name(self.column)
            }
            _ => false,
        }
    }

    fn value(&self, tokens: &[Token]) -> Option<Care> {
        let tokens = self.bare(tokens)?;
        let (first, rest) = tokens.split_first()?;
        if first.is_word("select") {
            return match split(rest, |token| token.is_word("as"))[..] {
                [value] | [value, [_]] => self.value(value),
                _ => None,
            };
        }
        let (name, arguments) = call(tokens)?;
        match (name, &arguments[..]) {
            ([name], [value, empty]) if name.is_word("nullif") && self.text(empty)?.is_empty() => {
                let care = self.value(value)?;
                Some(Care {
                    empty_ok: true,
                    ..care
                })
            }
            ([.., name], _) if name.is_word("current_setting") => {
                self.setting(name_schema(tokens), &arguments)
            }
            (_, []) => self.wrapper(name),
            _ => None,
        }
    }

    fn setting(&self, schema: Option<&Token>, arguments: &[&[Token]]) -> Option<Care> {
        let built_in = schema.is_none_or(|schema| schema.is_name("pg_catalog"));
        let (name, missing_ok) = match arguments {
            [name] => (name, false),
            [name, [missing]] => (name, missing.is_word("true")),
            _ => return None,
        };
        let care = Care {
            missing_ok,
            empty_ok: false,
        };
        (built_in && self.text(name)?.eq_ignore_ascii_case(self.setting)).then_some(care)
    }

    fn wrapper(&self, name: &[Token]) -> Option<Care> {
        let found = self.functions.iter().find(|function| match name {
            [name] => name.is_name(function.name),
            [schema, _, name] => schema.is_name(function.schema) && name.is_name(function.name),
            _ => false,
        });
        found.map(|function| function.care)
    }

    fn text<'t>(&self, tokens: &'t [Token]) -> Option<&'t str> {
        match self.bare(tokens)? {
            [Token::Value(text)] => Some(text),
            _ => None,
        }
    }

    /// Without parentheses around it and casts behind it; `None` where a cast may make two values one.
    fn bare<'t>(&self, tokens: &'t [Token]) -> Option<&'t [Token]> {
        let mut tokens = unwrap(tokens);
        loop {
            // A cast in there is not one of the whole.
            if tokens.first().is_some_and(|first| first.is_word("select")) {
                return Some(tokens);
            }
            let parts = split(tokens, |token| token.is_symbol("::"));
            let [first, casts @ ..] = &parts[..] else {
                return None;
            };
            if !casts.iter().all(|cast| self.is_harmless(cast)) {
                return None;
            }
            let inner = unwrap(first);
            if inner.len() == tokens.len() {
                return Some(inner);
            }
            tokens = inner;
        }
    }

    fn is_harmless(&self, cast: &[Token]) -> bool {
        const HARMLESS: &[&str] = &[
            "text",
            "character varying",
            "uuid",
            "bigint",
            "integer",
            "numeric",
        ];
        let is = |name: &str| tokens(name).is_some_and(|expected| expected == cast);
        HARMLESS.iter().any(|name| is(name)) || is(self.column_type)
    }

    fn is_related(&self, tokens: &[Token]) -> bool {
        let column = tokens.iter().any(|token| token.is_name(self.column));
        let setting = tokens.iter().any(|token| match token {
            Token::Value(text) => text.eq_ignore_ascii_case(self.setting),
            other => self.functions.iter().any(|function| other.is_name(function.name)),
        });
        column && setting
    }
}

impl Care {
    fn and(self, other: Self) -> Self {
        Self {
            missing_ok: self.missing_ok && other.missing_ok,
            empty_ok: self.empty_ok && other.empty_ok,
        }
    }
}

/// The parts between separators that lie in no parentheses.
fn split(tokens: &[Token], is_separator: impl Fn(&Token) -> bool) -> Vec<&[Token]> {
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
fn unwrap(mut tokens: &[Token]) -> &[Token] {
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
fn call(tokens: &[Token]) -> Option<(&[Token], Vec<&[Token]>)> {
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
fn name_schema(tokens: &[Token]) -> Option<&Token> {
    match tokens {
        [schema, dot, ..] if dot.is_symbol(".") => Some(schema),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAREFUL: Care = Care {
        missing_ok: true,
        empty_ok: true,
    };

    fn rule(column_type: &'static str) -> Rule<'static> {
        const FUNCTIONS: &[Wrapper<'static>] = &[Wrapper {
            schema: "public",
            name: "app_tenant",
            care: CAREFUL,
        }];
        Rule {
            table: "tasks",
            column: "tenant_id",
            column_type,
            setting: "app.tenant",
            functions: FUNCTIONS,
        }
    }

    #[test]
    fn what_keeps_rows_to_their_tenant() {
        let value = "(NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid";
        for expression in [
            format!("(tenant_id = {value})"),
            format!("({value} = tenant_id)"),
            format!("(tasks.tenant_id = ( SELECT {value} AS \"nullif\"))"),
            format!("((deleted_at IS NULL) AND (tenant_id = {value}))"),
            format!("(CASE WHEN (a OR b) THEN c ELSE d END AND (tenant_id = {value}))"),
            format!("(((tenant_id = {value}) AND a) OR ((tenant_id = {value}) AND b))"),
            "((tenant_id)::text = NULLIF(current_setting('App.Tenant'::text, true), ''::text))".to_owned(),
            "(tenant_id = app_tenant())".to_owned(),
            "(tenant_id = ( SELECT public.app_tenant() AS app_tenant))".to_owned(),
        ] {
            assert_eq!(
                rule("uuid").form(&expression),
                Form::Standard(CAREFUL),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_is_careless() {
        for (expression, missing_ok, empty_ok) in [
            (
                "(tenant_id = (current_setting('app.tenant'::text))::uuid)",
                false,
                false,
            ),
            (
                "(tenant_id = (current_setting('app.tenant'::text, false))::uuid)",
                false,
                false,
            ),
            (
                "(tenant_id = (current_setting('app.tenant'::text, true))::uuid)",
                true,
                false,
            ),
            (
                "(tenant_id = (NULLIF(current_setting('app.tenant'::text), ''::text))::uuid)",
                false,
                true,
            ),
        ] {
            let care = Care { missing_ok, empty_ok };
            assert_eq!(
                rule("uuid").form(expression),
                Form::Standard(care),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_lets_others_through() {
        let standard = "(tenant_id = (NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid)";
        for expression in [
            format!("({standard} OR (status = 'public'::text))"),
            format!("({standard} OR true)"),
            format!("(NOT {standard})"),
            format!("CASE WHEN a THEN {standard} ELSE true END"),
            format!("CASE WHEN a AND {standard} THEN true ELSE b END"),
            format!("COALESCE({standard}, true)"),
            "(tenant_id = COALESCE((current_setting('app.tenant'::text, true))::uuid, tenant_id))".to_owned(),
            "(tenant_id <> (current_setting('app.tenant'::text, true))::uuid)".to_owned(),
            "(tenant_id >= (current_setting('app.tenant'::text, true))::uuid)".to_owned(),
            "(tenant_id = NULLIF(current_setting('app.tenant'::text, true), 'x'::text))".to_owned(),
            "((tenant_id)::character(1) = (current_setting('app.tenant'::text, true))::character(1))"
                .to_owned(),
            "((tenant_id)::character varying(4) = current_setting('app.tenant'::text, true))".to_owned(),
            "(tenant_id = evil.current_setting('app.tenant'::text, true))".to_owned(),
            "(tenant_id = evil.app_tenant())".to_owned(),
            "(tenant_id = (x || current_setting('app.tenant'::text, true)))".to_owned(),
            "(tenant_id OPERATOR(evil.=) (current_setting('app.tenant'::text, true))::uuid)".to_owned(),
            "(tenant_id = ( SELECT x.id FROM x WHERE (x.name = current_setting('app.tenant'::text))))"
                .to_owned(),
            "(tenant_id = current_setting('app.tenant'::text".to_owned(),
        ] {
            assert_ne!(
                rule("uuid").form(&expression),
                Form::Standard(CAREFUL),
                "{expression}"
            );
            assert!(
                !matches!(rule("uuid").form(&expression), Form::Standard(_)),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_is_about_something_else() {
        for expression in [
            "true",
            "(owner_id = 1)",
            "(tenant_id IS NOT NULL)",
            "(tenant_id = tenant_id)",
        ] {
            assert_eq!(rule("uuid").form(expression), Form::Unrelated, "{expression}");
        }
        let other = "(tenant_id = (current_setting('app.other'::text))::uuid)";
        assert_eq!(rule("uuid").form(other), Form::Unrelated);
        let column = "(owner_id = (current_setting('app.tenant'::text))::uuid)";
        assert_eq!(rule("uuid").form(column), Form::Unrelated);
    }

    #[test]
    fn bodies_of_functions() {
        let body = " SELECT nullif(current_setting('app.tenant', true), '')::uuid; ";
        assert_eq!(rule("uuid").gives_setting(body), Some(CAREFUL));
        let parsed = "RETURN (NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid";
        assert_eq!(rule("uuid").gives_setting(parsed), Some(CAREFUL));
        let body = "SELECT coalesce(nullif(current_setting('app.tenant', true), ''), '1')::uuid";
        assert_eq!(rule("uuid").gives_setting(body), None);
        let two = "SELECT set_config('app.tenant', 'x', true); SELECT current_setting('app.tenant')::uuid";
        assert_eq!(rule("uuid").gives_setting(two), None);
    }

    #[test]
    fn the_standard_is_recognised() {
        for column_type in [
            "uuid",
            "bigint",
            "text",
            "character varying(36)",
            "public.\"Tenant\"",
        ] {
            let rule = rule(column_type);
            assert_eq!(
                rule.form(&rule.standard()),
                Form::Standard(CAREFUL),
                "{column_type}"
            );
        }
    }
}
