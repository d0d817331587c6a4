//! What goes to tools and comes back from tools and memories in the middle of a turn, before the tenant's shields.

mod support;

use serde_json::{Value, json};
use stockade_core::event::Event;
use stockade_core::plugin::*;
use support::*;

/// An orchestrator that calls the echo tool with these arguments, among these shields.
struct Turned {
    bench: Bench,
    orchestrator: Pinned,
    bound: Vec<Pinned>,
}

impl Turned {
    async fn new(arguments: &str) -> Self {
        let bench = bench();
        let grants = Grants { components: vec!["*".into()], ..Grants::default() };
        let orchestrator = granted(bench.pin("orchestrator", "calls_tools").await, grants);
        let orchestrator = configured(orchestrator, json!({"arguments": arguments}));
        let tool = configured(bench.pin("tool/set", "offers_tools").await, json!({"names": ["echo"]}));
        Self { bench, orchestrator, bound: vec![tool] }
    }

    async fn with(mut self, role: &str, guest: &str, config: Value) -> Self {
        self.bound.push(configured(self.bench.pin(role, guest).await, config));
        self
    }

    /// What the orchestrator says, and who did what.
    async fn run(&self) -> (String, Vec<ComponentCall>) {
        let asked = call_among(&self.orchestrator, &self.bound);
        let mut stream = self.bench.runtime.run_turn(asked.clone(), turn(""));
        let mut said = String::new();
        while let Some(event) = stream.recv().await {
            if let Event::Text(delta) = event.expect("the turn goes well") {
                said += &delta.text;
            }
        }
        (said, asked.trace.snapshot())
    }
}

/// The shields' decisions over whole texts, with the bytes that they judged.
fn decisions(trace: &[ComponentCall]) -> Vec<(String, &str, u64)> {
    let judged = trace.iter().filter(|c| c.function == "check");
    judged.map(|c| (c.role.to_string(), c.decision.as_str(), c.scanned_bytes.unwrap_or_default())).collect()
}

fn called(trace: &[ComponentCall]) -> bool {
    trace.iter().any(|c| c.role.to_string() == "tool/set" && c.function == "call")
}

