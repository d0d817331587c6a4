//! `shields`: the tenant's bound shields, within the grant.

use super::{Answer, Entered, enter};
use crate::bindings::shields::{Host, HostWithStore};
use crate::bindings::types::{Channel, Direction, Error, Message, Verdict};
use crate::guest::{Context, Guest};
use crate::{convert, judge, screen};
use std::sync::Arc;
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
        let context = match named(&me, &name) {
            Ok(context) => context,
            Err(e) => return Ok(Err(e)),
        };
        let checked = judge::check(&me.host, context, convert::direction_in(direction), messages);
        Ok(checked.await.map_err(|stop| stop.into_guest_error()))
    }

    async fn check_reply_by(
        a: &Accessor<T, Self>,
        name: String,
        channel: Channel,
        conversation: Vec<Message>,
        text: String,
    ) -> Answer<Verdict> {
        let me = enter(a).await?;
        let context = match named(&me, &name) {
            Ok(context) => context,
            Err(e) => return Ok(Err(e)),
        };
        let checked = judge::check_reply(&me.host, context, channel, conversation, text);
        Ok(checked.await.map_err(|stop| stop.into_guest_error()))
    }
}

/// The request with the shield of this name for its component.
fn named(me: &Entered, name: &str) -> Result<Arc<Context>, Error> {
    me.may_call(&format!("shield/{name}"))?;
    let shield = ComponentName::new(name).ok().and_then(|name| me.context.call.pins.shield(&name));
    let shield = shield.ok_or_else(|| Error::NotFound(format!("shield `{name}`")))?;
    Ok(me.context.child(shield))
}
