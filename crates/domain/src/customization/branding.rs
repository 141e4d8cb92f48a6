//! How a tenant looks to its people, and to whoever is about to log in.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Serialize;

use crate::customization::{
    Address, CONTAINMENT, CSS_LIMIT, Colour, ENOUGH_CONTRAST, SCOPE, SafeCss, sanitise_css,
};
use crate::identity::Email;
use crate::kernel::{Check, Invalid, Patch, PublicUrl, StoreError, Time, check_text};

/// The look of a tenant. Serialised for the audit log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Branding {
    /// Counts its changes; 0 before the first.
    pub version: i64,
    /// When it was last changed, if it was.
    #[serde(skip)]
    pub updated_at: Option<Time>,
    /// What to call the tenant; 1 to 80 characters. Its name when absent.
    pub display_name: Option<String>,
    /// An https address that leads outside.
    pub logo_url: Option<String>,
    /// An https address that leads outside.
    pub favicon_url: Option<String>,
    /// The colour of what is to be noticed.
    pub primary_color: String,
    /// The colour that goes with it.
    pub accent_color: String,
    /// Where people ask for help.
    pub support_email: Option<String>,
    /// What [`sanitise_css`] left of the tenant's CSS.
    pub custom_css: String,
}

impl Default for Branding {
    fn default() -> Self {
        Self {
            version: 0,
            updated_at: None,
            display_name: None,
            logo_url: None,
            favicon_url: None,
            primary_color: Self::PRIMARY.to_owned(),
            accent_color: Self::ACCENT.to_owned(),
            support_email: None,
            custom_css: String::new(),
        }
    }
}

/// What may be changed of a branding; null goes back to what holds for everybody.
#[derive(Debug, Clone)]
pub struct BrandingPatch {
    /// See [`Branding::display_name`].
    pub display_name: Patch<String>,
    /// See [`Branding::logo_url`].
    pub logo_url: Patch<String>,
    /// See [`Branding::favicon_url`].
    pub favicon_url: Patch<String>,
    /// See [`Branding::primary_color`].
    pub primary_color: Patch<String>,
    /// See [`Branding::accent_color`].
    pub accent_color: Patch<String>,
    /// See [`Branding::support_email`].
    pub support_email: Patch<String>,
    /// CSS as the tenant writes it.
    pub custom_css: Patch<String>,
}

/// A branding as a change leaves it, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Rebranded {
    /// The next version, to be stored.
    pub branding: Branding,
    /// The addresses in the change, which are still to be resolved.
    pub addresses: Vec<Address>,
    /// The CSS, and what was removed of it.
    pub css: SafeCss,
}

/// Something that is allowed, and probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// JSON pointer to what it is about.
    pub pointer: String,
    /// Its stable name.
    pub code: &'static str,
    /// What is the matter, for a person.
    pub detail: String,
}

impl Branding {
    /// The primary colour of a tenant that has none of its own.
    pub const PRIMARY: &'static str = "#1d4ed8";
    /// The accent colour of a tenant that has none of its own.
    pub const ACCENT: &'static str = "#0f766e";

    /// The branding with a change made, as its next version. The CSS is sanitised again in any case, because the hosts
    /// that pictures may come from are those of logo and favicon.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn changed(&self, patch: BrandingPatch, now: Time) -> Result<Rebranded, Invalid> {
        let (mut check, mut addresses) = (Check::new(), Vec::new());
        let mut next = self.clone();
        patch
            .display_name
            .map(|name| name.trim().to_owned())
            .apply(&mut next.display_name);
        if let Some(name) = &next.display_name {
            check.line("/display_name", name, 1..=80);
        }
        for (pointer, patch, field) in [
            ("/logo_url", patch.logo_url, &mut next.logo_url),
            ("/favicon_url", patch.favicon_url, &mut next.favicon_url),
        ] {
            match patch {
                Patch::Keep => {}
                Patch::Clear => *field = None,
                Patch::Set(text) => *field = check.take(address(pointer, &text, &mut addresses)),
            }
        }
        for (pointer, patch, field, default) in [
            (
                "/primary_color",
                patch.primary_color,
                &mut next.primary_color,
                Self::PRIMARY,
            ),
            (
                "/accent_color",
                patch.accent_color,
                &mut next.accent_color,
                Self::ACCENT,
            ),
        ] {
            match patch {
                Patch::Keep => {}
                Patch::Clear => default.clone_into(field),
                Patch::Set(text) => match Colour::parse(&text) {
                    Some(colour) => *field = colour.to_string(),
                    None => check.fail(pointer, "invalid_colour", "must be a colour such as #1a2b3c"),
                },
            }
        }
        match patch.support_email {
            Patch::Keep => {}
            Patch::Clear => next.support_email = None,
            Patch::Set(text) => {
                let email = check.take(Email::parse(&text, "/support_email"));
                next.support_email = email.map(|email| email.as_str().to_owned());
            }
        }
        match patch.custom_css {
            Patch::Keep => {}
            Patch::Clear => next.custom_css.clear(),
            Patch::Set(text) => next.custom_css = text,
        }
        let css = check
            .take(safe(&next.custom_css, &next.hosts()))
            .unwrap_or_default();
        check.verdict()?;
        next.custom_css.clone_from(&css.css);
        next.version += 1;
        next.updated_at = Some(now);
        Ok(Rebranded {
            branding: next,
            addresses,
            css,
        })
    }

    /// Whether both look the same.
    pub fn looks_like(&self, other: &Self) -> bool {
        let undated = |branding: &Self| Self {
            version: 0,
            updated_at: None,
            ..branding.clone()
        };
        undated(self) == undated(other)
    }

    /// What is allowed but hard to read.
    pub fn warnings(&self) -> Vec<Warning> {
        let colours = [
            ("/primary_color", &self.primary_color),
            ("/accent_color", &self.accent_color),
        ];
        let low = colours.into_iter().filter_map(|(pointer, text)| {
            let colour = Colour::parse(text)?;
            let ratio = colour.contrasts().white;
            (ratio < ENOUGH_CONTRAST).then(|| Warning {
                pointer: pointer.to_owned(),
                code: "low_contrast",
                detail: format!(
                    "its contrast with white is {ratio}, and text needs {ENOUGH_CONTRAST}: put black text on it, and do \
                     not write with it on white"
                ),
            })
        });
        low.collect()
    }

    /// The style sheet of the tenant: variables, and its own rules. What was stored under older rules is reduced to what
    /// is let through today.
    pub fn theme(&self) -> String {
        let own =
            sanitise_css(&self.custom_css, &self.hosts()).map_or_else(|_| String::new(), |safe| safe.css);
        let on = |text: &str| Colour::parse(text).unwrap_or(Colour::WHITE).text();
        format!(
            ".{SCOPE} {{\n  {CONTAINMENT};\n  --brand-primary: {};\n  --brand-on-primary: {};\n  --brand-accent: {};\n  \
             --brand-on-accent: {};\n}}\n{}",
            self.primary_color,
            on(&self.primary_color),
            self.accent_color,
            on(&self.accent_color),
            own
        )
    }

    /// The hosts that pictures come from.
    pub fn hosts(&self) -> BTreeSet<String> {
        let urls = [&self.logo_url, &self.favicon_url].into_iter().flatten();
        let hosts = urls.filter_map(|url| Some(PublicUrl::parse(url).ok()?.host().to_owned()));
        hosts.collect()
    }
}

