//! `stockade run`: a chat in the terminal, through a running server.

use crate::cli::Run;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, print_line, print_piece};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Read};

/// Longest prompt that is read from standard input.
const MAX_INPUT_BYTES: u64 = 1 << 20;

pub fn run(options: &Run, client: &Client, output: Output) -> Result<(), Failure> {
    let mut messages = Vec::new();
    if let Some(system) = &options.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    if let Some(prompt) = &options.prompt {
        return turn(options, client, output, &mut messages, prompt);
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut prompt = String::new();
        stdin.lock().take(MAX_INPUT_BYTES).read_to_string(&mut prompt)?;
        return turn(options, client, output, &mut messages, prompt.trim_end());
    }
    eprintln!("{} at {}; an empty line or Ctrl-D ends", options.model, client.url());
    loop {
        eprint!("> ");
        let mut line = String::new();
        if stdin.lock().read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(());
        }
        turn(options, client, output, &mut messages, line.trim_end())?;
    }
}

/// Asks once, prints the answer as it comes, and keeps both in `messages`.
fn turn(
    options: &Run,
    client: &Client,
    output: Output,
    messages: &mut Vec<Value>,
    prompt: &str,
) -> Result<(), Failure> {
    messages.push(json!({"role": "user", "content": prompt}));
    let body = json!({"model": options.model, "messages": messages, "stream": true,
        "max_tokens": options.max_tokens, "temperature": options.temperature,
        "stream_options": {"include_usage": true}});
    let mut answer = String::new();
    client.events("/v1/chat/completions", &body, |data| {
        if data == "[DONE]" {
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data)
            .map_err(|e| Failure::new(Exit::Failed, format!("the server sent what is not JSON: {e}")))?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            return Err(Failure::new(Exit::Failed, message));
        }
        if output.json {
            print_line(&chunk.to_string());
        }
        let delta = &chunk["choices"][0]["delta"];
        for text in [&delta["content"], &delta["refusal"]].into_iter().filter_map(Value::as_str) {
            answer += text;
            if !output.json {
                print_piece(text);
            }
        }
        Ok(())
    })?;
    if !output.json {
        print_line("");
    }
    messages.push(json!({"role": "assistant", "content": answer}));
    Ok(())
}
