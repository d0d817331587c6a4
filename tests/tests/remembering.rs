//! An assistant that remembers its users, on the real host with the real memory and the default models: told in one
//! conversation, known in the next one of the same user and to nobody else, beside shields and a tool.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Answer, Client, Options, Server, scratch};

/// The default tenant with the echo tool and an assistant `friend` that keeps what its users say; `write`: it may.
fn befriended(client: &Client, write: bool) -> Result<()> {
    let echo = json!([{"component": "echo-tool", "version": client.shipped("echo-tool")?}]);
    client.bind("tool/echo", echo)?;
    client.shipped("tool-loop")?;
    let word = json!({"component": "regex-shield", "config": {"patterns": [{"name": "word", "regex": "xyzzy"}]}});
    let record = json!({
        "name": "friend",
        "model": "smollm2",
        "instructions": "You are a friend of the user's. Answer in one short sentence.",
        "tools": ["echo"],
        "shields": {"input": [word], "output": [word]},
        "memory": {"banks": [{"name": "about", "scope": "user", "write": write}]},
        "orchestrator": {"component": "tool-loop", "config": {"memory": {"banks": ["about"], "keep": "turns"}}},
    });
    client.post("/stockade/v1/assistants", &record)?.expect(201)?;
    Ok(())
}

fn asked(user: &str, session: &str, text: &str) -> Value {
    json!({"model": "friend", "user": user, "metadata": {"session": session}, "temperature": 0, "max_tokens": 40,
        "tool_choice": "none", "messages": [{"role": "user", "content": text}]})
}

fn say(client: &Client, body: &Value) -> Result<Answer> {
    client.post("/v1/chat/completions", body)
}

fn text_of(answer: Answer) -> Result<String> {
    let body = answer.expect(200)?;
    Ok(body["choices"][0]["message"]["content"].as_str().with_context(|| body.to_string())?.to_string())
}

/// The components that took part in a turn, as `role function`.
fn calls(client: &Client, answer: &Answer) -> Result<Vec<String>> {
    let trace = client.trace(answer.header("stockade-trace").context("a trace id")?)?;
    let calls = trace["components"].as_array().context("components")?;
    Ok(calls.iter().map(|call| format!("{} {}", call["role"], call["function"]).replace('"', "")).collect())
}

/// All that is kept of all users, a text each.
fn kept(client: &Client) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let banks = client.memory("banks", json!([null, 100]))?;
    for bank in banks.as_array().context("banks")? {
        let items = client.memory("list", json!([bank["name"], null, null, 100]))?;
        let items = items.as_array().context("items")?.clone();
        texts.extend(items.iter().filter_map(|item| item["text"].as_str().map(String::from)));
    }
    Ok(texts)
}

#[test]
fn what_a_user_has_said_is_known_in_the_next_session_and_to_nobody_else() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    befriended(&client, true)?;

    // Both users have a first conversation; nothing is there to be recalled, which is no failure.
    text_of(say(&client, &asked("ann", "monday", "My dog is called Biscuit and I live in Lisbon."))?)?;
    text_of(say(&client, &asked("bob", "monday", "I am learning to play the violin."))?)?;
    let texts = kept(&client)?;
    ensure!(texts.len() == 2 && texts.iter().any(|t| t.starts_with("User: My dog is called Biscuit")), "{texts:?}");
    ensure!(texts.iter().all(|t| t.contains("\nAssistant: ")), "{texts:?}");
    server.kill();

    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let question = "What is my dog called?";
    let answer = say(&client, &asked("ann", "tuesday", question))?;
    let took = calls(&client, &answer)?;
    ensure!(took.iter().any(|c| c == "memory search") && took.iter().any(|c| c == "memory insert"), "{took:?}");
    let anns = text_of(answer)?;
    ensure!(anns.contains("Biscuit"), "ann's own: {anns}");
    let bobs = text_of(say(&client, &asked("bob", "tuesday", question))?)?;
    ensure!(!bobs.contains("Biscuit") && !bobs.contains("Lisbon"), "not bob's: {bobs}");
    let strangers = text_of(say(&client, &asked("eve", "tuesday", question))?)?;
    ensure!(!strangers.contains("Biscuit"), "nobody's: {strangers}");

    // What a shield blocks is not kept.
    let before = kept(&client)?.len();
    let blocked = say(&client, &asked("ann", "tuesday", "xyzzy is my password"))?.expect(200)?;
    ensure!(blocked["choices"][0]["finish_reason"] == "content_filter", "{blocked}");
    ensure!(kept(&client)?.len() == before, "{:?}", kept(&client)?);

    // A turn that calls a tool recalls and keeps as well.
    let mut body = asked("ann", "wednesday", "Use the echo tool to repeat my dog's name.");
    (body["tool_choice"], body["max_tokens"]) = (json!("required"), json!(80));
    let answer = say(&client, &body)?;
    let took = calls(&client, &answer)?;
    for call in ["memory search", "tool/echo call", "memory insert"] {
        ensure!(took.iter().any(|c| c == call), "{call}: {took:?}");
    }
    answer.expect(200)?;
    ensure!(kept(&client)?.iter().any(|t| t.starts_with("User: Use the echo tool")), "{:?}", kept(&client)?);
    Ok(())
}

