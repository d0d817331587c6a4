//! `output`: the reply of the turn that an orchestrator runs.

use super::inference::{Generation, Reply, generation, note};
use super::{Answer, Entered, enter};
use crate::bindings::output::{Host, HostWithStore};
use crate::bindings::types::{self, Completion, Error, Violation};
use crate::convert;
use crate::guest::{Guest, TurnState};
use stockade_core::event::Event;
use wasmtime::component::{Accessor, HasSelf, Resource};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn emit(a: &Accessor<T, Self>, events: Vec<types::Event>) -> Answer<()> {
        let me = enter(a).await?;
        let Some(turn) = &me.turn else {
            return Ok(Err(no_turn()));
        };
        let events = match events.into_iter().map(convert::event_in).collect::<Result<Vec<_>, _>>() {
            Ok(events) => events,
            Err(bad) => return Ok(Err(bad.into())),
        };
        for event in events {
            if let Err(e) = send(&me, turn, event).await? {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    async fn forward(a: &Accessor<T, Self>, this: Resource<Generation>, tool_calls: bool) -> Answer<Completion> {
        let me = enter(a).await?;
        let Some(turn) = &me.turn else {
            return Ok(Err(no_turn()));
        };
        let generation = generation(a, &this)?;
        let mut source = generation.source().await;
        let mut reply = Reply::new();
        loop {
            let event = match source.next(&me).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Ok(reply.done())),
                Err(e) => return Ok(Err(note(a, e))),
            };
            reply.add(&event);
            let sent = match event {
                Event::End(_) => Ok(()),
                Event::ToolCall(_) if !tool_calls => Ok(()),
                event => send(&me, turn, event).await?,
            };
            if let Err(e) = sent {
                return Ok(Err(e));
            }
        }
    }
}

/// Waits for room: a slow application holds the orchestrator up, not the host's memory.
async fn send(me: &Entered, turn: &TurnState, event: Event) -> Answer<()> {
    me.meter.output(convert::event_bytes(&event))?;
    if turn.output.send(Ok(event)).await.is_ok() {
        return Ok(Ok(()));
    }
    Ok(Err(Error::Blocked(Violation {
        category: "output".into(),
        message: "the reply has been ended".into(),
        score: None,
        metadata: "null".into(),
    })))
}

fn no_turn() -> Error {
    Error::Unavailable("only the orchestrator of a turn has an output".into())
}
