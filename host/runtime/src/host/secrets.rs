//! `secrets`: the tenant's secrets by granted names.

use super::{Answer, denied, enter};
use crate::bindings::secrets::{Host, HostWithStore};
use crate::bindings::types::Error;
use crate::guest::Guest;
use stockade_core::plugin::Grants;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn get(a: &Accessor<T, Self>, name: String) -> Answer<String> {
        let me = enter(a).await?;
        if !Grants::allows(&me.grants().secrets, &name) {
            return Ok(Err(denied("secrets", &name)));
        }
        let found = me.host.registry.secret(&me.context.call.tenant, &name);
        Ok(match found {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(Error::NotFound(format!("secret `{name}`"))),
            Err(e) => Err(super::state::registry_error(e)),
        })
    }
}