#[test]
fn a_turn_that_cannot_be_kept_is_answered_all_the_same() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    befriended(&client, false)?;
    ensure!(!text_of(say(&client, &asked("ann", "monday", "My dog is called Biscuit."))?)?.is_empty());
    ensure!(kept(&client)?.is_empty(), "{:?}", kept(&client)?);
    Ok(())
}

#[test]
fn a_model_keeps_and_recalls_by_tools_in_its_users_bank() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let set =
        json!([{"component": "remember", "version": client.shipped("remember")?, "config": {"banks": ["about"]}}]);
    client.bind("tool/notes", set)?;
    client.shipped("tool-loop")?;
    // A small model calls a tool when it must: each assistant has one.
    for (name, tool) in [("keeper", "notes__remember"), ("reader", "notes__recall")] {
        let config = json!({"tools": [tool], "limits": {"model_calls": 2}});
        let record = json!({"name": name, "model": "smollm2", "tools": ["notes"],
            "memory": {"banks": [{"name": "about", "scope": "user", "write": true}]},
            "orchestrator": {"component": "tool-loop", "config": config}});
        client.post("/stockade/v1/assistants", &record)?.expect(201)?;
    }
    let ask = |assistant: &str, user: &str, text: &str| -> Result<(Vec<String>, String)> {
        let mut body = asked(user, "monday", text);
        body["model"] = json!(assistant);
        (body["tool_choice"], body["max_tokens"]) = (json!("required"), json!(120));
        let answer = say(&client, &body)?;
        Ok((calls(&client, &answer)?, text_of(answer)?))
    };
    // What a small model writes into the call is its own affair; that it is kept, and where, is not.
    let (took, _) = ask("keeper", "ann", "Remember this fact: my dog is called Biscuit.")?;
    ensure!(took.iter().any(|c| c == "memory insert") && kept(&client)?.len() == 1, "{took:?}");
    // The orchestrator keeps in the same bank.
    befriended(&client, true)?;
    text_of(say(&client, &asked("ann", "monday", "My dog is called Biscuit."))?)?;
    let (took, anns) = ask("reader", "ann", "What is my dog called?")?;
    ensure!(took.iter().any(|c| c == "memory search") && anns.contains("Biscuit"), "{took:?} {anns}");
    let (took, bobs) = ask("reader", "bob", "What is my dog called?")?;
    ensure!(took.iter().any(|c| c == "memory search") && !bobs.contains("Biscuit"), "{took:?} {bobs}");
    let banks = client.memory("banks", json!([null, 100]))?;
    let names: Vec<&str> = banks.as_array().context("banks")?.iter().filter_map(|b| b["name"].as_str()).collect();
    ensure!(names.len() == 1 && names[0].starts_with("user."), "ann's bank and no other: {names:?}");
    Ok(())
}
