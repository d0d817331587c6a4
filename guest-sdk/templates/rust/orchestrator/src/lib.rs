//! Answers with a model, after instructions of its own.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {
    #[serde(default = "instructions")]
    instructions: String,
}

fn instructions() -> String {
    "Answer in one sentence.".into()
}

impl Orchestrator for Plugin {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let request = inference::Chat::new(turn.model)
            .system(&self.instructions)
            .messages(turn.messages)
            .tools(turn.tools)
            .tool_choice(turn.tool_choice)
            .sampling(turn.sampling)
            .constraint(turn.constraint);
        // The host sends the reply on without it passing through here.
        Ok(output::forward(&request.start()?, true)?.reason.into())
    }
}

stockade_guest::export!(Plugin as orchestrator);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_of_the_model_is_forwarded() {
        let host = testing::Host::new().reply("Hello there");
        let reason = testing::run::<Plugin>(json!({}), testing::turn("Hi"));
        assert_eq!(reason, Ok(FinishReason::Stop.into()));
        assert_eq!(host.sent_text(), "Hello there");
        assert_eq!(host.requests()[0].messages.len(), 2);
    }
}
