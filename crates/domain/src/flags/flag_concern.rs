use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::flags::flag_program::{CompiledFlag, CompiledRule, Digest, LEVELS, Test};
use crate::flags::{FlagProgram, FlagTenant};
use crate::kernel::{Role, TenantId, Time};

/// What all definitions come to for one tenant, as a digest: it changes when something changes that the tenant may see
/// the effect of, and never because of what is said of other tenants.
///
/// Conditions about the tenant (its id, slug and plan) are decided, not digested: adding another tenant to the list of
/// those that a rule is about changes nothing here. Conditions about a subject are digested as they are written; a rule
/// with nothing else in it is about the subjects of every tenant.
#[derive(Debug)]
pub(crate) struct Concern {
    digest: Digest,
    /// The moments at which the schedule of such a rule begins or ends, in order.
    moments: Box<[Time]>,
}

impl Concern {
    /// What the flags that somebody in the tenant may know of come to, with those that they depend on.
    pub(crate) fn of(program: &FlagProgram, tenant: &FlagTenant) -> Self {
        let mut reading = Reading {
            program,
            tenant,
            hasher: Sha256::new(),
            moments: BTreeSet::new(),
            seen: vec![false; program.flags.len()],
        };
        // Admins see all that anybody sees.
        let visible = |(_, flag): &(usize, &CompiledFlag)| flag.definition.visible_to(Some(Role::Admin));
        for (index, flag) in program.flags.iter().enumerate().filter(visible) {
            reading.part(flag.definition.description.as_bytes());
            reading.flag(index);
        }
        Self {
            digest: reading.hasher.finalize().into(),
            moments: reading.moments.into_iter().collect(),
        }
    }

    /// The digest, with the tenant, its choices, and how far its schedules are at a time.
    pub(crate) fn fingerprint(&self, tenant: TenantId, choices: &Digest, now: Time) -> [u8; 88] {
        let moment = self.moments.partition_point(|moment| *moment <= now) as u64;
        let mut bytes = [0; 88];
        bytes[..16].copy_from_slice(tenant.uuid().as_bytes());
        bytes[16..48].copy_from_slice(&self.digest);
        bytes[48..80].copy_from_slice(choices);
        bytes[80..].copy_from_slice(&moment.to_be_bytes());
        bytes
    }
}

struct Reading<'a> {
    program: &'a FlagProgram,
    tenant: &'a FlagTenant,
    hasher: Sha256,
    moments: BTreeSet<Time>,
    seen: Vec<bool>,
}

impl Reading<'_> {
    /// With its length before it, so that where a part ends is clear.
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_be_bytes());
        self.hasher.update(bytes);
    }

    fn flag(&mut self, index: usize) {
        let flag = &self.program.flags[index];
        let definition = &flag.definition;
        self.part(definition.key.as_bytes());
        if std::mem::replace(&mut self.seen[index], true) {
            return;
        }
        let what_it_is = serde_json::json!([
            definition.kind,
            definition.variants,
            flag.default,
            flag.off,
            definition.salt(),
            definition.lifecycle,
            flag.open,
            definition.tenant_overridable,
            definition.client_visible,
        ]);
        self.part(what_it_is.to_string().as_bytes());
        for level in LEVELS {
            let rules = flag.rules(level).iter();
            let concerning: Vec<_> = rules
                .filter(|rule| self.program.concerns(rule, self.tenant))
                .collect();
            self.part(&(concerning.len() as u64).to_be_bytes());
            concerning.into_iter().for_each(|rule| self.rule(rule));
        }
        for (other, variant) in &flag.prerequisites {
            self.part(&(*variant as u64).to_be_bytes());
            match other {
                Some(other) => self.flag(*other),
                None => self.part(b"no such flag"),
            }
        }
    }

    fn rule(&mut self, rule: &CompiledRule) {
        self.part(&rule.serves);
        for moment in [rule.from, rule.until] {
            self.part(
                moment
                    .map(|moment| moment.to_rfc3339())
                    .unwrap_or_default()
                    .as_bytes(),
            );
            self.moments.extend(moment);
        }
        self.tests(&rule.when);
    }

    /// Those that depend on the subject.
    fn tests(&mut self, tests: &[Test]) {
        let open: Vec<_> = tests
            .iter()
            .filter(|test| self.program.of_tenant(test, self.tenant).is_none())
            .collect();
        self.part(&(open.len() as u64).to_be_bytes());
        for test in open {
            match test {
                Test::Attribute(_, _, condition) => self.part(condition),
                Test::Segment(Some(segment), negate) => {
                    self.part(&[u8::from(*negate)]);
                    self.tests(self.program.segment(*segment));
                }
                Test::Segment(None, _) => self.part(b"no such segment"),
            }
        }
    }
}
