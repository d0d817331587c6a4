//! Official Python clients against the real host: `openai`, and `llama-stack-client` of several lines.

use anyhow::Result;
use serde_json::json;
use stockade_tests::python::{llama_stack, openai, passes, passes_fresh};
use stockade_tests::{Options, Server, scratch};

#[test]
fn the_openai_client_works_unchanged() -> Result<()> {
    passes_fresh(&openai()?, "openai_client.py", &["moderation"])
}

#[test]
fn the_openai_client_keeps_responses_and_conversations() -> Result<()> {
    passes_fresh(&openai()?, "responses_client.py", &[])
}

#[test]
fn the_openai_client_keeps_files_and_vector_stores() -> Result<()> {
    passes_fresh(&openai()?, "vector_stores_client.py", &[])
}

/// A document in over files and vector stores, an answer with checked citations out, alone and beside the tenant's tools.
#[test]
fn the_openai_client_searches_files_and_gets_citations() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    client.shipped("rag")?;
    let entry = |name: &str| Ok::<_, anyhow::Error>(json!({"component": name, "version": client.shipped(name)?}));
    let echo = entry("echo-tool")?;
    client.bind("tool/echo", json!([echo]))?;
    client.bind("tool/pay", json!([echo]))?;
    // With the default system prompt; what it says of tools and approval holds beside the search.
    let bound = client.get("/stockade/v1/bindings/orchestrator")?.expect(200)?;
    let mut orchestrator = entry("tool-loop")?;
    orchestrator["config"] = bound["entries"][0]["config"].clone();
    (orchestrator["config"]["tools"], orchestrator["config"]["approve"]) = (json!([]), json!(["pay"]));
    client.bind("orchestrator", json!([orchestrator]))?;
    passes(&openai()?, "file_search_client.py", &server)
}

/// The last line with agents.
#[test]
fn the_llama_stack_client_runs_agents() -> Result<()> {
    passes_fresh(&llama_stack("0.2.23")?, "agents_client.py", &["injection-guard"])
}

/// The shipped shields.
const SHIELDS: [&str; 8] =
    ["regex-shield", "pii", "injection-guard", "moderation", "code-shield", "firewall", "llama-guard", "prompt-guard"];

/// The last line with shields.
#[test]
fn the_llama_stack_client_calls_shields() -> Result<()> {
    passes_fresh(&llama_stack("0.6.1")?, "llama_stack_safety.py", &SHIELDS)
}

#[test]
fn the_llama_stack_client_keeps_prompts() -> Result<()> {
    passes_fresh(&llama_stack("0.7.5")?, "llama_stack_prompts.py", &[])
}
