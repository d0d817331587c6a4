//! An orchestrator that takes each event of the model into the guest and sends it on from there.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Orchestrator for Guest {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let request = inference::Chat::new(turn.model).messages(turn.messages).sampling(turn.sampling);
        let reply = request.start()?;
        let mut reason = FinishReason::Stop;
        while let Some(mut events) = reply.next()? {
            if let Some(Event::End(end)) = events.last() {
                reason = end.reason;
                events.pop();
            }
            output::emit(&events)?;
        }
        Ok(reason.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