fn word(word: &str) -> Value {
    json!({"word": word})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_call_never_reaches_its_tool() {
    let turned = Turned::new(r#"{"q":"the se\u0063ret"}"#).await;
    let (said, trace) = turned.run().await;
    assert!(called(&trace) && said.contains("set__echo: \"echo {"), "{said}");

    let turned = turned.with("shield.output", "blocks_word", word("secret")).await;
    let (said, trace) = turned.run().await;
    assert!(!called(&trace), "{said}");
    assert!(said.contains("Blocked(") && said.contains("a blocked word") && !said.contains("secret"), "{said}");
    // Its name and its arguments, as the tool would have got them.
    assert_eq!(decisions(&trace), [("shield.output".into(), "block", 9 + 18)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bindings_own_refusal_is_what_the_component_is_told() {
    let mut turned = Turned::new("{}").await.with("shield.output", "blocks_word", word("echo")).await;
    turned.bound[1].refusal = Some("Not here.".into());
    let (said, trace) = turned.run().await;
    assert!(!called(&trace) && said.contains("Not here."), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_arguments_arrive_masked() {
    let turned = Turned::new(r#"{"to":"ann\u0040example.org"}"#).await;
    let turned = turned.with("shield.output", "regex-shield", json!({"pii": ["email"]})).await;
    let (said, trace) = turned.run().await;
    assert!(called(&trace) && said.contains("[EMAIL]") && !said.contains("example.org"), "{said}");
    assert_eq!(decisions(&trace)[0].1, "edit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_that_leaves_no_json_of_the_arguments_is_a_block() {
    let turned = Turned::new(r#"{"a":1}"#).await;
    let patterns = json!({"patterns": [{"name": "brace", "regex": "\\{", "action": "mask"}]});
    let (said, trace) = turned.with("shield.output", "regex-shield", patterns).await.run().await;
    assert!(!called(&trace) && said.contains("Blocked("), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_result_never_reaches_the_caller_however_long_it_is() {
    let long = format!(r#"{{"q":"{} secret"}}"#, "x".repeat(20_000));
    let turned = Turned::new(&long).await.with("shield.input", "blocks_word", word("secret")).await;
    let (said, trace) = turned.run().await;
    assert!(called(&trace));
    assert!(said.contains("Blocked(") && !said.contains("secret") && !said.contains("xx"), "{said}");
    assert_eq!(decisions(&trace), [("shield.input".into(), "block", long.len() as u64 + 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_result_arrives_masked_and_a_clean_one_as_it_is() {
    let turned = Turned::new(r#"{"to":"ann@example.org"}"#).await;
    let (said, _) = turned.with("shield.input", "regex-shield", json!({"pii": ["email"]})).await.run().await;
    assert!(said.contains("[EMAIL]") && !said.contains("example.org"), "{said}");
    let turned = Turned::new(r#"{"a":1}"#).await;
    let turned = turned.with("shield.input", "regex-shield", json!({})).await;
    let (said, trace) = turned.with("shield.output", "regex-shield", json!({})).await.run().await;
    assert_eq!(said, "set__echo: \"echo {\\\"a\\\":1}\"\n");
    let passed: Vec<_> = decisions(&trace).iter().map(|d| d.1).collect();
    assert_eq!(passed, ["pass", "pass"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shield_that_fails_stands_against_the_call_unless_its_binding_says_otherwise() {
    let mut turned = Turned::new("{}").await.with("shield.output", "traps", json!({})).await;
    let (said, trace) = turned.run().await;
    assert!(!called(&trace) && said.contains("Other("), "{said}");
    turned.bound[1].on_failure = OnFailure::Allow;
    assert!(called(&turned.run().await.1));
    turned.bound[1].on_failure = OnFailure::Block;
    turned.bound[1].mode = Mode::Observe;
    assert!(called(&turned.run().await.1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shield_calls_is_judged_by_none() {
    let turned = Turned::new("{}").await.with("tool/echo", "noop_tool", json!({})).await;
    let mut turned = turned.with("shield.output", "asks_tool", json!({})).await;
    let grants = Grants { components: vec!["tool/echo".into()], ..Grants::default() };
    turned.bound[2] = granted(turned.bound[2].clone(), grants);
    let (said, trace) = turned.run().await;
    assert!(said.contains("set__echo: \"echo {}\""), "{said}");
    let checks = trace.iter().filter(|c| c.function == "check").count();
    let echoed = trace.iter().filter(|c| c.role.to_string() == "tool/echo" && c.function == "call").count();
    // A check for each of the two calls that the orchestrator makes, and a call for each check besides its own.
    assert_eq!((checks, echoed), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_outside_of_a_turn_is_judged_the_same() {
    let bench = bench();
    let tool = configured(bench.pin("tool/set", "offers_tools").await, json!({"names": ["echo"]}));
    for role in ["shield.output", "shield.input"] {
        let shield = configured(bench.pin(role, "blocks_word").await, word("secret"));
        let asked = call_among(&tool, &[shield]);
        let refused = bench.runtime.call_tool(asked.clone(), Some("echo".into()), json!({"q": "secret"})).await;
        assert!(matches!(&refused, Err(CallError::Component { code: "blocked", .. })), "{role}: {refused:?}");
        assert_eq!(called(&asked.trace.snapshot()), role == "shield.input");
        assert!(bench.runtime.call_tool(asked, Some("echo".into()), json!({"q": "fine"})).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_memory_finds_comes_without_what_is_blocked_and_with_its_masks() {
    let bench = bench();
    let lines = ["note one", "note with a secret", "note of ann@example.org", "note four"];
    let memory = configured(bench.pin("memory", "knows_lines").await, json!({"lines": lines}));
    let grants = Grants { components: vec!["memory".into()], ..Grants::default() };
    let orchestrator = granted(bench.pin("orchestrator", "searches").await, grants);
    let orchestrator = configured(orchestrator, json!({"text": "note"}));
    let turned = Turned { bench, orchestrator, bound: vec![memory] };
    assert_eq!(turned.run().await.0.lines().collect::<Vec<_>>(), lines);
    let turned = turned.with("shield.input", "blocks_word", word("secret")).await;
    let turned = turned.with("shield.input", "regex-shield", json!({"pii": ["email"]})).await;
    let (said, trace) = turned.run().await;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["note one", "note of [EMAIL]", "note four"]);
    // Which one it is takes two halvings.
    let blocks = decisions(&trace).iter().filter(|d| d.1 == "block").count();
    assert_eq!(blocks, 3);
}
