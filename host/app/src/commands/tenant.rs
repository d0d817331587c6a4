//! Tenants, keys, grants and quotas.

use super::component::grants_path;
use super::json_argument;
use crate::cli::{Grant, Key, Quota, Tenant};
use crate::client::{Body, Client, segment};
use crate::failure::Failure;
use crate::output::{Output, fields, listing};
use serde_json::{Value, json};

const TENANTS: &str = "/stockade/v1/tenants";
const KEYS: &str = "/stockade/v1/keys";

pub fn tenant(command: Tenant, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Tenant::Create { name } => {
            output.document(&client.call("POST", TENANTS, Body::Json(&json!({"name": name})))?, fields);
        }
        Tenant::List => {
            let list = client.get(&format!("{TENANTS}?limit=1000"))?;
            output.document(&list, |v| listing(v, &["name", "created", "quotas"]));
        }
        Tenant::Show { name } => output.document(&client.get(&format!("{TENANTS}/{}", segment(&name)))?, fields),
        Tenant::Rm { name } => removed(client, output, &format!("{TENANTS}/{}", segment(&name)), &name)?,
    }
    Ok(())
}

pub fn key(command: Key, client: &Client, tenant: Option<&str>, output: Output) -> Result<(), Failure> {
    match command {
        Key::Create { name, scopes } => {
            let mut body = json!({"name": name, "scopes": scopes});
            if let Some(tenant) = tenant {
                body["tenant"] = json!(tenant);
            }
            output.document(&client.call("POST", KEYS, Body::Json(&body))?, fields);
        }
        Key::List => {
            let list = client.get(&format!("{KEYS}?limit=1000"))?;
            output.document(&list, |v| listing(v, &["id", "tenant", "name", "scopes", "expires_at"]));
        }
        Key::Rotate { id } => {
            let path = format!("{KEYS}/{}/rotate", segment(&id));
            output.document(&client.call("POST", &path, Body::None)?, fields);
        }
        Key::Rm { id } => removed(client, output, &format!("{KEYS}/{}", segment(&id)), &id)?,
    }
    Ok(())
}

pub fn grant(command: Grant, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Grant::Show { component } => output.document(&client.get(&grants_path(&component))?, fields),
        Grant::Set { component, grants } => {
            let grants = json_argument("the grants", &grants)?;
            output.document(&client.call("PUT", &grants_path(&component), Body::Json(&grants))?, fields);
        }
        Grant::Add { component, model, bucket, secret, component_role, dataset, job } => {
            let path = grants_path(&component);
            let mut grants = client.get(&path)?;
            // The reply's own field is not part of the document that goes back.
            if let Some(map) = grants.as_object_mut() {
                map.remove("revision");
            }
            for (field, more) in [
                ("models", model),
                ("buckets", bucket),
                ("secrets", secret),
                ("components", component_role),
                ("datasets", dataset),
                ("jobs", job),
            ] {
                let mut list = grants[field].as_array().cloned().unwrap_or_default();
                for name in more.into_iter().map(Value::String) {
                    if !list.contains(&name) {
                        list.push(name);
                    }
                }
                grants[field] = Value::Array(list);
            }
            output.document(&client.call("PUT", &path, Body::Json(&grants))?, fields);
        }
    }
    Ok(())
}

pub fn quota(command: Quota, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Quota::Show { tenant } => {
            let found = client.get(&format!("{TENANTS}/{}", segment(&tenant)))?;
            output.document(&found["quotas"], fields);
        }
        Quota::Set { tenant, quotas } => {
            let body = json!({"quotas": json_argument("the quotas", &quotas)?});
            let path = format!("{TENANTS}/{}", segment(&tenant));
            output.document(&client.call("PATCH", &path, Body::Json(&body))?["quotas"], fields);
        }
    }
    Ok(())
}

fn removed(client: &Client, output: Output, path: &str, name: &str) -> Result<(), Failure> {
    client.call("DELETE", path, Body::None)?;
    output.document(&json!({"name": name, "removed": true}), fields);
    Ok(())
}
