//! Values of another installation's archive: what no use case would store here is not imported either.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_domain::archive::ArchiveError;
use tenantry_domain::customization::{Branding, BrandingPatch, Editor};
use tenantry_domain::flags::FlagProgram;
use tenantry_domain::identity::{CustomRole, Email, NewCustomRole, NewUser, RoleName, User};
use tenantry_domain::kernel::{CustomRoleId, Invalid, Patch, Role, SystemScope, Time};
use tenantry_domain::work::{
    NewProject, NewResource, NewTask, Priority, Project, Resource, Task, TaskStatus,
};
use uuid::Uuid;

use crate::{Ports, Tenancy};

/// Checks rows of the product's tables by the rules of the use cases that change them.
pub(super) struct ValueCheck<'a> {
    ports: &'a Ports,
    flags: Arc<FlagProgram>,
}

impl<'a> ValueCheck<'a> {
    /// By the rules of this installation.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn new(app: &'a Tenancy, because: SystemScope) -> Result<Self, ArchiveError> {
        let ports = &app.ports;
        let flags = ports.flag_definitions.program(because).await?;
        Ok(Self { ports, flags })
    }

    /// What is wrong with a row of a table, in one line.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&self, table: &str, row: &str) -> Result<(), String> {
        match table {
            "tenant_settings" => self.settings(&read(row)?),
            "custom_roles" => self.custom_role(read(row)?),
            "flag_overrides" => self.flag_override(&read(row)?),
            "users" => user(read(row)?, self.ports),
            "invitations" => invitation(&read(row)?),
            "brandings" => branding(&read(row)?),
            "projects" => project(read(row)?),
            "tasks" => task(read(row)?),
            "resources" | "resource_versions" => resource(read(row)?),
            // Members of projects are ids and roles, which the database checks; a former version of settings is checked when a
            // tenant goes back to it. Tables of a service have its constraints.
            _ => Ok(()),
        }
    }

    /// As a change by the tenant's admin: what only operators may set is not taken over from another installation.
    fn settings(&self, row: &SettingsRow) -> Result<(), String> {
        let secret = |key: &&String| self.ports.settings.get(key).is_some_and(|known| known.secret);
        if let Some(key) = row.values.keys().find(secret) {
            return Err(format!(
                "the setting {key} is a secret, which is not stored as a value"
            ));
        }
        let set = |(key, value): (&String, &Value)| (key.clone(), Patch::Set(value.clone()));
        let change: BTreeMap<_, _> = row.values.iter().map(set).collect();
        let checked = self.ports.settings.check_change(Editor::TenantAdmin, &change);
        let checked = checked.map_err(|invalid| format!("the setting {}", sentence(&invalid)))?;
        let changed = |(key, value): &(&&str, &Option<Value>)| row.values.get(**key) != value.as_ref();
        match checked.values.iter().find(changed) {
            Some((key, _)) => Err(format!("the setting {key} is not in its normal form")),
            None => Ok(()),
        }
    }

    fn custom_role(&self, row: NewRoleRow) -> Result<(), String> {
        let new = NewCustomRole {
            name: row.name,
            description: Some(row.description),
            base_role: Some(row.base_role),
            permissions: row.permissions,
        };
        let id = CustomRoleId::from(Uuid::nil());
        let role = CustomRole::new(id, new, &self.ports.permissions, Time::UNIX_EPOCH);
        role.map(drop).map_err(|invalid| sentence(&invalid))
    }

    /// A flag that is not known here has no effect.
    fn flag_override(&self, row: &FlagOverrideRow) -> Result<(), String> {
        let FlagOverrideRow { flag, variant } = row;
        let Some(known) = self.flags.catalogue().flag(flag) else {
            return Ok(());
        };
        if !known.tenant_overridable {
            return Err(format!("tenants cannot override the flag {flag}"));
        }
        match known.variants.contains_key(variant) {
            true => Ok(()),
            false => Err(format!("the flag {flag} has no variant {variant:.100}")),
        }
    }
}

