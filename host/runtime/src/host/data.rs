//! `datasets` and `jobs`: not served by this host version; every call says so.

use super::{Answer, enter};
use crate::bindings::types::Error;
use crate::bindings::{datasets, jobs};
use crate::guest::Guest;
use wasmtime::component::{Accessor, HasSelf, Resource};

/// A data set's reader. There is none yet, so nobody holds a handle to one.
pub struct Reader {
    _none: std::convert::Infallible,
}

impl datasets::Host for Guest {}
impl datasets::HostReader for Guest {
    fn drop(&mut self, this: Resource<Reader>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
impl jobs::Host for Guest {}

async fn unavailable<T: Send, R>(a: &Accessor<T, HasSelf<Guest>>, what: &str) -> Answer<R> {
    let _me = enter(a).await?;
    Ok(Err(Error::Unavailable(format!("this host does not serve {what}"))))
}

impl<T: Send + 'static> datasets::HostWithStore<T> for HasSelf<Guest> {
    async fn open(a: &Accessor<T, Self>, _: String) -> Answer<Resource<Reader>> {
        unavailable(a, "datasets").await
    }
    async fn append(a: &Accessor<T, Self>, _: String, _: Vec<String>) -> Answer<()> {
        unavailable(a, "datasets").await
    }
}

impl<T: Send + 'static> datasets::HostReaderWithStore<T> for HasSelf<Guest> {
    async fn next(a: &Accessor<T, Self>, _: Resource<Reader>) -> Answer<Option<Vec<String>>> {
        unavailable(a, "datasets").await
    }
}

impl<T: Send + 'static> jobs::HostWithStore<T> for HasSelf<Guest> {
    async fn submit(a: &Accessor<T, Self>, _: jobs::Kind, _: String, _: String) -> Answer<jobs::Job> {
        unavailable(a, "jobs").await
    }
    async fn get(a: &Accessor<T, Self>, _: String) -> Answer<jobs::Job> {
        unavailable(a, "jobs").await
    }
    async fn cancel(a: &Accessor<T, Self>, _: String) -> Answer<()> {
        unavailable(a, "jobs").await
    }
}
