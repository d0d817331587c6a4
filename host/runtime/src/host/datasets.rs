//! `datasets`: the tenant's data sets by granted names; a component changes those alone that it has made.

use super::state::registry_error;
use super::{Answer, Entered, denied, enter};
use crate::bindings::datasets::{self as wit, Host, HostWithStore, Page};
use crate::bindings::types::Error;
use crate::convert;
use crate::guest::Guest;
use serde_json::Value;
use stockade_core::id::{ComponentName, DatasetName};
use stockade_core::plugin::Grants;
use stockade_core::registry::{Dataset, DatasetPurpose, RegistryError};
use wasmtime::component::{Accessor, HasSelf};

/// Most data sets of a list, and most rows of a page.
const MAX_LIST: u32 = 1000;
/// Most text of a page in bytes, but for one row.
const MAX_PAGE_BYTES: usize = 1 << 20;
const MAX_METADATA_BYTES: usize = 16 << 10;

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn list(a: &Accessor<T, Self>, after: Option<String>, limit: u32) -> Answer<Vec<wit::Dataset>> {
        let me = enter(a).await?;
        if me.grants().datasets.is_empty() {
            return Ok(Err(denied("datasets", "*")));
        }
        Ok(within("limit", limit, MAX_LIST).and_then(|limit| granted(&me, after, limit)))
    }

    async fn get(a: &Accessor<T, Self>, name: String) -> Answer<wit::Dataset> {
        let me = enter(a).await?;
        Ok(find(&me, &name).map(|found| dataset_out(found, me.component())))
    }

    async fn read(a: &Accessor<T, Self>, name: String, position: u64, limit: u32) -> Answer<Page> {
        let me = enter(a).await?;
        let found = within("limit", limit, MAX_LIST).and_then(|limit| Ok((find(&me, &name)?, limit)));
        let (found, limit) = match found {
            Ok(found) => found,
            Err(e) => return Ok(Err(e)),
        };
        let tenant = &me.context.call.tenant;
        let page = me.host.registry.dataset_rows(tenant, &found, position, limit, MAX_PAGE_BYTES).await;
        let text = |row| Value::Object(row).to_string();
        Ok(page.map(|p| Page { rows: p.rows.into_iter().map(text).collect(), next: p.next }).map_err(guest_error))
    }

    async fn create(a: &Accessor<T, Self>, description: wit::Description, rows: Vec<String>) -> Answer<wit::Dataset> {
        let me = enter(a).await?;
        me.meter.output(bytes(&rows))?;
        Ok(create(&me, description, &rows).await)
    }

    async fn append(a: &Accessor<T, Self>, name: String, rows: Vec<String>) -> Answer<wit::Dataset> {
        let me = enter(a).await?;
        me.meter.output(bytes(&rows))?;
        Ok(append(&me, &name, &rows).await)
    }

    async fn delete(a: &Accessor<T, Self>, name: String) -> Answer<()> {
        let me = enter(a).await?;
        let found = match own(&me, &name) {
            Ok(found) => found,
            Err(e) => return Ok(Err(e)),
        };
        let deleted = me.host.registry.delete_dataset(&me.context.call.tenant, &found.name).await;
        Ok(deleted.map(|_| ()).map_err(guest_error))
    }
}

fn bytes(rows: &[String]) -> usize {
    rows.iter().map(String::len).sum()
}

/// A number from 1 to `most`.
pub(super) fn within(what: &str, n: u32, most: u32) -> Result<usize, Error> {
    if (1..=most).contains(&n) { Ok(n as usize) } else { Err(Error::Invalid(format!("{what}: 1 to {most}"))) }
}

fn granted(me: &Entered, mut after: Option<String>, limit: usize) -> Result<Vec<wit::Dataset>, Error> {
    let mut out = Vec::new();
    loop {
        let page = me.host.registry.datasets(&me.context.call.tenant, after.as_deref(), limit).map_err(guest_error)?;
        let Some(last) = page.last() else { return Ok(out) };
        after = Some(last.name.to_string());
        for found in page {
            if Grants::allows(&me.grants().datasets, found.name.as_str()) {
                out.push(dataset_out(found, me.component()));
                if out.len() == limit {
                    return Ok(out);
                }
            }
        }
    }
}

/// A granted name. The grant comes first: what is not granted and what is no name answer alike.
fn name_in(me: &Entered, name: &str) -> Result<DatasetName, Error> {
    if !Grants::allows(&me.grants().datasets, name) {
        return Err(denied("datasets", name));
    }
    DatasetName::new(name).map_err(|e| Error::Invalid(e.to_string()))
}