#[derive(Deserialize)]
struct SettingsRow {
    values: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct NewRoleRow {
    name: String,
    description: String,
    base_role: Role,
    permissions: Vec<String>,
}

#[derive(Deserialize)]
struct FlagOverrideRow {
    flag: String,
    variant: String,
}

#[derive(Deserialize)]
struct UserRow {
    email: String,
    full_name: String,
    role: Role,
    custom_role: Option<String>,
}

#[derive(Deserialize)]
struct InvitationRow {
    email: String,
    custom_role: Option<String>,
}

#[derive(Deserialize)]
struct BrandingRow {
    display_name: Option<String>,
    logo_url: Option<String>,
    favicon_url: Option<String>,
    primary_color: String,
    accent_color: String,
    support_email: Option<String>,
    custom_css: String,
}

#[derive(Deserialize)]
struct ProjectRow {
    name: String,
    description: Option<String>,
}

#[derive(Deserialize)]
struct TaskRow {
    title: String,
    description: Option<String>,
    status: TaskStatus,
    priority: Priority,
    due_at: Option<Time>,
}

#[derive(Deserialize)]
struct ResourceRow {
    name: String,
    kind: String,
    content: Option<String>,
    url: Option<String>,
}

fn read<T: DeserializeOwned>(row: &str) -> Result<T, String> {
    serde_json::from_str(row).map_err(|error| error.to_string())
}

fn sentence(Invalid(errors): &Invalid) -> String {
    let first = errors
        .first()
        .map(|error| (error.pointer.trim_start_matches('/'), &error.detail));
    first.map_or_else(String::new, |(field, detail)| format!("{field} {detail}"))
}

fn email(text: &str) -> Result<Email, String> {
    let email = Email::parse(text, "/email").map_err(|invalid| sentence(&invalid))?;
    match email.as_str() == text {
        true => Ok(email),
        false => Err("email is not in its normal form".to_owned()),
    }
}

fn role_name(name: Option<&str>) -> Result<(), String> {
    let parsed = name.map(RoleName::of_user).transpose();
    parsed.map(drop).map_err(|invalid| sentence(&invalid))
}

fn user(row: UserRow, ports: &Ports) -> Result<(), String> {
    role_name(row.custom_role.as_deref())?;
    let new = NewUser {
        email: email(&row.email)?,
        full_name: row.full_name,
        role: row.role,
    };
    let user = User::new(
        Uuid::nil().into(),
        new,
        ports.passwords.unusable(),
        Time::UNIX_EPOCH,
    );
    user.map(drop).map_err(|invalid| sentence(&invalid))
}

fn invitation(row: &InvitationRow) -> Result<(), String> {
    role_name(row.custom_role.as_deref())?;
    email(&row.email).map(drop)
}

fn branding(row: &BrandingRow) -> Result<(), String> {
    let optional = |text: &Option<String>| text.clone().map_or(Patch::Clear, Patch::Set);
    let patch = BrandingPatch {
        display_name: optional(&row.display_name),
        logo_url: optional(&row.logo_url),
        favicon_url: optional(&row.favicon_url),
        primary_color: Patch::Set(row.primary_color.clone()),
        accent_color: Patch::Set(row.accent_color.clone()),
        support_email: optional(&row.support_email),
        custom_css: Patch::Set(row.custom_css.clone()),
    };
    let changed = Branding::default().changed(patch, Time::UNIX_EPOCH);
    let changed = changed.map_err(|invalid| sentence(&invalid))?.branding;
    let stored = Branding {
        display_name: row.display_name.clone(),
        logo_url: row.logo_url.clone(),
        favicon_url: row.favicon_url.clone(),
        primary_color: row.primary_color.clone(),
        accent_color: row.accent_color.clone(),
        support_email: row.support_email.clone(),
        custom_css: row.custom_css.clone(),
        ..Branding::default()
    };
    match changed.looks_like(&stored) {
        true => Ok(()),
        false => Err("a color, an address or CSS is not as a change of the branding stores it".to_owned()),
    }
}

fn project(row: ProjectRow) -> Result<(), String> {
    let new = NewProject {
        name: row.name,
        description: row.description,
    };
    let project = Project::new(Uuid::nil().into(), Uuid::nil().into(), new, Time::UNIX_EPOCH);
    project.map(drop).map_err(|invalid| sentence(&invalid))
}

fn task(row: TaskRow) -> Result<(), String> {
    let new = NewTask {
        title: row.title,
        description: row.description,
        status: row.status,
        priority: row.priority,
        assignee_id: None,
        due_at: row.due_at,
    };
    let task = Task::new(Uuid::nil().into(), Uuid::nil().into(), new, Time::UNIX_EPOCH);
    task.map(drop).map_err(|invalid| sentence(&invalid))
}

fn resource(row: ResourceRow) -> Result<(), String> {
    let new = NewResource {
        project_id: None,
        name: row.name,
        kind: Some(row.kind),
        content: row.content,
        url: row.url,
    };
    let resource = Resource::new(Uuid::nil().into(), Uuid::nil().into(), new, Time::UNIX_EPOCH);
    resource.map(drop).map_err(|invalid| sentence(&invalid))
}
