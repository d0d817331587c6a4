//! What a request pins that runs an assistant: the tenant's own pins, and on top of them what the record says.

use super::components::version_not_found;
use super::{Assistant, AssistantVersion, BankScope, OrchestratorRef, Registry, RegistryError, ShieldRef};
use crate::id::{ComponentName, ComponentRef, TenantId, Version};
use crate::plugin::{Bank, Banks, Mode, Pinned, Pins, Role};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// On whose behalf a turn runs: opaque texts that memory banks are kept apart by.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Party {
    /// The end user as the application names it, else the caller's key.
    pub user: String,
    /// The conversation or session; `None`: the turn stands alone and has no session's banks.
    pub session: Option<String>,
}

impl Registry {
    /// The tenant's pins with an assistant's on top.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] or [`RegistryError::Conflict`] when the record names what the tenant does not have.
    pub fn pins_of(
        &self,
        tenant: &TenantId,
        assistant: &AssistantVersion,
        party: &Party,
    ) -> Result<Arc<Pins>, RegistryError> {
        let mut pins = Pins::clone(&*self.pins(tenant)?);
        let record = &assistant.definition;
        for (role, shields) in
            [(Role::ShieldInput, &record.shields.input), (Role::ShieldOutput, &record.shields.output)]
        {
            let entries = pins.entries.entry(role.clone()).or_default();
            for shield in shields {
                let bound = entries.iter().any(|e| e.component.name == shield.component && e.mode == Mode::Enforce);
                if !(bound && shield.version.is_none() && shield.config.is_null()) {
                    entries.push(Arc::new(self.pin_shield(tenant, &role, shield)?));
                }
            }
        }
        if let Some(tools) = &record.tools {
            keep_tools(&mut pins, tools)?;
        }
        let orchestrator = self.pin_orchestrator(tenant, &pins, record)?;
        pins.entries.insert(Role::Orchestrator, vec![Arc::new(orchestrator)]);
        pins.banks = Some(banks(assistant, party));
        Ok(Arc::new(pins))
    }

    /// Some version of the tenant's components in a role, whether or not the role is bound to it.
    pub fn pin(
        &self,
        tenant: &TenantId,
        role: Role,
        component: &ComponentName,
        version: Option<&Version>,
        config: Value,
    ) -> Result<Pinned, RegistryError> {
        let missing = || RegistryError::NotFound { what: "component", name: component.to_string() };
        let latest = match version {
            Some(version) => version.clone(),
            None => self.component(tenant, component)?.ok_or_else(missing)?.latest,
        };
        let found = self.version(tenant, component, &latest)?;
        let found = found.ok_or_else(|| version_not_found(component, &latest))?;
        if !found.admitted.roles.iter().any(|kind| role.takes(*kind)) {
            return Err(RegistryError::Conflict(format!("{} cannot fill the role {role}", found.component())));
        }
        Ok(Pinned::new(role, found.component(), config, self.grants(tenant, component)?.value))
    }

    /// The component that a job calls by a name: `role` makes `reward/NAME` or `evaluator/NAME` of it, and it is the one
    /// bound to that, else the newest version of the component NAME; with `NAME@VERSION` that version.
    pub fn pin_named(
        &self,
        tenant: &TenantId,
        role: fn(ComponentName) -> Role,
        name: &str,
    ) -> Result<Arc<Pinned>, RegistryError> {
        let unknown = || RegistryError::NotFound { what: "component", name: name.chars().take(128).collect() };
        let (component, version) = match name.split_once('@') {
            Some((component, version)) => (component, Some(Version::new(version).map_err(|_| unknown())?)),
            None => (name, None),
        };
        let component = ComponentName::new(component).map_err(|_| unknown())?;
        let role = role(component.clone());
        let bound = self.pins(tenant)?.one(&role).cloned();
        match bound.filter(|_| version.is_none()) {
            Some(bound) => Ok(bound),
            None => Ok(Arc::new(self.pin(tenant, role, &component, version.as_ref(), json!({}))?)),
        }
    }

    /// Pins with exactly this orchestrator: what an interrupted turn goes on with. Its grants are today's.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] when the version was deleted meanwhile.
    pub fn pins_with(
        &self,
        tenant: &TenantId,
        pins: &Pins,
        component: &ComponentRef,
        config: Value,
    ) -> Result<Arc<Pins>, RegistryError> {
        let pinned = self.pin(tenant, Role::Orchestrator, &component.name, Some(&component.version), config);
        let pinned = pinned.ok().filter(|p| p.component == *component);
        let gone = || RegistryError::Conflict(format!("{component}, which the turn ran in, is gone"));
        let mut pins = pins.clone();
        pins.entries.insert(Role::Orchestrator, vec![Arc::new(pinned.ok_or_else(gone)?)]);
        Ok(Arc::new(pins))
    }

