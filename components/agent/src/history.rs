//! A conversation that fits the model's context.
//!
//! Invariants: system messages, the user's last message and the latest tool round stay; a tool call and its results go
//! together; what goes, goes oldest first. When that is not enough the host's own `context-overflow` tells so.

use stockade_guest::inference::{self, Chat, ChatRequest, Generation};
use stockade_guest::info;
use stockade_guest::prelude::*;

/// What a chat template adds to a message, in tokens, by rule of thumb; the host's exact count corrects it.
const MESSAGE_TOKENS: u32 = 8;
/// What it adds to the whole when there are tools.
const TOOLS_TOKENS: u32 = 200;

/// Starts a model call over as much of the conversation as the model's context takes.
pub fn start(chat: &Chat) -> Result<Generation> {
    let mut request = chat.clone();
    if let Some(context) = context_tokens(&request.0.model) {
        fit(&mut request.0, context)?;
    }
    match request.start() {
        Err(Error::ContextOverflow(over)) if over.requested < over.limit => {
            // The template has said more than was reckoned with: by how much, the host knows exactly.
            let excess = (over.prompt.saturating_add(over.requested)).saturating_sub(over.limit);
            if shorten(&mut request.0, excess)? { request.start() } else { Err(Error::ContextOverflow(over)) }
        }
        other => other,
    }
}

/// The context of the model of that name, the empty name being the host's default; `None` where the host does not tell.
fn context_tokens(model: &str) -> Option<u32> {
    let models = inference::models().ok()?;
    let found = models.iter().find(|m| model.is_empty() || m.name == model)?;
    Some(found.context_tokens)
}

fn fit(request: &mut ChatRequest, context: u32) -> Result<()> {
    let reserve = request.sampling.max_tokens.unwrap_or(context / 4);
    let room = context.saturating_sub(reserve);
    // A token has at least one byte: most conversations are seen to fit without being counted.
    let most: usize = request.messages.iter().map(|m| words(m).len() + MESSAGE_TOKENS as usize).sum();
    let tools = tool_words(&request.tools);
    if most + tools.len() + TOOLS_TOKENS as usize <= room as usize {
        return Ok(());
    }
    let mut total = if tools.is_empty() { 0 } else { TOOLS_TOKENS + count(&request.model, &tools)? };
    for message in &request.messages {
        total = total.saturating_add(tokens(&request.model, message)?);
    }
    if total > room {
        shorten(request, total - room)?;
    }
    Ok(())
}

/// Drops messages of at least `excess` tokens together, or as many as may go. False: none could.
fn shorten(request: &mut ChatRequest, excess: u32) -> Result<bool> {
    let mut gone: Vec<usize> = Vec::new();
    let mut saved = 0u32;
    for group in droppable(&request.messages) {
        if saved >= excess {
            break;
        }
        for &at in &group {
            saved = saved.saturating_add(tokens(&request.model, &request.messages[at])?);
        }
        gone.extend(group);
    }
    if gone.is_empty() {
        return Ok(false);
    }
    info!("{} old messages of about {saved} tokens are left out: the context is full", gone.len());
    let mut at = 0..;
    request.messages.retain(|_| at.next().is_some_and(|at| !gone.contains(&at)));
    Ok(true)
}