fn find(me: &Entered, name: &str) -> Result<Dataset, Error> {
    let name = name_in(me, name)?;
    let found = me.host.registry.dataset(&me.context.call.tenant, &name).map_err(guest_error)?;
    found.ok_or_else(|| Error::NotFound(format!("data set `{name}`")))
}

/// A data set that the calling component has made.
fn own(me: &Entered, name: &str) -> Result<Dataset, Error> {
    let found = find(me, name)?;
    if found.component.as_ref() != Some(me.component()) {
        return Err(denied("datasets", &format!("{name}, which the component has not made")));
    }
    Ok(found)
}

async fn create(me: &Entered, description: wit::Description, rows: &[String]) -> Result<wit::Dataset, Error> {
    let wit::Description { name, purpose, licence, provenance, format, metadata } = description;
    let name = name_in(me, &name)?;
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(Error::TooLarge(format!("metadata: at most {MAX_METADATA_BYTES} bytes")));
    }
    let Value::Object(metadata) = convert::json("metadata", &metadata)? else {
        return Err(Error::Invalid("metadata: not an object".into()));
    };
    let tenant = &me.context.call.tenant;
    if me.host.registry.dataset(tenant, &name).map_err(guest_error)?.is_some() {
        return Err(Error::Conflict(format!("data set `{name}` exists already")));
    }
    let file = put(me, rows).await?;
    let dataset = Dataset {
        name,
        purpose: purpose_in(purpose),
        licence,
        provenance,
        format,
        files: vec![file.clone()],
        owns_files: true,
        component: Some(me.component().clone()),
        bytes: 0,
        metadata,
        created_at: stockade_core::registry::now(),
    };
    let made = me.host.registry.create_dataset(tenant, dataset).await;
    keep(me, &file, made).await
}

async fn append(me: &Entered, name: &str, rows: &[String]) -> Result<wit::Dataset, Error> {
    let found = own(me, name)?;
    let file = put(me, rows).await?;
    let longer = me.host.registry.extend_dataset(&me.context.call.tenant, &found.name, me.component(), &file).await;
    keep(me, &file, longer).await
}

/// Stores rows as a file of the tenant's.
async fn put(me: &Entered, rows: &[String]) -> Result<String, Error> {
    let parse = |(i, row): (usize, &String)| convert::json(&format!("rows[{i}]"), row);
    let rows: Vec<Value> = rows.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let random = getrandom::u32().unwrap_or_default();
    me.host.registry.put_rows(&me.context.call.tenant, &rows, "rows", random).await.map_err(guest_error)
}

/// What was made of a file; a file that came to nothing goes again.
async fn keep(me: &Entered, file: &str, made: Result<Dataset, RegistryError>) -> Result<wit::Dataset, Error> {
    match made {
        Ok(made) => Ok(dataset_out(made, me.component())),
        Err(e) => {
            me.host.registry.delete_file(&me.context.call.tenant, file).await.map_err(guest_error)?;
            Err(guest_error(e))
        }
    }
}

fn dataset_out(d: Dataset, caller: &ComponentName) -> wit::Dataset {
    wit::Dataset {
        changeable: d.component.as_ref() == Some(caller),
        description: wit::Description {
            name: d.name.to_string(),
            purpose: purpose_out(d.purpose),
            licence: d.licence,
            provenance: d.provenance,
            format: d.format,
            metadata: Value::Object(d.metadata).to_string(),
        },
        bytes: d.bytes,
        created_at: d.created_at.saturating_mul(1000),
    }
}

fn purpose_out(p: DatasetPurpose) -> wit::Purpose {
    match p {
        DatasetPurpose::Pretraining => wit::Purpose::Pretraining,
        DatasetPurpose::Preference => wit::Purpose::Preference,
        DatasetPurpose::PostTraining => wit::Purpose::PostTraining,
        DatasetPurpose::Evaluation => wit::Purpose::Evaluation,
    }
}

fn purpose_in(p: wit::Purpose) -> DatasetPurpose {
    match p {
        wit::Purpose::Pretraining => DatasetPurpose::Pretraining,
        wit::Purpose::Preference => DatasetPurpose::Preference,
        wit::Purpose::PostTraining => DatasetPurpose::PostTraining,
        wit::Purpose::Evaluation => DatasetPurpose::Evaluation,
    }
}

/// What a guest learns of a failed read or write.
pub(super) fn guest_error(e: RegistryError) -> Error {
    match e {
        RegistryError::Exists { .. } => Error::Conflict(e.to_string()),
        RegistryError::Conflict(text) => Error::Conflict(text),
        RegistryError::NotServed(_) => Error::Unavailable(e.to_string()),
        e => registry_error(e),
    }
}
