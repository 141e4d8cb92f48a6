//! Feature flags: definitions, segments, overrides, and their evaluation.
//!
//! A definition is compiled once into a [`FlagProgram`]; a [`FlagSet`] answers for one tenant without I/O.
//! May use: `kernel`, `tenant`.

mod bucket;
pub(crate) mod condition;
mod flag;
mod flag_catalogue;
pub(crate) mod flag_concern;
mod flag_key;
mod flag_override;
pub(crate) mod flag_program;
mod flag_set;
mod flag_source;
mod flag_subject;
mod segment;

pub use bucket::{Bucket, Share, WHOLE};
pub use condition::{Comparator, Condition, KNOWN_ATTRIBUTES};
pub use flag::{FlagDefinition, FlagRule, FlagType, Lifecycle, Part, Prerequisite, Serve, Split};
pub use flag_catalogue::{
    DefinitionVersion, FlagCatalogue, FlagEditing, FlagOverrides, FlagVersion, SegmentVersion,
};
pub use flag_override::FlagOverride;
pub use flag_program::FlagProgram;
pub use flag_set::{
    Evaluation, Explanation, FlagSet, LevelResult, PrerequisiteResult, Reason, RuleOutcome, RuleResult,
};
pub use flag_source::{FlagDefinitions, FlagSource};
pub use flag_subject::{FlagTenant, Subject};
pub use segment::Segment;
