//! `/v1/toolgroups`: registering one binds a component as a tool, unregistering unbinds it.

use super::{BUILTIN, Group, MCP, role_of, shape};
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::reply;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::http::{Scheme, Target};
use stockade_core::id::ComponentName;
use stockade_core::plugin::Grants;
use stockade_core::registry::{BindingEntry, RegistryError, Scope};
use stockade_core::store::{Expect, Revision};

/// Longest name that a group is bound under: with the longest name of a tool it makes one that models take.
const MAX_BOUND_BYTES: usize = 30;

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let pins = app.registry.pins(&caller.tenant)?;
    let data: Vec<Value> = Group::all(&pins).iter().map(shape::group).collect();
    Ok(reply::json(&json!({"data": data})))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let pins = app.registry.pins(&caller.tenant)?;
    Ok(reply::json(&shape::group(&Group::find(&pins, &id)?)))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let pins = app.registry.pins(&caller.tenant)?;
    let group = Group::find(&pins, &id)?;
    app.registry.unbind(&caller.tenant, &role_of(&group.bound)?, None).await?;
    retract(&app, &caller, &group.pinned.component.name, &group.pinned.config).await?;
    tracing::info!(tenant = %caller.tenant, group = group.id, "tool group unregistered");
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn register(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let f = Fields::root(&body)?;
    let id = f.need_str("toolgroup_id")?;
    let mut config = f.object("args")?.map_or_else(|| json!({}), |args| Value::Object(args.map().clone()));
    let endpoint = f.object("mcp_endpoint")?.map(|e| e.need_str("uri").map(str::to_string)).transpose()?;
    let (component, bound) = match &endpoint {
        Some(url) => {
            config["url"] = json!(url);
            config["group"] = json!(id);
            (MCP.to_string(), bound_name(id)?)
        }
        // Without an endpoint the provider is a component of the tenant's.
        None => match BUILTIN.iter().find(|(group, ..)| *group == id) {
            Some((_, component, _)) => (component.to_string(), component.to_string()),
            None => (f.need_str("provider_id")?.to_string(), bound_name(id)?),
        },
    };
    let component = ComponentName::new(&component).map_err(|e| ApiError::invalid("provider_id", e.to_string()))?;
    let known = app.registry.component(&caller.tenant, &component)?;
    let known = known.ok_or_else(|| ApiError::not_found("component", component.as_str()))?;
    if let Some(url) = &endpoint {
        grant(&app, &caller, &component, url, config["secret"].as_str()).await?;
    }
    let role = role_of(&bound)?;
    let before = app.registry.binding(&caller.tenant, &role)?;
    let taken = before.as_ref().and_then(|b| b.value.entries.first());
    if taken.is_some_and(|e| e.component != component || e.config["group"] != config["group"]) {
        return Err(ApiError::new(Code::Conflict, format!("`{role}` is bound to something else")));
    }
    let expect = before.as_ref().map_or(Expect::Absent, |b| Expect::Revision(b.revision));
    let found = app.registry.version(&caller.tenant, &component, &known.latest)?;
    let found = found.ok_or_else(|| ApiError::not_found("component", component.as_str()))?;
    app.plugins.warm(&found.component()).await?;
    let entry = json!({"component": component, "version": known.latest, "config": &config});
    let entry: BindingEntry = JsonBody(entry).read()?;
    app.registry.bind(&caller.tenant, &role, vec![entry], Some(expect)).await?;
    if let Some(url) = &endpoint {
        // Again: a group that went meanwhile may have taken its grants along.
        grant(&app, &caller, &component, url, config["secret"].as_str()).await?;
    }
    if let Some(before) = taken {
        retract(&app, &caller, &component, &before.config).await?;
    }
    tracing::info!(tenant = %caller.tenant, group = id, %role, "tool group registered");
    Ok(reply::json(&Value::Null))
}

