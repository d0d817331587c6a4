//! `vectors`: the tenant's vector indexes by granted names.

use super::{Answer, denied, enter};
use crate::bindings::types::Error;
use crate::bindings::vectors::{Entry, Host, HostIndex, HostIndexWithStore, HostWithStore, Metric, Neighbour, Query};
use crate::convert;
use crate::guest::Guest;
use serde_json::{Map, Value};
use std::sync::Arc;
use stockade_core::plugin::Grants;
use stockade_core::vectors::{self, IndexSettings, MAX_ATTRIBUTES_BYTES, VectorError, VectorIndex};
use wasmtime::component::{Accessor, HasSelf, Resource};

/// An opened index. The grant was checked when it was opened; grants of a request never change.
#[derive(Clone)]
pub struct Index(Arc<dyn VectorIndex>);

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn open(a: &Accessor<T, Self>, name: String, dimensions: u32, metric: Metric) -> Answer<Resource<Index>> {
        let me = enter(a).await?;
        if !Grants::allows(&me.grants().buckets, &name) {
            return Ok(Err(denied("buckets", &name)));
        }
        let settings = IndexSettings { dimensions, metric: metric_in(metric) };
        match me.host.vectors.open(&me.context.call.tenant, &name, settings).await {
            Ok(index) => a.with(|mut s| Ok(Ok(s.get().table.push(Index(index))?))),
            Err(e) => Ok(Err(guest_error(e))),
        }
    }

    async fn drop(a: &Accessor<T, Self>, name: String) -> Answer<()> {
        let me = enter(a).await?;
        if !Grants::allows(&me.grants().buckets, &name) {
            return Ok(Err(denied("buckets", &name)));
        }
        Ok(me.host.vectors.drop_index(&me.context.call.tenant, &name).await.map_err(guest_error))
    }
}

impl HostIndex for Guest {
    fn drop(&mut self, this: Resource<Index>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostIndexWithStore<T> for HasSelf<Guest> {
    async fn upsert(a: &Accessor<T, Self>, this: Resource<Index>, entries: Vec<Entry>) -> Answer<()> {
        let me = enter(a).await?;
        let bytes = entries.iter().map(|e| e.id.len() + 4 * e.vector.len() + e.attributes.len());
        me.meter.output(bytes.sum())?;
        let index = index(a, &this)?;
        let entries = match entries.into_iter().map(entry_in).collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(e) => return Ok(Err(e)),
        };
        Ok(index.0.upsert(entries).await.map_err(guest_error))
    }

    async fn delete(a: &Accessor<T, Self>, this: Resource<Index>, ids: Vec<String>) -> Answer<u32> {
        let _me = enter(a).await?;
        let index = index(a, &this)?;
        Ok(index.0.delete(ids).await.map_err(guest_error))
    }

    async fn search(a: &Accessor<T, Self>, this: Resource<Index>, query: Query) -> Answer<Vec<Neighbour>> {
        let _me = enter(a).await?;
        let index = index(a, &this)?;
        let filter = match query.filter.as_deref().map(|f| convert::json("filter", f)).transpose() {
            Ok(filter) => filter,
            Err(e) => return Ok(Err(e.into())),
        };
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let query = vectors::Query { vector: query.vector, limit, filter, exact: query.exact };
        let found = index.0.search(query).await;
        let neighbour = |n: vectors::Neighbour| Neighbour {
            id: n.id,
            score: n.score,
            attributes: Value::Object(n.attributes).to_string(),
        };
        Ok(found.map(|all| all.into_iter().map(neighbour).collect()).map_err(guest_error))
    }

    async fn size(a: &Accessor<T, Self>, this: Resource<Index>) -> Answer<u64> {
        let _me = enter(a).await?;
        let index = index(a, &this)?;
        Ok(index.0.size().await.map_err(guest_error))
    }
}

fn index<T: Send>(a: &Accessor<T, HasSelf<Guest>>, this: &Resource<Index>) -> wasmtime::Result<Index> {
    a.with(|mut s| Ok(s.get().table.get(this)?.clone()))
}

fn metric_in(metric: Metric) -> vectors::Metric {
    match metric {
        Metric::Cosine => vectors::Metric::Cosine,
        Metric::Dot => vectors::Metric::Dot,
        Metric::Euclidean => vectors::Metric::Euclidean,
    }
}

fn entry_in(e: Entry) -> Result<vectors::Entry, Error> {
    if e.attributes.len() > MAX_ATTRIBUTES_BYTES {
        return Err(Error::TooLarge(format!("attributes: at most {MAX_ATTRIBUTES_BYTES} bytes")));
    }
    let attributes: Map<String, Value> = match convert::json("attributes", &e.attributes)? {
        Value::Object(attributes) => attributes,
        _ => return Err(Error::Invalid("attributes: not an object".into())),
    };
    Ok(vectors::Entry { id: e.id, vector: e.vector, attributes })
}

/// What a guest learns of a failed read or write.
fn guest_error(e: VectorError) -> Error {
    match e {
        VectorError::NotFound(_) => Error::NotFound(e.to_string()),
        VectorError::OtherSettings { .. } => Error::Conflict(e.to_string()),
        VectorError::Invalid { .. } => Error::Invalid(e.to_string()),
        VectorError::TooLarge { .. } => Error::TooLarge(e.to_string()),
        e => {
            tracing::error!(error = &e as &dyn std::error::Error, "vectors failed under a component");
            Error::Other("vectors failed".into())
        }
    }
}
