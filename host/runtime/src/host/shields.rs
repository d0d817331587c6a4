//! `shields`: the tenant's bound shields, within the grant.

use super::{Answer, enter};
use crate::bindings::shields::{Host, HostWithStore};
use crate::bindings::types::{Direction, Error, Message, Verdict};
use crate::guest::Guest;
use crate::{convert, judge, screen};
use stockade_core::id::ComponentName;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn check(a: &Accessor<T, Self>, direction: Direction, messages: Vec<Message>) -> Answer<Verdict> {
        let me = enter(a).await?;
        let (role, name) = match direction {
            Direction::Input => (Role::ShieldInput, "shield.input"),
            Direction::Output => (Role::ShieldOutput, "shield.output"),
        };
        if let Err(e) = me.may_call(name) {
            return Ok(Err(e));
        }
        let judged = screen::judge(&me.host, &me.context, &role, messages);
        Ok(judged.await.map_err(|stop| stop.into_guest_error()))
    }

    async fn check_by(
        a: &Accessor<T, Self>,
        name: String,
        direction: Direction,
        messages: Vec<Message>,
    ) -> Answer<Verdict> {
        let me = enter(a).await?;
        if let Err(e) = me.may_call(&format!("shield/{name}")) {
            return Ok(Err(e));
        }
        let pins = &me.context.call.pins;
        let shield = ComponentName::new(&name).ok().and_then(|name| pins.shield(&name));
        let Some(shield) = shield else {
            return Ok(Err(Error::NotFound(format!("shield `{name}`"))));
        };
        let checked = judge::check(&me.host, me.context.child(shield), convert::direction_in(direction), messages);
        Ok(checked.await.map_err(|stop| stop.into_guest_error()))
    }
}
