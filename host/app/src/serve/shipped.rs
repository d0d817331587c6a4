//! The shipped components of the default tenant: pushed through the same gate as any upload, and bound once.
//!
//! What is bound at the first start is pushed before requests are taken; all others, the large ones last, beside them.

use crate::commands::data::failed;
use crate::embedded;
use crate::failure::{Exit, Failure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::id::{ComponentName, RequestId, Version};
use stockade_core::plugin::{AdmitError, Call, Grants, Plugins, Role};
use stockade_core::registry::{BindingEntry, PutVersion, Registry, RegistryError};
use stockade_runtime::Runtime;

/// What the default tenant's roles are bound to at its first start.
const BINDINGS: [(&str, &str); 5] = [
    ("shield.input", "regex-shield"),
    ("shield.output", "regex-shield"),
    ("orchestrator", "chat"),
    ("prompt-store", "prompt-store"),
    ("memory", "memory"),
];

/// The default tenant's system prompt: a name in its prompt store, and the text of version 1.
const PROMPT: (&str, &str) = ("assistant", "You are a helpful AI assistant.");
const PROMPT_LABEL: &str = "production";

/// Pushes what the default tenant does not have yet, and binds the roles that were never bound. What the tenant has
/// changed stays as it is; a shipped version with other bytes than before comes beside the old one.
pub async fn bind(registry: &Registry, plugins: &Runtime) -> Result<(), Failure> {
    let tenant = TenantId::default_tenant();
    for (name, bytes) in embedded::SHIPPED.iter().filter(|(name, _)| is_bound(name)) {
        seed(plugins, name, bytes);
        let version = push(registry, plugins, &tenant, name, bytes).await?;
        for (role, _) in BINDINGS.iter().filter(|(_, component)| component == name) {
            let role: Role = role.parse().map_err(failed)?;
            if registry.binding(&tenant, &role).map_err(failed)?.is_some() {
                continue;
            }
            let entry: BindingEntry = serde_json::from_value(json!({
                "component": name, "version": version, "config": default_config(name),
            }))
            .map_err(failed)?;
            // Before the binding, which is what tells the next start that all of this is done.
            if role == Role::PromptStore {
                put_prompt(registry, plugins, &tenant, &entry).await?;
            }
            registry.bind(&tenant, &role, vec![entry], None).await.map_err(failed)?;
            tracing::info!(%role, component = name, %version, "bound");
        }
    }
    Ok(())
}

/// Spares the first start the compilation, where the program carries what it would come to.
fn seed(plugins: &Runtime, name: &str, bytes: &[u8]) {
    let Some((_, carried)) = embedded::COMPILED.iter().find(|(compiled, _)| *compiled == name) else { return };
    let digest = crate::digest::sha256(bytes);
    let Some(artifact) = carried.strip_prefix(&digest.0) else {
        return tracing::warn!(component = name, "what the program carries was compiled of other bytes");
    };
    // SAFETY: the build compiled the artifact of these very bytes, as the digest before it says, and it is as much part of
    // this program as its own code.
    match unsafe { plugins.seed(digest, artifact) } {
        Ok(true) => {}
        Ok(false) => tracing::info!(component = name, "is compiled here: the program was built for another processor"),
        Err(error) => tracing::warn!(component = name, %error, "is compiled here: its artifact cannot be written"),
    }
}

/// What comes with the host.
pub fn names() -> Vec<ComponentName> {
    embedded::SHIPPED.iter().filter_map(|(name, _)| ComponentName::new(name).ok()).collect()
}

/// Pushes the shipped components that nothing is bound to at the first start.
pub async fn push_unbound(registry: &Registry, plugins: &impl Plugins) {
    let tenant = TenantId::default_tenant();
    let mut rest: Vec<_> = embedded::SHIPPED.iter().filter(|(name, _)| !is_bound(name)).collect();
    rest.sort_by_key(|(_, bytes)| bytes.len());
    for (name, bytes) in rest {
        if let Err(failure) = push(registry, plugins, &tenant, name, bytes).await {
            tracing::error!(component = name, %failure, "a shipped component is not in");
        }
    }
}

fn is_bound(name: &str) -> bool {
    BINDINGS.iter().any(|(_, component)| *component == name)
}

/// Puts the system prompt into the prompt store that is about to be bound, as a tenant would.
async fn put_prompt(
    registry: &Registry,
    plugins: &impl Plugins,
    tenant: &TenantId,
    store: &BindingEntry,
) -> Result<(), Failure> {
    let BindingEntry { component, version, config, .. } = store;
    let target = registry.pin(tenant, Role::PromptStore, component, Some(version), config.clone()).map_err(failed)?;
    let call = Call {
        tenant: tenant.clone(),
        request: RequestId("first-start".into()),
        target: Arc::new(target),
        pins: registry.pins(tenant).map_err(failed)?,
        trace: Arc::default(),
        depth: 0,
    };
    let (name, text) = PROMPT;
    let definition = json!({"format": "simple", "template": {"text": text}, "variables": [], "partials": [],
        "strict": true, "model-config": "{}", "description": "The default system prompt of this host", "tags": [],
        "metadata": "{}"});
    let change = json!({"author": "stockade", "message": "first start"});
    let put =
        plugins.invoke(call.clone(), "put".into(), vec![json!(name), definition, change]).await.map_err(failed)?;
    let version = put.result.get("ok").unwrap_or(&put.result)["number"].clone();
    let label = json!({"shares": [{"version": version, "weight": 1}], "protected": false, "force": false,
        "author": "stockade", "message": "first start"});
    let label = vec![json!(name), json!(PROMPT_LABEL), label];
    plugins.invoke(call, "set-label".into(), label).await.map_err(failed)?;
    Ok(())
}

/// Loads the default tenant's bound components, so that the first request does not wait for them.
pub async fn warm(registry: &Registry, plugins: &impl Plugins) -> Result<(), Failure> {
    let pins = registry.pins(&TenantId::default_tenant()).map_err(failed)?;
    for pinned in pins.entries.values().flatten() {
        if let Err(e) = plugins.warm(&pinned.component).await {
            tracing::warn!(component = %pinned.component, error = %e, "cannot be loaded");
        }
    }
    Ok(())
}

async fn push(
    registry: &Registry,
    plugins: &impl Plugins,
    tenant: &TenantId,
    name: &str,
    bytes: &'static [u8],
) -> Result<Version, Failure> {
    let component = ComponentName::new(name).map_err(failed)?;
    let bytes = Bytes::from_static(bytes);
    let digest = crate::digest::sha256(&bytes);
    let plain = Version::new(env!("CARGO_PKG_VERSION")).map_err(failed)?;
    // A development build changes bytes under one version; the digest tells them apart.
    let marked = Version::new(&format!("{plain}-{}", &digest.to_string()[..8])).map_err(failed)?;
    for version in [&plain, &marked] {
        let known = registry.version(tenant, &component, version).map_err(failed)?;
        if known.is_some_and(|known| known.admitted.digest == digest) {
            return Ok(version.clone());
        }
    }
    let admitted = plugins.admit(tenant, bytes.clone()).await.map_err(|e| refused(name, &e))?;
    // Where it may go on the network is for the operator to say.
    let wanted = Grants { http: Vec::new(), ..admitted.grants_wanted.clone() };
    let mut version = plain;
    loop {
        match registry.put_version(tenant, &component, &version, admitted.clone(), bytes.clone()).await {
            Ok(PutVersion::Created(_) | PutVersion::Unchanged(_)) => break,
            Err(RegistryError::VersionExists { .. }) if version != marked => version = marked.clone(),
            Err(e) => return Err(failed(e)),
        }
    }
    if registry.grants(tenant, &component).map_err(failed)?.value == Grants::default() {
        registry.set_grants(tenant, &component, &wanted, None).await.map_err(failed)?;
    }
    tracing::info!(component = name, %version, compile_ms = admitted.compile_ms, "shipped component is in");
    Ok(version)
}

fn refused(name: &str, error: &AdmitError) -> Failure {
    let reasons = match error {
        AdmitError::Invalid { reasons } => serde_json::to_string(reasons).unwrap_or_default(),
        _ => String::new(),
    };
    Failure::new(Exit::Failed, format!("the shipped component {name} was refused: {error} {reasons}"))
}

/// What is useful to everybody: numbers that identify a person or open an account do not go to or from a model.
fn default_config(name: &str) -> Value {
    match name {
        "regex-shield" => json!({"pii": ["credit-card", "iban", "us-ssn", "api-key"]}),
        "chat" => json!({"prompt": {"name": PROMPT.0, "label": PROMPT_LABEL}}),
        _ => json!({}),
    }
}
