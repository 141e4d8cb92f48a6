//! What can be set for a tenant: typed definitions, what a tenant has set of them, and what holds.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::customization::{Address, Branding, Colour};
use crate::identity::{AddressRules, AllowedNetwork};
use crate::kernel::{
    Check, Invalid, LONGEST_URL, Level, Patch, PublicUrl, Resolved, StoreError, TenantId, Time, UserId,
    check_text, pointer_segment, resolve,
};
use crate::plans::PlanTerms;
use crate::tenant::TenantScope;

/// A setting that can be read in process, with its type: `const DIGEST: Setting<String> = Setting::new("…")`.
///
/// The type must be one that every value of its [`Definition`] can be read as: `Option<…>` where the default is null.
#[derive(Debug)]
pub struct Setting<T> {
    key: &'static str,
    reads: PhantomData<fn() -> T>,
}

impl<T> Setting<T> {
    /// The setting of that key.
    pub const fn new(key: &'static str) -> Self {
        Self {
            key,
            reads: PhantomData,
        }
    }

    /// Returns the name under which the definition is registered.
    pub const fn key(&self) -> &'static str {
        self.key
    }
}

impl<T: DeserializeOwned> Setting<T> {
    /// Its value out of what holds for a tenant; `None` when it is not defined, or not of this type.
    pub fn of(&self, settings: &EffectiveSettings) -> Option<T> {
        T::deserialize(&settings.values.get(self.key)?.value).ok()
    }

    /// The value of a restriction: as [`Setting::of`], but what the tenant has set and cannot be read is an error and not the inherited
    /// value, so that a mistake opens nothing.
    ///
    /// # Errors
    /// [`InvalidSetting`].
    pub fn restriction_of(&self, settings: &EffectiveSettings) -> Result<Option<T>, InvalidSetting> {
        if settings.invalid.contains(self.key) {
            return Err(InvalidSetting(self.key));
        }
        Ok(self.of(settings))
    }
}

/// What is stored for a tenant under this key does not hold (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored value of {0} cannot be read")]
pub struct InvalidSetting(&'static str);

/// Who may change a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Editor {
    /// An admin of the tenant, and whoever may more.
    TenantAdmin,
    /// Only the operator of the platform.
    Operator,
}

/// What values a setting may have. Structured values are made of the same kinds, so that a rule such as that for
/// addresses holds inside of them too.
#[derive(Debug, Clone)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A whole number in a range.
    Integer(RangeInclusive<i64>),
    /// One line of text.
    Text {
        /// How many characters.
        length: RangeInclusive<usize>,
        /// What the whole text must match.
        pattern: Option<Pattern>,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A colour, `#rrggbb`.
    Colour,
    /// An https address that leads outside.
    Url,
    /// A network in CIDR notation, or an address, of IPv4 or IPv6.
    Network,
    /// A list of values of one kind.
    List {
        /// The kind of every element.
        of: Box<Self>,
        /// How many at the most.
        most: usize,
    },
    /// An object with these fields and no others.
    Object(Vec<Field>),
}

/// A regular expression for a whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: &'static str,
    /// Read when it is first needed; `None` when it cannot be, which is seen when the registry is made.
    read: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// The expression that is written so.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            read: OnceLock::new(),
        }
    }

    /// The expression with both ends fixed.
    fn whole(&self) -> String {
        format!("^(?:{})$", self.text)
    }

    fn read(&self) -> Option<&Regex> {
        self.read.get_or_init(|| Regex::new(&self.whole()).ok()).as_ref()
    }

    fn matches(&self, text: &str) -> bool {
        self.read().is_some_and(|pattern| pattern.is_match(text))
    }
}

/// A field of an object.
#[derive(Debug, Clone)]
pub struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
}

impl Field {
    /// One that must be there.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            required: true,
        }
    }

    /// One that may be absent.
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            required: false,
        }
    }
}

impl Kind {
    /// Text of some length.
    pub const fn text(length: RangeInclusive<usize>) -> Self {
        Self::Text {
            length,
            pattern: None,
        }
    }

