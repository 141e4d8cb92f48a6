//! What a tenant may shape: settings in levels, branding, and style sheets that stay in their box.
//!
//! May use: `kernel`, `plans`, `identity`, `tenant`.

mod address;
mod branding;
mod colour;
mod css;
mod setting;

pub use address::Address;
pub use branding::{Branding, BrandingPatch, Brandings, Rebranded, Warning};
pub use colour::{Colour, Contrasts, ENOUGH_CONTRAST};
pub use css::{
    CONTAINMENT, CSS_LIMIT, CssTooLong, Objection, Removed, SCOPE, SafeCss, VARIABLES, sanitise_css,
};
pub use setting::{
    Configurations, Definition, Difference, Editor, EffectiveSettings, Field, InvalidSetting, Kind, Pattern,
    RegistryError, SealedSecret, Setting, SettingChange, SettingRegistry, SettingSheet, SettingSheets,
    SettingVersion, TenantConfiguration,
};