/// What is harmless of CSS. Control characters are in no CSS that anybody wrote.
fn safe(css: &str, hosts: &BTreeSet<String>) -> Result<SafeCss, Invalid> {
    let at = "/custom_css";
    let safe = sanitise_css(css, hosts).map_err(|error| Invalid::one(at, "too_long", error.to_string()))?;
    let text = check_text(css, 0..=CSS_LIMIT, true);
    text.map_err(|detail| Invalid::one(at, "invalid_text", detail))?;
    Ok(safe)
}

fn address(pointer: &str, text: &str, addresses: &mut Vec<Address>) -> Result<String, Invalid> {
    let url =
        PublicUrl::parse(text).map_err(|error| Invalid::one(pointer, error.code(), error.to_string()))?;
    let text = url.as_str().to_owned();
    addresses.push(Address {
        pointer: pointer.to_owned(),
        url,
    });
    Ok(text)
}

/// The look of the scope's tenant.
#[async_trait]
pub trait Brandings: Send {
    /// The branding, that of everybody when it was never changed.
    async fn current(&mut self) -> Result<Branding, StoreError>;
    /// Stores the next version. Whoever does holds a lock on the tenant.
    async fn store(&mut self, branding: &Branding) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep() -> BrandingPatch {
        BrandingPatch {
            display_name: Patch::Keep,
            logo_url: Patch::Keep,
            favicon_url: Patch::Keep,
            primary_color: Patch::Keep,
            accent_color: Patch::Keep,
            support_email: Patch::Keep,
            custom_css: Patch::Keep,
        }
    }

    #[test]
    fn css_that_was_let_in_is_let_in_again_however_long_it_became() {
        let patch = BrandingPatch {
            custom_css: Patch::Set("a,b,i,u,p{color:red}".repeat(3_000)),
            ..keep()
        };
        let first = Branding::default().changed(patch, Time::default()).unwrap();
        assert!(first.css.css.len() > 60_000 && first.css.css.len() <= crate::customization::CSS_LIMIT);
        assert!(
            first
                .css
                .removed
                .iter()
                .all(|removed| removed.reason == crate::customization::Objection::TooMuch)
        );
        let again = first.branding.changed(keep(), Time::default()).unwrap();
        assert_eq!(
            (again.css.removed, &again.branding.custom_css),
            (vec![], &first.branding.custom_css)
        );
        assert!(again.branding.looks_like(&first.branding));
    }

    #[test]
    fn css_stored_under_older_rules_is_reduced_when_served() {
        let branding = Branding {
            custom_css: ".tenant-brand {\n  box-shadow: 0 0 0 9999px red;\n  color: red;\n}\n".into(),
            ..Branding::default()
        };
        let theme = branding.theme();
        assert!(
            theme.starts_with(".tenant-brand {\n  contain: paint;\n"),
            "{theme}"
        );
        assert!(
            theme.ends_with("}\n.tenant-brand {\n  color: red;\n}\n"),
            "{theme}"
        );
    }

    #[test]
    fn everything_that_does_not_hold_is_said_at_once() {
        let patch = BrandingPatch {
            display_name: Patch::Set(String::new()),
            logo_url: Patch::Set("https://127.1/".into()),
            primary_color: Patch::Set("red".into()),
            support_email: Patch::Set("x".into()),
            ..keep()
        };
        let Invalid(errors) = Branding::default().changed(patch, Time::default()).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/display_name", "/logo_url", "/primary_color", "/support_email"]
        );
    }
}