    /// Text of some length that a regular expression matches from its beginning to its end.
    pub const fn matching(length: RangeInclusive<usize>, pattern: &'static str) -> Self {
        Self::Text {
            length,
            pattern: Some(Pattern::new(pattern)),
        }
    }

    /// A list of up to so many values.
    pub fn list(of: Self, most: usize) -> Self {
        Self::List {
            of: Box::new(of),
            most,
        }
    }

    /// As JSON Schema 2020-12.
    pub fn schema(&self) -> Value {
        match self {
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer(range) => {
                json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
            }
            Self::Text { length, pattern } => {
                let mut schema =
                    json!({"type": "string", "minLength": length.start(), "maxLength": length.end()});
                if let Some(pattern) = pattern {
                    schema["pattern"] = json!(pattern.whole());
                }
                schema
            }
            Self::Choice(words) => json!({"type": "string", "enum": words}),
            Self::Colour => json!({"type": "string", "pattern": "^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$"}),
            Self::Url => {
                json!({"type": "string", "format": "uri", "pattern": "^https://", "maxLength": LONGEST_URL})
            }
            Self::Network => {
                json!({"type": "string", "maxLength": 49, "examples": ["203.0.113.0/24", "2001:db8::/32"]})
            }
            Self::List { of, most } => json!({"type": "array", "items": of.schema(), "maxItems": most}),
            Self::Object(fields) => {
                let properties: BTreeMap<_, _> = fields
                    .iter()
                    .map(|field| (field.name, field.kind.schema()))
                    .collect();
                let required: Vec<_> = fields
                    .iter()
                    .filter(|field| field.required)
                    .map(|field| field.name)
                    .collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }
        }
    }

    /// The value in its normal form, with what does not hold noted at its pointer, and the addresses in it.
    fn check(&self, value: &Value, at: &str, check: &mut Check, addresses: &mut Vec<Address>) -> Value {
        let mut fail = |code, detail: String| {
            check.fail(at, code, detail);
            Value::Null
        };
        match self {
            Self::Boolean if value.is_boolean() => value.clone(),
            Self::Boolean => fail("invalid_type", "must be a boolean".into()),
            Self::Integer(range) => match value.as_i64() {
                Some(number) if range.contains(&number) => value.clone(),
                Some(_) => fail(
                    "out_of_range",
                    format!("must be {} to {}", range.start(), range.end()),
                ),
                None => fail(
                    "invalid_type",
                    format!("must be an integer from {} to {}", range.start(), range.end()),
                ),
            },
            Self::Text { length, pattern } => match value.as_str() {
                None => fail("invalid_type", "must be a string".into()),
                Some(text) => match check_text(text, length.clone(), false) {
                    Err(detail) => fail("invalid_text", detail),
                    Ok(()) => match pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                        Some(pattern) => fail("invalid_text", format!("must match {}", pattern.whole())),
                        None => value.clone(),
                    },
                },
            },
            Self::Choice(words) => match value.as_str() {
                Some(word) if words.contains(&word) => value.clone(),
                Some(_) | None => fail("invalid_value", format!("must be one of {}", words.join(", "))),
            },
            Self::Colour => match value.as_str().and_then(Colour::parse) {
                Some(colour) => json!(colour.to_string()),
                None => fail("invalid_colour", "must be a colour such as #1a2b3c".into()),
            },
            Self::Url => match value.as_str().map(PublicUrl::parse) {
                None => fail("invalid_type", "must be a string".into()),
                Some(Err(error)) => fail(error.code(), error.to_string()),
                Some(Ok(url)) => {
                    let value = json!(url.as_str());
                    addresses.push(Address {
                        pointer: at.to_owned(),
                        url,
                    });
                    value
                }
            },
            Self::Network => match value.as_str().and_then(AllowedNetwork::parse) {
                Some(network) => json!(network.to_string()),
                None => fail(
                    "invalid_network",
                    "must be a network such as 203.0.113.0/24 or 2001:db8::/32 without bits behind its prefix, or an address".into(),
                ),
            },
            Self::List { of, most } => match value.as_array() {
                None => fail("invalid_type", "must be an array".into()),
                Some(items) if items.len() > *most => {
                    fail("too_many", format!("must have at most {most} items"))
                }
                Some(items) => {
                    let items = items.iter().enumerate();
                    items
                        .map(|(place, item)| of.check(item, &format!("{at}/{place}"), check, addresses))
                        .collect()
                }
            },
            Self::Object(fields) => check_object(fields, value, at, check, addresses),
        }
    }

    fn patterns(&self) -> Vec<&Pattern> {
        match self {
            Self::Text { pattern, .. } => pattern.iter().collect(),
            Self::List { of, .. } => of.patterns(),
            Self::Object(fields) => fields.iter().flat_map(|field| field.kind.patterns()).collect(),
            Self::Boolean | Self::Integer(_) | Self::Choice(_) | Self::Colour | Self::Url | Self::Network => {
                Vec::new()
            }
        }
    }
}

