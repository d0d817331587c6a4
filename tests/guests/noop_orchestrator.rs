//! Asks the model that was named and forwards its reply untouched: what an orchestrator costs. With `prompt` in its
//! configuration, the prompt of this name goes before the conversation: what a prompt store costs on top.

use stockade_guest::prelude::*;
use stockade_guest::prompts::{self, Content, Selector};

#[derive(Deserialize)]
struct Guest {
    #[serde(default)]
    prompt: Option<String>,
}

impl Orchestrator for Guest {
    fn run(&self, mut turn: Turn) -> Result<Outcome> {
        if let Some(name) = &self.prompt
            && let Content::Text(text) = prompts::render(name, &Selector::Latest, "{}")?.content
        {
            turn.messages.insert(0, Message::system(text));
        }
        let request = inference::Chat::new(turn.model)
            .messages(turn.messages)
            .tools(turn.tools)
            .tool_choice(turn.tool_choice)
            .sampling(turn.sampling)
            .constraint(turn.constraint);
        Ok(output::forward(&request.start()?, true)?.reason.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