    fn pin_shield(&self, tenant: &TenantId, role: &Role, shield: &ShieldRef) -> Result<Pinned, RegistryError> {
        let config = match &shield.config {
            Value::Null => json!({}),
            config => config.clone(),
        };
        let pinned = self.pin(tenant, role.clone(), &shield.component, shield.version.as_ref(), config)?;
        Ok(Pinned { on_failure: shield.on_failure, refusal: shield.refusal.clone(), ..pinned })
    }

    fn pin_orchestrator(&self, tenant: &TenantId, pins: &Pins, record: &Assistant) -> Result<Pinned, RegistryError> {
        let named = record.orchestrator.as_ref();
        match named {
            Some(OrchestratorRef { component: Some(component), version, .. }) => {
                let config = configure(Map::new(), record);
                self.pin(tenant, Role::Orchestrator, component, version.as_ref(), config)
            }
            _ => {
                let bound = pins.one(&Role::Orchestrator).ok_or_else(|| {
                    RegistryError::Conflict("the assistant names no orchestrator and the tenant has bound none".into())
                })?;
                let base = bound.config.as_object().cloned().unwrap_or_default();
                Ok(Pinned { config: configure(base, record), ..Pinned::clone(bound) })
            }
        }
    }
}

/// Takes the tools out that are not named.
pub fn keep_tools(pins: &mut Pins, tools: &[ComponentName]) -> Result<(), RegistryError> {
    if let Some(missing) = tools.iter().find(|t| pins.one(&Role::Tool((*t).clone())).is_none()) {
        return Err(RegistryError::Conflict(format!("tool `{missing}` is not bound")));
    }
    pins.entries.retain(|role, _| match role {
        Role::Tool(name) => tools.contains(name),
        _ => true,
    });
    Ok(())
}

/// The orchestrator's configuration: its binding's, the record's fields over it, the record's own `config` over both.
fn configure(mut config: Map<String, Value>, record: &Assistant) -> Value {
    if record.instructions.is_some() || record.prompt.is_some() {
        config.shift_remove("system");
        config.shift_remove("prompt");
    }
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(field.into(), value);
        }
    };
    set("system", record.instructions.as_ref().map(|text| json!(text)));
    set("prompt", record.prompt.as_ref().map(|prompt| json!(prompt)));
    set("tools", record.tools.as_ref().map(|tools| json!(tools)));
    if let Some(turns) = record.limits.turns {
        // The binding's other limits stay.
        let limits = config.entry("limits").or_insert_with(|| json!({}));
        match limits {
            Value::Object(limits) => {
                limits.insert("model_calls".into(), turns.into());
            }
            other => *other = json!({"model_calls": turns}),
        }
    }
    if let Some(orchestrator) = &record.orchestrator {
        config.extend(orchestrator.config.clone());
    }
    Value::Object(config)
}

fn banks(assistant: &AssistantVersion, party: &Party) -> Banks {
    let mut banks = Banks::default();
    for bank in &assistant.definition.memory.banks {
        let scoped = match bank.scope {
            BankScope::Tenant => Some(bank.name.clone()),
            BankScope::User => Some(scoped("user", &party.user, &bank.name)),
            BankScope::Agent => Some(scoped("agent", assistant.name.as_str(), &bank.name)),
            BankScope::Session => party.session.as_ref().map(|s| scoped("session", s, &bank.name)),
        };
        if let Some(scoped) = scoped {
            banks.0.insert(bank.name.clone(), Bank { scoped, write: bank.write });
        }
    }
    banks
}

/// No two owners meet in a name, and none meets a tenant's bank of a record: those hold no point. At most 48 bytes, the
/// longest name that a bank may have.
fn scoped(scope: &str, owner: &str, bank: &str) -> String {
    let digest = Sha256::new().chain_update(owner).chain_update([0]).chain_update(bank).finalize();
    let short: String = digest.iter().take(20).map(|b| format!("{b:02x}")).collect();
    format!("{scope}.{short}")
}

#[cfg(test)]
#[path = "casting_tests.rs"]
mod tests;