/// Lets the component reach the server, and read the secret that it sends there.
///
/// A public host by https on its own port is the tenant's to grant; any other origin is the operator's, since it may lead
/// into the host's own networks.
async fn grant(
    app: &App,
    caller: &Caller,
    component: &ComponentName,
    url: &str,
    secret: Option<&str>,
) -> Result<(), ApiError> {
    let target = Target::parse(url).map_err(|e| ApiError::invalid("mcp_endpoint.uri", e.to_string()))?;
    let grants = app.registry.grants(&caller.tenant, component)?;
    let mut wanted = grants.value.clone();
    if target.reach(&wanted.http).is_none() {
        if !is_public(&target) {
            let operator = caller.need_operator();
            let text = "only an admin key of the host may register a server at an address or without https";
            operator.map_err(|_| ApiError::new(Code::Forbidden, text))?;
        }
        wanted.http.push(entry_of(&target));
    }
    if let Some(secret) = secret.filter(|s| !Grants::allows(&wanted.secrets, s)) {
        wanted.secrets.push(secret.into());
    }
    if wanted == grants.value {
        return Ok(());
    }
    app.registry.set_grants(&caller.tenant, component, &wanted, Some(unchanged(grants.revision))).await?;
    Ok(())
}

/// Takes back what a group was granted, as far as no group of the component that is bound now needs it. Grants with a
/// wildcard are nobody's in particular and stay.
async fn retract(app: &App, caller: &Caller, component: &ComponentName, config: &Value) -> Result<(), ApiError> {
    let Some(mine) = Needs::of(config) else { return Ok(()) };
    loop {
        let grants = app.registry.grants(&caller.tenant, component)?;
        let pins = app.registry.pins(&caller.tenant)?;
        let groups = Group::all(&pins).into_iter().filter(|g| g.pinned.component.name == *component);
        let others: Vec<Needs> = groups.filter_map(|g| Needs::of(&g.pinned.config)).collect();
        let mut wanted = grants.value.clone();
        wanted.http.retain(|host| *host != mine.host || others.iter().any(|other| other.host == *host));
        wanted.secrets.retain(|secret| {
            Some(secret) != mine.secret.as_ref() || others.iter().any(|other| other.secret.as_ref() == Some(secret))
        });
        if wanted == grants.value {
            return Ok(());
        }
        match app.registry.set_grants(&caller.tenant, component, &wanted, Some(unchanged(grants.revision))).await {
            Err(RegistryError::RevisionMismatch { .. }) => {}
            done => return Ok(done.map(|_| ())?),
        }
    }
}

/// What a group of an MCP server has to be granted.
struct Needs {
    host: String,
    secret: Option<String>,
}

impl Needs {
    fn of(config: &Value) -> Option<Self> {
        let target = Target::parse(config["url"].as_str()?).ok()?;
        Some(Self { host: entry_of(&target), secret: config["secret"].as_str().map(String::from) })
    }
}

fn is_public(target: &Target) -> bool {
    target.scheme == Scheme::Https && target.address().is_none()
}

/// The entry of [`Grants::http`] that lets a component reach the target and no other.
fn entry_of(target: &Target) -> String {
    let origin = target.origin();
    if is_public(target) { origin.trim_start_matches("https://").into() } else { origin }
}

fn unchanged(revision: Revision) -> Expect {
    if revision == 0 { Expect::Absent } else { Expect::Revision(revision) }
}

/// `mcp::deep wiki` as `mcp-deep-wiki`.
pub(super) fn bound_name(id: &str) -> Result<String, ApiError> {
    let mut name = String::new();
    for c in id.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() || name.len() > MAX_BOUND_BYTES {
        let rule = format!("has to keep 1 to {MAX_BOUND_BYTES} letters, digits and what lies between them");
        return Err(ApiError::invalid("toolgroup_id", rule));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_become_names_that_models_take() {
        for (id, name) in [("mcp::deepwiki", "mcp-deepwiki"), ("My Tools_2!", "my-tools-2"), ("weather", "weather")] {
            assert_eq!(bound_name(id).unwrap(), name);
        }
        let bound = |id: &str| super::super::bound_to(id).unwrap();
        assert_eq!(bound("builtin::rag/knowledge_search"), "knowledge-search");
        assert_eq!(bound("builtin::code_interpreter"), "code-interpreter-python");
        assert_eq!((bound("mcp::wiki"), bound("a/b"), bound("c")), ("mcp-wiki".into(), "b".into(), "c".into()));
        for bad in ["", "::", "é", &"x".repeat(31)] {
            assert!(bound_name(bad).is_err(), "{bad}");
        }
    }
}
