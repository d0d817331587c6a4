//! An orchestrator that asks for leave before it answers, and says state and answer once it goes on.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Orchestrator for Guest {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let Some(resume) = turn.resume else {
            output::text("One moment. ")?;
            return Ok(Outcome::Interrupted(Interruption {
                question: "May I pay?".into(),
                request: json!({"tool": "pay", "arguments": {"amount": 3}}).to_string(),
                state: json!({"messages": turn.messages.len()}).to_string(),
            }));
        };
        output::text(format!("state {} answer {}", resume.state, resume.answer))?;
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
