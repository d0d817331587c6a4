//! The layout of all keys.
//!
//! ```text
//! g/tenant/TENANT                    Tenant
//! g/secret/SHA256                    where the API key with this secret is: its own row's key
//! g/key/ID                           ApiKey of the whole host (no tenant)
//! g/job/ID/TENANT                    the id of a job that has not ended; oldest first
//! g/model/ID                         TrainedModel, by the name that the engine knows it by
//! t/TENANT/job-event/ID/NUMBER       JobEvent; the number has 16 hexadecimal digits
//! t/TENANT/job-usage/DAY/ID          JobUsage
//! t/TENANT/dataset/NAME              Dataset
//! t/TENANT/key/ID                    ApiKey of a tenant
//! t/TENANT/component/NAME/VERSION    VersionRecord
//! t/TENANT/grants/NAME               Grants
//! t/TENANT/binding/ROLE              Binding
//! t/TENANT/pins                      empty; its revision is that of the tenant's pins
//! t/TENANT/state/BUCKET/KEY          kind byte, then the value
//! t/TENANT/assistant/NAME            the number of its newest version
//! t/TENANT/assistant-version/NAME/NUMBER   AssistantVersion; the number has ten digits
//! t/TENANT/doc/PATH/KEY              a document of a collection (see `collections`)
//! t/TENANT/vector-index/NAME         settings of a vector index; its rows are under t/TENANT/vector/NAME/ (see `vectors`)
//! t/TENANT/secret/NAME               a component's secret, sealed (see `secrets`)
//! t/TENANT/trace/ID                  TraceRecord; the id begins with inverted time: newest first
//! t/TENANT/trace-age/TIME-ID         empty; oldest first, for retention
//! t/TENANT/usage/DAY/MODEL           UsageRow
//! t/TENANT/~/REST\0INDEX             parts of a value whose head row is t/TENANT/REST (see `values`)
//! ```
//!
//! `g` and `t` never mix: a tenant's rows are exactly those under `t/TENANT/`.

use crate::id::{AssistantName, ComponentName, Digest, ModelId, TenantId, Version};
use crate::plugin::Role;

pub(super) const TENANTS: &str = "g/tenant/";
pub(super) const HOST_KEYS: &str = "g/key/";
/// Where component versions and files stand below their tenant: the records that name blobs.
pub(super) const COMPONENTS: &str = "component/";
pub(super) const FILES: &str = "doc/files/";
pub(super) const OPEN_JOBS: &str = "g/job/";
pub(super) const TRAINED_MODELS: &str = "g/model/";

/// Where a value stands: its head row and the prefix of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub head: Vec<u8>,
    pub parts: Vec<u8>,
}

fn place(tenant: &TenantId, rest: &str) -> Place {
    Place { head: format!("t/{tenant}/{rest}").into_bytes(), parts: format!("t/{tenant}/~/{rest}\0").into_bytes() }
}

/// The prefixes of the head rows and of the parts of all values below `rest`.
pub(super) fn rows_below(tenant: &TenantId, rest: &str) -> [Vec<u8>; 2] {
    [format!("t/{tenant}/{rest}").into_bytes(), format!("t/{tenant}/~/{rest}").into_bytes()]
}

/// Whether the row is of a trace, whole or in part.
pub(super) fn is_trace(key: &[u8]) -> bool {
    let mut parts = key.split(|b| *b == b'/').skip(2).skip_while(|part| *part == b"~");
    key.starts_with(b"t/") && parts.next() == Some(b"trace")
}

/// The prefix of all of a tenant's rows.
pub(super) fn all_of(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/").into_bytes()
}

pub(super) fn tenant(tenant: &TenantId) -> Vec<u8> {
    format!("{TENANTS}{tenant}").into_bytes()
}
pub(super) fn secret_index(secret: Digest) -> Vec<u8> {
    format!("g/secret/{secret}").into_bytes()
}
/// Key of the row of an API key; `None` is the whole host's.
pub(super) fn api_key(tenant: Option<&TenantId>, id: &str) -> Vec<u8> {
    let mut key = api_keys(tenant);
    key.extend_from_slice(id.as_bytes());
    key
}
pub(super) fn api_keys(tenant: Option<&TenantId>) -> Vec<u8> {
    match tenant {
        Some(t) => format!("t/{t}/key/").into_bytes(),
        None => HOST_KEYS.into(),
    }
}

