//! `tools`: the tenant's bound tools, within the grant.

use super::{Answer, denied, enter};
use crate::bindings::tools::{Host, HostWithStore};
use crate::bindings::types::{Error, ToolOutput, ToolSpec};
use crate::guest::Guest;
use crate::toolbox;
use stockade_core::plugin::Grants;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn available(a: &Accessor<T, Self>) -> Answer<Vec<ToolSpec>> {
        let me = enter(a).await?;
        let granted = &me.grants().components;
        if !granted.iter().any(|g| g == "*" || g.starts_with("tool/")) {
            return Ok(Err(denied("components", "tool/*")));
        }
        let mut specs = Vec::new();
        for (name, tool) in me.context.call.pins.tools() {
            if !Grants::allows(granted, &format!("tool/{name}")) {
                continue;
            }
            match toolbox::list(&me.host, me.context.child(tool)).await {
                Ok(found) => specs.extend(found),
                // One server that is away must not take the other tools with it.
                Err(stop) => tracing::warn!(tool = %name, error = ?stop.into_guest_error(), "tools left out"),
            }
        }
        Ok(Ok(specs))
    }

    async fn call(a: &Accessor<T, Self>, name: String, arguments: String) -> Answer<ToolOutput> {
        let me = enter(a).await?;
        let found = me.context.call.pins.tool(&name).map(|(pinned, tool)| (pinned.clone(), tool));
        let role = found.as_ref().map_or_else(|| format!("tool/{name}"), |(pinned, _)| pinned.role.to_string());
        if let Err(e) = me.may_call(&role) {
            return Ok(Err(e));
        }
        let Some((pinned, tool)) = found else {
            return Ok(Err(Error::NotFound(format!("tool `{name}`"))));
        };
        let asked = toolbox::call(&me.host, me.context.child(&pinned), tool, arguments);
        Ok(asked.await.map_err(|stop| stop.into_guest_error()))
    }
}
