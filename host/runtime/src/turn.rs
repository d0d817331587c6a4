//! Orchestrators: one call whose reply leaves while it runs.

use crate::bindings::{orchestrator, types};
use crate::convert;
use crate::exports;
use crate::guest::{Context, TurnState};
use crate::runtime::Inner;
use std::sync::Arc;
use stockade_core::event::{End, Event};
use stockade_core::plugin::{Turn, TurnStream};
use tokio::sync::mpsc;

/// Events between an orchestrator and the gateway: enough to keep both busy, few enough to hold a fast one up.
const EVENTS: usize = 32;

/// Starts a turn. The stream ends with [`Event::End`] or an error; dropping it drops the instance.
pub(crate) fn run(host: &Arc<Inner>, context: Arc<Context>, turn: Turn) -> TurnStream {
    let (output, events) = mpsc::channel(EVENTS);
    let worker = host.clone();
    host.threads.detach(async move {
        let name = context.call.target.component.to_string();
        let usage = context.usage.clone();
        let state = TurnState { output: output.clone(), sampling: Arc::new(turn.sampling.clone()) };
        let turn = convert::turn_out(turn);
        let ran = worker.run(context, "run".into(), Some(state), move |live| {
            Box::pin(async move {
                type Answer = (Result<orchestrator::Outcome, types::Error>,);
                let called = live.call::<_, Answer>(exports::ORCHESTRATOR_RUN, (turn,));
                Ok(called.await?.0.and_then(|outcome| Ok(convert::outcome_in(outcome)?)))
            })
        });
        let ended = tokio::select! {
            ended = ran => ended,
            // Nobody listens any more: dropping `ran` drops the instance.
            () = output.closed() => return,
        };
        let last = match ended {
            Ok((reason, interruption)) => {
                Ok(Event::End(End { reason, usage: *usage.lock(), refusal: None, interruption }))
            }
            Err(stop) => Err(stop.into_call_error(&name)),
        };
        // A closed stream needs no end.
        let _ = output.send(last).await;
    });
    events
}