pub(super) fn version(tenant: &TenantId, name: &ComponentName, version: &Version) -> Place {
    place(tenant, &format!("component/{name}/{version}"))
}
pub(super) fn versions(tenant: &TenantId, name: &ComponentName) -> Vec<u8> {
    format!("t/{tenant}/component/{name}/").into_bytes()
}
pub(super) fn components(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/component/").into_bytes()
}
pub(super) fn grants(tenant: &TenantId, name: &ComponentName) -> Place {
    place(tenant, &format!("grants/{name}"))
}
pub(super) fn binding(tenant: &TenantId, role: &Role) -> Place {
    place(tenant, &format!("binding/{role}"))
}
pub(super) fn bindings(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/binding/").into_bytes()
}
pub(super) fn pins(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/pins").into_bytes()
}

/// `bucket` is a slug; `key` may hold `/` but no control character.
pub(super) fn state(tenant: &TenantId, bucket: &str, key: &str) -> Place {
    place(tenant, &format!("state/{bucket}/{key}"))
}
pub(super) fn bucket(tenant: &TenantId, bucket: &str) -> Vec<u8> {
    format!("t/{tenant}/state/{bucket}/").into_bytes()
}
pub(super) fn assistant(tenant: &TenantId, name: &AssistantName) -> Vec<u8> {
    format!("t/{tenant}/assistant/{name}").into_bytes()
}
pub(super) fn assistants(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/assistant/").into_bytes()
}
pub(super) fn assistant_version(tenant: &TenantId, name: &AssistantName, number: u32) -> Place {
    place(tenant, &format!("assistant-version/{name}/{number:010}"))
}
pub(super) fn assistant_versions(tenant: &TenantId, name: &AssistantName) -> Vec<u8> {
    format!("t/{tenant}/assistant-version/{name}/").into_bytes()
}

/// `path` holds no control character and ends where no other path goes on.
pub(super) fn document(tenant: &TenantId, path: &str, key: &str) -> Place {
    place(tenant, &format!("doc/{path}/{key}"))
}
pub(super) fn documents(tenant: &TenantId, path: &str) -> Vec<u8> {
    format!("t/{tenant}/doc/{path}/").into_bytes()
}
/// Ids begin with their time.
pub(super) fn open_job(id: &str, tenant: &TenantId) -> Vec<u8> {
    format!("{OPEN_JOBS}{id}/{tenant}").into_bytes()
}
pub(super) fn job_events(tenant: &TenantId, id: &str) -> Vec<u8> {
    format!("t/{tenant}/job-event/{id}/").into_bytes()
}
pub(super) fn job_event(tenant: &TenantId, id: &str, number: u64) -> Vec<u8> {
    format!("t/{tenant}/job-event/{id}/{number:016x}").into_bytes()
}
pub(super) fn job_usage(tenant: &TenantId, day: &str, id: &str) -> Vec<u8> {
    format!("t/{tenant}/job-usage/{day}/{id}").into_bytes()
}
pub(super) fn job_usages(tenant: &TenantId, day: &str) -> Vec<u8> {
    format!("t/{tenant}/job-usage/{day}/").into_bytes()
}
pub(super) fn trained_model(id: &ModelId) -> Vec<u8> {
    format!("{TRAINED_MODELS}{id}").into_bytes()
}
pub(super) fn dataset(tenant: &TenantId, name: &str) -> Place {
    place(tenant, &format!("dataset/{name}"))
}
pub(super) fn datasets(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/dataset/").into_bytes()
}
pub(super) fn secret(tenant: &TenantId, name: &str) -> Place {
    place(tenant, &format!("secret/{name}"))
}
pub(super) fn secrets(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/secret/").into_bytes()
}

pub(super) fn trace(tenant: &TenantId, id: &str) -> Place {
    place(tenant, &format!("trace/{id}"))
}
pub(super) fn traces(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/trace/").into_bytes()
}
pub(super) fn trace_age(tenant: &TenantId, created_us: u64, id: &str) -> Vec<u8> {
    format!("t/{tenant}/trace-age/{created_us:016x}-{id}").into_bytes()
}
pub(super) fn trace_ages(tenant: &TenantId) -> Vec<u8> {
    format!("t/{tenant}/trace-age/").into_bytes()
}

pub(super) fn usage(tenant: &TenantId, day: &str, model: &str) -> Vec<u8> {
    format!("t/{tenant}/usage/{day}/{model}").into_bytes()
}
pub(super) fn usages(tenant: &TenantId, day: Option<&str>) -> Vec<u8> {
    match day {
        Some(day) => format!("t/{tenant}/usage/{day}/").into_bytes(),
        None => format!("t/{tenant}/usage/").into_bytes(),
    }
}