fn check_object(
    fields: &[Field],
    value: &Value,
    at: &str,
    check: &mut Check,
    addresses: &mut Vec<Address>,
) -> Value {
    let Some(object) = value.as_object() else {
        check.fail(at, "invalid_type", "must be an object");
        return Value::Null;
    };
    for name in object
        .keys()
        .filter(|name| fields.iter().all(|field| field.name != *name))
    {
        check.fail(
            &format!("{at}/{}", pointer_segment(name)),
            "unknown_field",
            "is not known here",
        );
    }
    let mut normal = serde_json::Map::new();
    for field in fields {
        let here = format!("{at}/{}", pointer_segment(field.name));
        match object.get(field.name) {
            Some(value) => {
                let value = field.kind.check(value, &here, check, addresses);
                normal.insert(field.name.to_owned(), value);
            }
            None if field.required => check.fail(&here, "required", "is required"),
            None => {}
        }
    }
    Value::Object(normal)
}

/// A setting: its key, its values, and whose business it is.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name everywhere: `area.name`, of a-z, 0-9, '_' and '.'.
    pub key: &'static str,
    /// What values it may have.
    pub kind: Kind,
    /// What holds where nobody says otherwise; null for nothing.
    pub default: Value,
    /// What it means, for people.
    pub description: &'static str,
    /// Who may change it.
    pub editor: Editor,
    /// Whether everybody in the tenant may see it; else only its admins do.
    pub client_visible: bool,
    /// Whether its value is shown to nobody and stored sealed.
    pub secret: bool,
}

impl Definition {
    /// A setting that admins of the tenant see and change, and others do not see.
    pub const fn new(key: &'static str, kind: Kind, default: Value, description: &'static str) -> Self {
        Self {
            key,
            kind,
            default,
            description,
            editor: Editor::TenantAdmin,
            client_visible: false,
            secret: false,
        }
    }

    /// Everybody in the tenant may see it.
    #[must_use]
    pub const fn client_visible(mut self) -> Self {
        self.client_visible = true;
        self
    }

    /// Only the operator may change it.
    #[must_use]
    pub const fn operator_only(mut self) -> Self {
        self.editor = Editor::Operator;
        self
    }

    /// Nobody may see it, and it is stored sealed.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Whether the scope's actor may see it, or that it is there. An operator with support access sees what every user sees.
    pub fn is_seen_by(&self, scope: &TenantScope) -> bool {
        self.client_visible || (scope.is_admin() && scope.support_access().is_none())
    }

    /// A value in its normal form, and the addresses in it, which are still to be resolved.
    ///
    /// # Errors
    /// All that does not hold, each at its pointer below `at`.
    pub fn check(&self, value: &Value, at: &str) -> Result<(Value, Vec<Address>), Invalid> {
        let (mut check, mut addresses) = (Check::new(), Vec::new());
        let value = self.kind.check(value, at, &mut check, &mut addresses);
        check.verdict()?;
        Ok((value, addresses))
    }

    fn schema(&self) -> Value {
        json!({
            "description": self.description,
            "anyOf": [self.kind.schema(), {"type": "null"}],
            "default": self.default,
            "readOnly": self.editor == Editor::Operator,
            "writeOnly": self.secret,
            "x-client-visible": self.client_visible,
        })
    }
}

