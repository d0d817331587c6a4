//! Assistants: what a tenant calls by one name in place of a model. A record says which model, with which instructions,
//! tools, further shields, memory and orchestrator a request runs.
//!
//! Invariants:
//! - a version never changes; putting an assistant adds one
//! - an assistant adds to the tenant's mandatory shields and never takes one away (see [`Registry::pins_of`])

use super::{Registry, RegistryError, keys, now, parse, to_bytes};
use crate::id::{AssistantName, ComponentName, TenantId, Version};
use crate::plugin::OnFailure;
use crate::store::{Batch, Expect, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Most assistants of a tenant, and versions of an assistant.
const MAX_ASSISTANTS: usize = 1_000;
const MAX_VERSIONS: u32 = 10_000;
/// Largest definition as JSON text.
const MAX_DEFINITION_BYTES: usize = 256 << 10;
/// Most tools, shields a side, banks.
const MAX_TOOLS: usize = 128;
const MAX_SHIELDS: usize = 16;
const MAX_BANKS: usize = 32;
const MAX_BANK_NAME_BYTES: usize = 48;

/// What an assistant is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assistant {
    /// A served model.
    pub model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The system prompt as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// A system prompt from the tenant's prompt store, instead of or after `instructions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptRef>,
    /// The tenant's bound tools that a turn may call; absent: all that the orchestrator is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ComponentName>>,
    /// In addition to the tenant's mandatory ones.
    #[serde(default, skip_serializing_if = "Shields::is_empty")]
    pub shields: Shields,
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub memory: Memory,
    /// Absent: the one that the tenant has bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestrator: Option<OrchestratorRef>,
    /// Sampling fields of a chat completion, for requests that leave them out.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub sampling: Map<String, Value>,
    #[serde(default, skip_serializing_if = "TurnLimits::is_empty")]
    pub limits: TurnLimits,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A stored prompt and the values of its variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRef {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shields {
    pub input: Vec<ShieldRef>,
    pub output: Vec<ShieldRef>,
}

/// A shield of the tenant's components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShieldRef {
    pub component: ComponentName,
    /// Absent: the one uploaded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    #[serde(default)]
    pub on_failure: OnFailure,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    pub banks: Vec<BankRef>,
}

/// A memory bank under the name that the orchestrator and its tools use for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankRef {
    /// 1 to 48 of `a-z 0-9 - _`.
    pub name: String,
    #[serde(default)]
    pub scope: BankScope,
    #[serde(default)]
    pub write: bool,
}

/// Whose a bank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankScope {
    /// The tenant's bank of this name.
    #[default]
    Tenant,
    /// One for each end user.
    User,
    /// One for the assistant, over all its versions.
    Agent,
    /// One for each conversation or session.
    Session,
}

/// An orchestrator of the tenant's components, bound or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrchestratorRef {
    /// Absent: the bound one, whose configuration `config` goes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentName>,
    /// Absent: the one uploaded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Wins over what the record's other fields say.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
}

/// Bounds of one turn; absent: the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnLimits {
    /// Model calls, told to the orchestrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// From the first byte of the turn to its last, kept by the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Completion tokens of a model call, kept by the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
}

impl Shields {
    pub fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}