/// What may go, in the order in which it goes: first whole exchanges, each from a user's message to the next, then the
/// earlier tool rounds of the last exchange. Indices of messages.
fn droppable(messages: &[Message]) -> Vec<Vec<usize>> {
    let question = messages.iter().rposition(|m| m.role == Role::User).unwrap_or(0);
    let mut exchanges: Vec<Vec<usize>> = Vec::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let (groups, opens) = match message.role {
            Role::System => continue,
            _ if at == question => continue,
            role if at < question => (&mut exchanges, role == Role::User),
            role => (&mut rounds, role != Role::Tool),
        };
        match groups.last_mut() {
            Some(group) if !opens => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    rounds.pop();
    exchanges.extend(rounds);
    exchanges
}

/// About how many tokens a message takes.
fn tokens(model: &str, message: &Message) -> Result<u32> {
    Ok(MESSAGE_TOKENS + count(model, &words(message))?)
}

fn count(model: &str, text: &str) -> Result<u32> {
    Ok(u32::try_from(inference::tokenize(model, text)?.len()).unwrap_or(u32::MAX / 2))
}

/// All of a message that a template may print.
fn words(message: &Message) -> String {
    let mut all = String::new();
    for part in &message.parts {
        match part {
            Part::Text(text) | Part::Reasoning(text) => all.push_str(text),
            Part::ToolCall(call) => all.extend([&*call.name, " ", &*call.arguments]),
            Part::ToolResult(result) => all.push_str(&result.content),
            Part::Image(_) => {}
        }
    }
    all
}

fn tool_words(tools: &[ToolSpec]) -> String {
    tools.iter().map(|t| format!("{} {} {}\n", t.name, t.description, t.parameters)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_guest::testing::Host;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "t".into(), arguments: "{}".into() }
    }

    /// Each text has 92 bytes, so with what is added a message counts 100 tokens of the fake, which are bytes.
    fn long(letter: &str) -> String {
        letter.repeat(92)
    }

    fn letters(messages: &[Message]) -> String {
        messages.iter().filter_map(|m| words(m).chars().next()).collect()
    }

    /// What reaches a model of that context, by first letters; each reply may take 50 tokens.
    fn sent(messages: Vec<Message>, context: u32) -> String {
        let host = Host::new().model("m", context).reply("ok");
        start(&Chat::new("m").messages(messages).max_tokens(50)).unwrap();
        letters(&host.requests()[0].messages)
    }

    #[test]
    fn whole_exchanges_go_oldest_first_and_system_text_stays() {
        let conversation = || {
            vec![
                Message::system(long("s")),
                Message::user(long("a")),
                Message::assistant(long("b")),
                Message::user(long("c")),
                Message::assistant(long("d")),
                Message::system(long("S")),
                Message::user(long("e")),
            ]
        };
        for (context, want) in [(10_000, "sabcdSe"), (750, "sabcdSe"), (749, "scdSe"), (549, "sSe"), (60, "sSe")] {
            assert_eq!(sent(conversation(), context), want, "context {context}");
        }
    }

    #[test]
    fn tool_rounds_of_the_last_question_go_whole_and_the_latest_stays() {
        let round = |letter: &str| {
            let mut asked = Message::assistant(long(letter));
            asked.parts.push(Part::ToolCall(call(letter)));
            [asked, Message::tool_result(&call(letter), long(&letter.to_uppercase()), false)]
        };
        let conversation = || -> Vec<Message> {
            let before = [Message::user(long("x")), Message::assistant(long("y")), Message::user(long("q"))];
            before.into_iter().chain(["a", "b", "c"].into_iter().flat_map(round)).collect()
        };
        for (context, want) in [(2000, "xyqaAbBcC"), (900, "qaAbBcC"), (700, "qbBcC"), (500, "qcC"), (100, "qcC")] {
            assert_eq!(sent(conversation(), context), want, "context {context}");
        }
    }

    #[test]
    fn the_hosts_exact_count_corrects_the_estimate_once() {
        let over = stockade_guest::types::ContextOverflow { prompt: 300, requested: 10, limit: 250 };
        let host = Host::new().refuse(Error::ContextOverflow(over)).reply("ok");
        let messages = [Message::user(long("a")), Message::assistant(long("b")), Message::user(long("c"))];
        start(&Chat::new("m").messages(messages)).unwrap();
        let requests = host.requests();
        assert_eq!((letters(&requests[0].messages), letters(&requests[1].messages)), ("abc".into(), "c".into()));
        // Nothing may go: the host's answer stands.
        let host = Host::new().refuse(Error::ContextOverflow(over));
        assert_eq!(start(&Chat::new("m").user("q")).map(|_| ()), Err(Error::ContextOverflow(over)));
        assert_eq!(host.requests().len(), 1);
    }
}