/// Why definitions are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {key}: {problem}")]
pub struct RegistryError {
    /// Of which setting.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

/// Every setting there is: the product's, and those of whoever embeds it.
#[derive(Debug, Clone, Default)]
pub struct SettingRegistry(BTreeMap<&'static str, Definition>);

impl SettingRegistry {
    /// A registry of these definitions.
    ///
    /// # Errors
    /// [`RegistryError`] at a key of another form or that is there twice, a pattern that is none, a default that does not
    /// hold, and a secret that is no text, is to be seen or has a default.
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Result<Self, RegistryError> {
        let mut registry = BTreeMap::new();
        for definition in definitions {
            let key = definition.key;
            let fail = |problem: String| RegistryError {
                key: key.to_owned(),
                problem,
            };
            verify(&definition).map_err(fail)?;
            if registry.insert(key, definition).is_some() {
                return Err(fail("is defined twice".into()));
            }
        }
        Ok(Self(registry))
    }

    /// The setting of that key.
    pub fn get(&self, key: &str) -> Option<&Definition> {
        self.0.get(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.0.values()
    }

    /// A plan's value for a setting, in its normal form.
    ///
    /// # Errors
    /// What is wrong with it, for the operator who wrote it.
    pub fn check_plan(&self, key: &str, value: &Value) -> Result<(), String> {
        let definition = self.get(key).ok_or("there is no such setting")?;
        if definition.secret {
            return Err("is a secret, which a plan cannot hold".into());
        }
        definition
            .check(value, "")
            .map(|_| ())
            .map_err(|invalid| sentence(&invalid))
    }

    /// What a change by `editor` comes to.
    ///
    /// # Errors
    /// All that does not hold, each at its pointer.
    pub fn check_change(
        &self,
        editor: Editor,
        change: &BTreeMap<String, Patch<Value>>,
    ) -> Result<SettingChange, Invalid> {
        let mut check = Check::new();
        let mut checked = SettingChange::default();
        for (key, patch) in change {
            let at = format!("/{}", pointer_segment(key));
            let Some(definition) = self.get(key) else {
                check.fail(&at, "unknown_field", "is not known here");
                continue;
            };
            if definition.editor == Editor::Operator && editor == Editor::TenantAdmin {
                check.fail(&at, "read_only", "can be changed by the operator only");
                continue;
            }
            let value = match patch {
                Patch::Keep => continue,
                Patch::Clear => None,
                Patch::Set(value) => match check.take(definition.check(value, &at)) {
                    None => continue,
                    Some((value, addresses)) => {
                        checked.addresses.extend(addresses);
                        Some(value)
                    }
                },
            };
            checked.values.insert(definition.key, value);
        }
        check.verdict()?;
        Ok(checked)
    }

    /// What leads from `sheet` back to the values of a former version. Secrets and what only the operator may change
    /// stay as they are.
    ///
    /// # Errors
    /// At `/version`, each key of the version that is not defined any more or whose value no longer holds.
    pub fn check_rollback(
        &self,
        sheet: &SettingSheet,
        version: &SettingVersion,
    ) -> Result<SettingChange, Invalid> {
        let mut check = Check::new();
        let mut checked = SettingChange::default();
        let ours = |definition: &Definition| definition.editor == Editor::TenantAdmin && !definition.secret;
        for (key, value) in &version.values {
            let Some(definition) = self.get(key) else {
                check.fail(
                    "/version",
                    "no_longer_valid",
                    format!("{key}: there is no such setting any more"),
                );
                continue;
            };
            match definition.check(value, "") {
                _ if !ours(definition) => {}
                Ok((value, addresses)) => {
                    let at = |address| Address {
                        pointer: "/version".into(),
                        ..address
                    };
                    checked.addresses.extend(addresses.into_iter().map(at));
                    checked.values.insert(definition.key, Some(value));
                }
                Err(invalid) => {
                    check.fail(
                        "/version",
                        "no_longer_valid",
                        format!("{key}: {}", sentence(&invalid)),
                    );
                }
            }
        }
        check.verdict()?;
        for definition in self.iter().filter(|definition| ours(definition)) {
            if sheet.values.contains_key(definition.key) {
                checked.values.entry(definition.key).or_insert(None);
            }
        }
        Ok(checked)
    }

    /// What holds for a tenant with this plan that has set this. What is stored but no longer holds counts as not set, and is named.
    pub fn effective(&self, plan: &PlanTerms, sheet: &SettingSheet) -> EffectiveSettings {
        let invalid: BTreeSet<&'static str> = self
            .iter()
            .filter(|definition| {
                let stored = sheet.values.get(definition.key);
                stored.is_some_and(|value| definition.check(value, "").is_err())
            })
            .map(|definition| definition.key)
            .collect();
        let resolve = |definition: &Definition| {
            let by_tenant = sheet
                .values
                .get(definition.key)
                .filter(|_| !invalid.contains(definition.key))
                .cloned();
            let levels = [
                (Level::Plan, plan.settings.get(definition.key).cloned()),
                (Level::Tenant, by_tenant),
            ];
            (definition.key, resolve(definition.default.clone(), levels))
        };
        let open = self.iter().filter(|definition| !definition.secret);
        let secrets = sheet.secrets.iter();
        EffectiveSettings {
            version: sheet.version,
            updated_at: sheet.updated_at,
            values: open.map(resolve).collect(),
            secrets: secrets
                .map(|(key, secret)| (key.clone(), secret.sealed.clone()))
                .collect(),
            invalid,
        }
    }

    /// The settings as JSON Schema 2020-12, for whoever changes them: those that the scope's user may see.
    pub fn schema(&self, scope: &TenantScope) -> Value {
        let seen = self.iter().filter(|definition| definition.is_seen_by(scope));
        let properties: BTreeMap<_, _> = seen
            .map(|definition| (definition.key, definition.schema()))
            .collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Settings of a tenant",
            "description": "What may be sent to PATCH /api/v1/tenant/settings. Null goes back to the inherited value.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

fn verify(definition: &Definition) -> Result<(), String> {
    let key = definition.key;
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(inner)
    };
    if key.len() > 100 || !key.split('.').all(part) {
        return Err(
            "a key is up to 100 of a-z, 0-9, '_' and '.', with a letter at the beginning of each part".into(),
        );
    }
    for pattern in definition.kind.patterns() {
        pattern
            .read()
            .ok_or_else(|| format!("the pattern {} cannot be read", pattern.text))?;
    }
    if definition.secret {
        let is_text = matches!(definition.kind, Kind::Text { .. });
        if !is_text || definition.client_visible || !definition.default.is_null() {
            return Err("a secret is a text that nobody may see and that has no default".into());
        }
    }
    if definition.default.is_null() {
        return Ok(());
    }
    let checked = definition
        .check(&definition.default, "")
        .map_err(|invalid| sentence(&invalid))?;
    if checked.0 == definition.default {
        Ok(())
    } else {
        Err(format!("the default is to be written as {}", checked.0))
    }
}

/// What is wrong, in one line.
fn sentence(Invalid(errors): &Invalid) -> String {
    let sentences = errors
        .iter()
        .map(|error| format!("{} {}", error.pointer, error.detail).trim().to_owned());
    sentences.collect::<Vec<_>>().join("; ")
}

/// A change that holds: for each key what is to be, `None` for the inherited value.
#[derive(Debug, Clone, Default)]
pub struct SettingChange {
    /// The new value of each changed key; `None` removes the tenant's own.
    pub values: BTreeMap<&'static str, Option<Value>>,
    /// The addresses in it, which are still to be resolved.
    pub addresses: Vec<Address>,
}

/// What a tenant has set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SettingSheet {
    /// Counts its changes; 0 before the first.
    pub version: i64,
    /// When it was last changed, if it was.
    pub updated_at: Option<Time>,
    /// By key.
    pub values: BTreeMap<String, Value>,
    /// By key.
    pub secrets: BTreeMap<String, SealedSecret>,
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Sealed for [`SettingSheet::place`].
    pub sealed: Vec<u8>,
    /// In which version it was set.
    pub since: i64,
}

impl SettingSheet {
    /// What a secret is sealed for.
    pub fn place(tenant: TenantId, key: &str) -> String {
        format!("setting {tenant} {key}")
    }

    /// The next version of the sheet, with a change made; `seal` seals the secret of a key.
    pub fn changed(
        &self,
        registry: &SettingRegistry,
        change: &SettingChange,
        seal: impl Fn(&str, &str) -> Vec<u8>,
        now: Time,
    ) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.updated_at = Some(now);
        for (key, value) in &change.values {
            let secret = registry.get(key).is_some_and(|definition| definition.secret);
            match value {
                None if secret => drop(next.secrets.remove(*key)),
                None => drop(next.values.remove(*key)),
                Some(value) if secret => {
                    let sealed = seal(key, value.as_str().unwrap_or_default());
                    let since = next.version;
                    next.secrets
                        .insert((*key).to_owned(), SealedSecret { sealed, since });
                }
                Some(value) => drop(next.values.insert((*key).to_owned(), value.clone())),
            }
        }
        next
    }

    /// Whether the same is set in both.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.values == other.values && self.secrets == other.secrets
    }

    /// The version as an entry of the history.
    pub fn snapshot(
        &self,
        changed_by: Option<UserId>,
        rolled_back_to: Option<i64>,
        at: Time,
    ) -> SettingVersion {
        let secrets = self.secrets.iter();
        SettingVersion {
            version: self.version,
            values: self.values.clone(),
            secrets: secrets.map(|(key, secret)| (key.clone(), secret.since)).collect(),
            changed_by,
            rolled_back_to,
            created_at: at,
        }
    }
}

/// What a tenant had set at one time. Secrets are not kept: of each it is known only in which version it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingVersion {
    /// Which version, from 1.
    pub version: i64,
    /// By key.
    pub values: BTreeMap<String, Value>,
    /// In which version each secret was set.
    pub secrets: BTreeMap<String, i64>,
    /// Who made it; nobody when it was the operator.
    pub changed_by: Option<UserId>,
    /// The version that was gone back to, when it was made so.
    pub rolled_back_to: Option<i64>,
    /// When it was made.
    pub created_at: Time,
}