impl Memory {
    pub fn is_empty(&self) -> bool {
        self.banks.is_empty()
    }
}
impl TurnLimits {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One version of an assistant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssistantVersion {
    pub name: AssistantName,
    /// Counts from 1.
    pub version: u32,
    #[serde(flatten)]
    pub definition: Assistant,
    /// Seconds since 1970.
    pub created_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    latest: u32,
}

impl Registry {
    /// Adds a version when `expect` holds of the assistant ([`Expect::Absent`]: there is none of this name). The same
    /// definition as the newest version's is that version again.
    ///
    /// # Errors
    /// [`RegistryError::RevisionMismatch`] when `expect` does not hold, [`RegistryError::Invalid`] for a definition
    /// that breaks a rule of its own fields.
    pub async fn put_assistant(
        &self,
        tenant: &TenantId,
        name: &AssistantName,
        definition: Assistant,
        expect: Option<Expect>,
    ) -> Result<AssistantVersion, RegistryError> {
        check(&definition)?;
        let key = keys::assistant(tenant, name);
        loop {
            let row = self.store().get(&key)?;
            let revision = row.as_ref().map(|r| r.revision);
            let holds = match expect {
                None => true,
                Some(Expect::Absent) => revision.is_none(),
                Some(Expect::Present) => revision.is_some(),
                Some(Expect::Revision(r)) => revision == Some(r),
            };
            if !holds {
                return Err(RegistryError::RevisionMismatch { found: revision });
            }
            let latest = match &row {
                Some(row) => parse::<Head>("assistant", &row.value)?.latest,
                None => self.room_for_assistant(tenant)?,
            };
            if latest > 0
                && let Some(known) = self.assistant_version(tenant, name, latest)?
                && known.definition == definition
            {
                return Ok(known);
            }
            if latest >= MAX_VERSIONS {
                let limit = MAX_VERSIONS as usize;
                return Err(RegistryError::TooLarge { what: "set of assistant versions", size: limit, limit });
            }
            let version = latest + 1;
            let record =
                AssistantVersion { name: name.clone(), version, definition: definition.clone(), created_at: now() };
            let head = to_bytes(&Head { latest: version })?;
            let seen = revision.map_or(Expect::Absent, Expect::Revision);
            let place = keys::assistant_version(tenant, name, version);
            let written = self
                .write_value(&place, Some(&to_bytes(&record)?), Some(Expect::Absent), |batch| {
                    batch
                        .expect(keys::tenant(tenant), Expect::Present)
                        .expect(key.clone(), seen)
                        .put(key.clone(), head.clone())
                })
                .await;
            match written {
                Ok(_) => return Ok(record),
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(RegistryError::Store(StoreError::Conflict { key: lost, .. })) if lost == key => {}
                Err(RegistryError::Store(StoreError::Conflict { .. })) => {
                    return Err(RegistryError::NotFound { what: "tenant", name: tenant.to_string() });
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The newest version.
    pub fn assistant(
        &self,
        tenant: &TenantId,
        name: &AssistantName,
    ) -> Result<Option<AssistantVersion>, RegistryError> {
        let Some(row) = self.store().get(&keys::assistant(tenant, name))? else {
            return Ok(None);
        };
        self.assistant_version(tenant, name, parse::<Head>("assistant", &row.value)?.latest)
    }

    pub fn assistant_version(
        &self,
        tenant: &TenantId,
        name: &AssistantName,
        version: u32,
    ) -> Result<Option<AssistantVersion>, RegistryError> {
        let found = self.read_value(&keys::assistant_version(tenant, name, version))?;
        found.map(|v| parse("assistant", &v.value)).transpose()
    }

    /// The newest version of each, by name, at most `limit`, after the one named `after`.
    pub fn assistants(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AssistantVersion>, RegistryError> {
        let prefix = keys::assistants(tenant);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let mut out = Vec::new();
        for row in self.store().scan(&prefix, after.as_deref(), limit)? {
            if let Ok(name) = AssistantName::new(&String::from_utf8_lossy(&row.key[prefix.len()..])) {
                out.extend(self.assistant(tenant, &name)?);
            }
        }
        Ok(out)
    }

    /// An assistant's versions, oldest first, at most `limit`, after number `after`.
    pub fn assistant_versions(
        &self,
        tenant: &TenantId,
        name: &AssistantName,
        after: u32,
        limit: usize,
    ) -> Result<Vec<AssistantVersion>, RegistryError> {
        let prefix = keys::assistant_versions(tenant, name);
        let after = keys::assistant_version(tenant, name, after).head;
        let mut out = Vec::new();
        for row in self.store().scan(&prefix, Some(&after), limit)? {
            let number = String::from_utf8_lossy(&row.key[prefix.len()..]).parse();
            if let Ok(number) = number {
                out.extend(self.assistant_version(tenant, name, number)?);
            }
        }
        Ok(out)
    }

    /// Removes an assistant with all its versions; `false` when there was none. Requests that run go on.
    pub async fn delete_assistant(&self, tenant: &TenantId, name: &AssistantName) -> Result<bool, RegistryError> {
        let key = keys::assistant(tenant, name);
        let batch = Batch::new().expect(key.clone(), Expect::Present).delete(key);
        match self.store().commit(batch).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        let prefix = keys::assistant_versions(tenant, name);
        loop {
            let rows = self.store().scan(&prefix, None, 64)?;
            if rows.is_empty() {
                return Ok(true);
            }
            for row in rows {
                let number = String::from_utf8_lossy(&row.key[prefix.len()..]).parse().unwrap_or(0);
                self.write_value(&keys::assistant_version(tenant, name, number), None, None, |b| b).await?;
            }
        }
    }

    /// 0, the number before the first version, when the tenant may have one more.
    fn room_for_assistant(&self, tenant: &TenantId) -> Result<u32, RegistryError> {
        let taken = self.store().scan(&keys::assistants(tenant), None, MAX_ASSISTANTS)?.len();
        if taken >= MAX_ASSISTANTS {
            return Err(RegistryError::TooLarge { what: "set of assistants", size: taken, limit: MAX_ASSISTANTS });
        }
        Ok(0)
    }
}

fn check(a: &Assistant) -> Result<(), RegistryError> {
    let size = to_bytes(a)?.len();
    if size > MAX_DEFINITION_BYTES {
        return Err(RegistryError::TooLarge { what: "assistant", size, limit: MAX_DEFINITION_BYTES });
    }
    let count = |field: &str, n: usize, max: usize| match n > max {
        true => Err(RegistryError::invalid(field, format!("at most {max}"))),
        false => Ok(()),
    };
    count("tools", a.tools.as_ref().map_or(0, Vec::len), MAX_TOOLS)?;
    count("shields.input", a.shields.input.len(), MAX_SHIELDS)?;
    count("shields.output", a.shields.output.len(), MAX_SHIELDS)?;
    count("memory.banks", a.memory.banks.len(), MAX_BANKS)?;
    let mut names = BTreeSet::new();
    for bank in &a.memory.banks {
        let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let name = &bank.name;
        if name.is_empty() || name.len() > MAX_BANK_NAME_BYTES || !name.bytes().all(sound) {
            return Err(RegistryError::invalid("memory.banks", "a name is 1 to 48 of a-z, 0-9, `-`, `_`"));
        }
        if !names.insert(name) {
            return Err(RegistryError::invalid("memory.banks", format!("`{name}` is named twice")));
        }
    }
    if let Some(PromptRef { label: Some(_), version: Some(_), .. }) = &a.prompt {
        return Err(RegistryError::invalid("prompt", "label or version, not both"));
    }
    let TurnLimits { turns, seconds, tokens } = a.limits;
    if [turns, seconds, tokens].contains(&Some(0)) {
        return Err(RegistryError::invalid("limits", "at least 1 each"));
    }
    if let Some(OrchestratorRef { component: None, version: Some(_), .. }) = &a.orchestrator {
        return Err(RegistryError::invalid("orchestrator.version", "needs `component`"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "assistants_tests.rs"]
mod tests;
