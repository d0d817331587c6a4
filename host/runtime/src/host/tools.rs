//! `tools`: the tenant's bound tools, within the grant.

use super::{Answer, denied, enter};
use crate::bindings::tools::{Host, HostWithStore};
use crate::bindings::types::{Error, ToolOutput, ToolSpec};
use crate::exports;
use crate::guest::Guest;
use stockade_core::id::ComponentName;
use stockade_core::plugin::{Grants, Role};
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
            let asked = me.host.ask_plain(me.context.child(tool), exports::TOOL_DESCRIBE);
            match asked.await {
                Ok(spec) => specs.push(ToolSpec { name: name.to_string(), ..spec }),
                Err(stop) => return Ok(Err(stop.into_guest_error())),
            }
        }
        Ok(Ok(specs))
    }

    async fn call(a: &Accessor<T, Self>, name: String, arguments: String) -> Answer<ToolOutput> {
        let me = enter(a).await?;
        if let Err(e) = me.may_call(&format!("tool/{name}")) {
            return Ok(Err(e));
        }
        let role = ComponentName::new(&name).map(Role::Tool);
        let tool = role.ok().and_then(|r| me.context.call.pins.one(&r).cloned());
        let Some(tool) = tool else {
            return Ok(Err(Error::NotFound(format!("tool `{name}`"))));
        };
        let asked = me.host.ask(me.context.child(&tool), exports::TOOL_CALL, (arguments,));
        Ok(asked.await.map_err(|stop| stop.into_guest_error()))
    }
}