/// How two versions differ in one setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The setting that differs.
    pub key: String,
    /// What the first has; a secret only says that it is set.
    pub before: Option<Value>,
    /// What the second has.
    pub after: Option<Value>,
}

impl SettingVersion {
    /// All of it as one may see it: a secret only says that it is set.
    pub fn shown(&self) -> BTreeMap<String, Value> {
        let keys = self.values.keys().chain(self.secrets.keys());
        keys.filter_map(|key| Some((key.clone(), self.shown_of(key)?)))
            .collect()
    }

    fn shown_of(&self, key: &str) -> Option<Value> {
        let secret = self.secrets.get(key).map(|_| json!({"is_set": true}));
        self.values.get(key).cloned().or(secret)
    }

    /// How `other` differs, by key.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let keys = self
            .values
            .keys()
            .chain(self.secrets.keys())
            .chain(other.values.keys())
            .chain(other.secrets.keys());
        let keys: BTreeSet<&String> = keys.collect();
        let differs = |key: &&&String| {
            self.values.get(**key) != other.values.get(**key)
                || self.secrets.get(**key) != other.secrets.get(**key)
        };
        let difference = |key: &&String| Difference {
            key: (*key).clone(),
            before: self.shown_of(key),
            after: other.shown_of(key),
        };
        keys.iter().filter(differs).map(difference).collect()
    }
}

/// What holds for a tenant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EffectiveSettings {
    /// The version of what the tenant has set.
    pub version: i64,
    /// When that was last changed, if it was.
    pub updated_at: Option<Time>,
    /// Every setting that is no secret, with the level that it comes from.
    pub values: BTreeMap<&'static str, Resolved<Value>>,
    /// The secrets that are set, sealed.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// What is stored for the tenant but no longer holds, and so counts as not set. See [`Setting::restriction_of`].
    pub invalid: BTreeSet<&'static str>,
}

/// All that a tenant's people have configured, put together with what it inherits.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantConfiguration {
    /// What the tenant is called.
    pub name: String,
    /// The effective values of all levels together.
    pub settings: EffectiveSettings,
    /// From which addresses the tenant takes requests, as the settings say.
    pub addresses: AddressRules,
    /// How it looks.
    pub branding: Branding,
}

/// Where the configuration of a tenant is read.
#[async_trait]
pub trait Configurations: Send + Sync {
    /// What is known of the tenant's without asking the store.
    fn cached(&self, tenant: TenantId) -> Option<Arc<TenantConfiguration>>;

    /// The configuration of the scope's tenant.
    async fn of(&self, scope: &TenantScope) -> Result<Arc<TenantConfiguration>, StoreError>;
}

/// What the scope's tenant has set, with its history.
#[async_trait]
pub trait SettingSheets: Send {
    /// The sheet, empty when nothing was ever set.
    async fn current(&mut self) -> Result<SettingSheet, StoreError>;
    /// Stores the next version of the sheet and its entry of the history. Whoever does holds a lock on the tenant.
    async fn store(&mut self, sheet: &SettingSheet, version: &SettingVersion) -> Result<(), StoreError>;
    /// Stores the same secrets, sealed anew: no change that anybody would notice.
    async fn store_resealed(&mut self, sheet: &SettingSheet) -> Result<(), StoreError>;
    /// Returns the entry of the history with that number.
    async fn find_version(&mut self, version: i64) -> Result<Option<SettingVersion>, StoreError>;
    /// At most `limit` versions, newest first, from below version `before` on.
    async fn list_versions(
        &mut self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SettingVersion>, StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn plan(settings: BTreeMap<&str, Value>) -> PlanTerms {
        PlanTerms {
            meters: BTreeMap::new(),
            prices: Vec::new(),
            trial_days: 0,
            grace_days: 7,
            name: "one".into(),
            version: 1,
            title: "One".into(),
            limits: BTreeMap::new(),
            features: BTreeSet::new(),
            settings: settings
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }

    fn definition(kind: Kind, default: Value) -> Definition {
        Definition::new("a.b", kind, default, "For a test.")
    }

    fn numbers() -> SettingRegistry {
        let number = |key| Definition::new(key, Kind::Integer(0..=99), json!(0), "A number.");
        let secret = Definition::new("s.secret", Kind::text(1..=20), Value::Null, "A secret.").secret();
        let theirs = number("o.theirs").operator_only();
        SettingRegistry::new([number("n.a"), number("n.b"), number("n.c"), secret, theirs]).unwrap()
    }

    #[test]
    fn definitions_that_cannot_be_meant_are_refused() {
        let key = |key| Definition::new(key, Kind::Boolean, json!(true), "A key.");
        for (definitions, problem) in [
            (vec![key("a.b"), key("a.b")], "is defined twice"),
            (vec![key("A")], "a key is"),
            (vec![key("a..b")], "a key is"),
            (vec![key("a.1")], "a key is"),
            (vec![definition(Kind::Boolean, json!("yes"))], "must be a boolean"),
            (vec![definition(Kind::Integer(1..=3), json!(4))], "must be 1 to 3"),
            (
                vec![definition(Kind::matching(0..=9, "("), Value::Null)],
                "the pattern ( cannot be read",
            ),
            (
                vec![definition(Kind::list(Kind::matching(0..=9, "["), 1), json!([]))],
                "the pattern [ cannot be read",
            ),
            (
                vec![definition(Kind::Colour, json!("#FFF"))],
                "is to be written as \"#ffffff\"",
            ),
            (vec![definition(Kind::Url, json!("https://10.0.0.1"))], "internal"),
            (
                vec![definition(Kind::text(0..=9), json!("x")).secret()],
                "a secret is",
            ),
            (
                vec![
                    definition(Kind::text(0..=9), Value::Null)
                        .secret()
                        .client_visible(),
                ],
                "a secret is",
            ),
            (
                vec![definition(Kind::Boolean, Value::Null).secret()],
                "a secret is",
            ),
        ] {
            let error = SettingRegistry::new(definitions).unwrap_err();
            assert!(error.problem.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_pattern_is_of_the_whole_text() {
        let definition = definition(Kind::matching(0..=9, "a|b"), Value::Null);
        assert!(definition.check(&json!("a"), "").is_ok() && definition.check(&json!("b"), "").is_ok());
        for text in ["ab", "xa", "bx", "", "a\n"] {
            assert!(definition.check(&json!(text), "").is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_a_plan_says_is_checked_with_the_key_of_what_is_wrong() {
        let registry = numbers();
        assert_eq!(registry.check_plan("n.a", &json!(5)), Ok(()));
        assert_eq!(
            registry.check_plan("n.a", &json!(500)),
            Err("must be 0 to 99".into())
        );
        assert!(
            registry.check_plan("n.z", &json!(5)).is_err()
                && registry.check_plan("s.secret", &json!("x")).is_err()
        );
    }

    #[test]
    fn what_is_stored_but_no_longer_holds_counts_as_not_set() {
        let sheet = SettingSheet {
            values: BTreeMap::from([
                ("n.a".into(), json!(7)),
                ("n.b".into(), json!("old")),
                ("n.z".into(), json!(1)),
            ]),
            ..SettingSheet::default()
        };
        let plan = plan(BTreeMap::from([("n.a", json!(1)), ("n.b", json!(2))]));
        let effective = numbers().effective(&plan, &sheet);
        let of = |key: &str| (effective.values[key].value.clone(), effective.values[key].level);
        assert_eq!(of("n.a"), (json!(7), Level::Tenant));
        assert_eq!(of("n.b"), (json!(2), Level::Plan));
        assert_eq!(of("n.c"), (json!(0), Level::Default));
        assert!(!effective.values.contains_key("n.z"));
        assert_eq!(Setting::<u8>::new("n.a").of(&effective), Some(7));
        assert_eq!(Setting::<bool>::new("n.a").of(&effective), None);
    }

    fn seal(_: &str, text: &str) -> Vec<u8> {
        text.bytes().rev().collect()
    }

    proptest! {
        /// Changes in any order: each is a version, differences lead from one to the other, and going back does.
        #[test]
        fn a_rollback_brings_back_what_was_and_touches_no_secret(
            changes in proptest::collection::vec((0_usize..5, proptest::option::of(0_i64..99)), 1..12),
            to in 0_usize..12,
        ) {
            let registry = numbers();
            let keys = ["n.a", "n.b", "n.c", "s.secret", "o.theirs"];
            let mut sheet = SettingSheet::default();
            let mut history = Vec::new();
            for (place, value) in changes {
                let key = keys[place];
                let value = value.map(|number| if key == "s.secret" { json!(number.to_string()) } else { json!(number) });
                let patch = BTreeMap::from([(key.to_owned(), value.map_or(Patch::Clear, Patch::Set))]);
                let refused = registry.check_change(Editor::TenantAdmin, &patch).is_err();
                prop_assert_eq!(refused, key == "o.theirs");
                let change = registry.check_change(Editor::Operator, &patch).unwrap();
                sheet = sheet.changed(&registry, &change, seal, Time::default());
                history.push(sheet.snapshot(None, None, Time::default()));
            }
            let former = &history[to % history.len()];
            let change = registry.check_rollback(&sheet, former).unwrap();
            let back = sheet.changed(&registry, &change, seal, Time::default());
            prop_assert_eq!(back.version, sheet.version + 1);
            prop_assert_eq!(&back.secrets, &sheet.secrets);
            prop_assert_eq!(back.values.get("o.theirs"), sheet.values.get("o.theirs"));
            for key in &keys[..3] {
                prop_assert_eq!(back.values.get(*key), former.values.get(*key));
            }
            let now = sheet.snapshot(None, None, Time::default());
            let mut shown = former.shown();
            for difference in former.differences(&now) {
                match difference.after {
                    Some(value) => drop(shown.insert(difference.key, value)),
                    None => drop(shown.remove(&difference.key)),
                }
            }
            prop_assert_eq!(shown, now.shown());
            let secret = now.shown().remove("s.secret");
            prop_assert_eq!(secret.is_some(), sheet.secrets.contains_key("s.secret"));
            let is_set = json!({"is_set": true});
            prop_assert!(secret.is_none_or(|shown| shown == is_set));
        }
    }

    #[test]
    fn a_secret_is_sealed_for_its_tenant_and_key() {
        let places: BTreeSet<_> = [1, 2]
            .into_iter()
            .flat_map(|tenant| ["a", "b"].map(|key| SettingSheet::place(Uuid::from_u128(tenant).into(), key)))
            .collect();
        assert_eq!(places.len(), 4);
    }
}
