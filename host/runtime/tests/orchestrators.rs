//! The shipped orchestrators as components, over scripted models and the echo tool: what they tell, where they stop, how
//! they go on.

mod support;

use serde_json::{Value, json};
use stockade_core::chat::Part;
use stockade_core::event::{End, Event, FinishReason, Step, StepKind, StepStatus, ToolCallDelta, Usage};
use stockade_core::infer::{Constraint, GenerateRequest, Prompt};
use stockade_core::plugin::*;
use support::*;

/// One orchestrator and the echo tool in a fresh runtime.
struct Stage {
    bench: Bench,
    orchestrator: Pinned,
    others: Vec<Pinned>,
}

/// How a turn went.
struct Played {
    text: String,
    steps: Vec<Step>,
    calls: Vec<ToolCallDelta>,
    end: Result<End, CallError>,
}

impl Stage {
    async fn new(orchestrator: &str, config: Value) -> Self {
        let bench = bench();
        let grants = Grants {
            models: vec!["*".into()],
            components: vec!["tool/*".into(), "memory".into()],
            ..Grants::default()
        };
        let pinned = configured(bench.pin("orchestrator", orchestrator).await, config);
        let tool = bench.pin("tool/echo", "echo-tool").await;
        Self { orchestrator: granted(pinned, grants), others: vec![tool], bench }
    }

    /// The next generations, in order.
    fn script(self, replies: &[&[Event]]) -> Self {
        let whole = |reply: &&[Event]| reply.iter().cloned().chain([end()]).map(Ok).collect();
        *self.bench.models.replies.lock().unwrap() = replies.iter().map(whole).collect();
        self
    }

    async fn play(&self, turn: Turn) -> Played {
        let mut events = self.bench.runtime.run_turn(call_among(&self.orchestrator, &self.others), turn);
        let (mut text, mut steps, mut calls) = (String::new(), Vec::new(), Vec::new());
        let end = loop {
            match events.recv().await.expect("a turn ends with its end") {
                Ok(Event::Text(delta)) => text.push_str(&delta.text),
                Ok(Event::Step(step)) => steps.push(step),
                Ok(Event::ToolCall(delta)) => calls.push(delta),
                Ok(Event::End(end)) => break Ok(end),
                Ok(Event::Reasoning { .. }) => {}
                Err(error) => break Err(error),
            }
        };
        Played { text, steps, calls, end }
    }

    fn asked(&self) -> Vec<GenerateRequest> {
        self.bench.models.asked.lock().unwrap().clone()
    }
}

impl Played {
    fn reason(&self) -> FinishReason {
        self.end.as_ref().expect("the turn ends well").reason
    }

    /// The ended steps, and the detail of each.
    fn ended(&self, kind: StepKind) -> Vec<(StepStatus, Value)> {
        let ended = self.steps.iter().filter(|s| s.kind == kind && s.status != StepStatus::Started);
        ended.map(|s| (s.status, s.detail.clone())).collect()
    }
}

fn calls(calls: &[(&str, Value)]) -> Vec<Event> {
    let delta = |(index, (name, arguments)): (u32, &(&str, Value))| {
        let id = Some(format!("call_{name}{index}"));
        Event::ToolCall(ToolCallDelta { index, id, name: Some((*name).into()), arguments: arguments.to_string() })
    };
    (0..).zip(calls).map(delta).collect()
}

/// The texts and tool results that a model was asked with.
fn conversation(request: &GenerateRequest) -> Vec<String> {
    let Prompt::Chat(chat) = &request.prompt else { panic!("a chat") };
    let part = |part: &Part| match part {
        Part::Text { text } => text.clone(),
        Part::ToolResult(result) => format!("result {}: {}", result.call_id, result.content),
        Part::ToolCall(call) => format!("call {}: {}", call.name, call.arguments),
        other => format!("{other:?}"),
    };
    chat.messages.iter().flat_map(|m| m.parts.iter().map(part)).collect()
}

#[tokio::test]
async fn a_tool_loop_waits_for_approval_and_goes_on_in_another_process() {
    let config = json!({"approve": ["echo"]});
    let asks = calls(&[("echo", json!({"text": "hi"})), ("echo", json!({"text": "ho"}))]);
    let stage = Stage::new("tool-loop", config.clone()).await.script(&[&asks]);
    let played = stage.play(turn(MODEL)).await;
    assert_eq!(played.reason(), FinishReason::Interrupted);
    let interruption = played.end.unwrap().interruption.expect("what it waits for");
    assert!(interruption.question.contains(r#"echo {"text":"hi"}"#), "{}", interruption.question);
    assert_eq!(interruption.request["calls"][1]["id"], "call_echo1");
    drop(stage);

    // Another runtime has nothing of the first but what the host has kept.
    let stage = Stage::new("tool-loop", config).await.script(&[&[text("done")]]);
    let answer = json!({"call_echo0": {"approve": true}, "call_echo1": {"approve": false, "reason": "no"}});
    let resume = Some(Resumption { state: interruption.state, answer });
    let played = stage.play(Turn { resume, ..turn(MODEL) }).await;
    assert_eq!((played.reason(), &*played.text), (FinishReason::Stop, "done"));
    let told = conversation(&stage.asked()[0]);
    assert_eq!(
        told,
        [
            "hello",
            r#"call echo: {"text":"hi"}"#,
            r#"call echo: {"text":"ho"}"#,
            r#"result call_echo0: {"text":"hi"}"#,
            "result call_echo1: the user does not allow this call: no",
        ]
    );
    let statuses: Vec<_> = played.ended(StepKind::Tool).into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [StepStatus::Done, StepStatus::Failed]);
}

#[tokio::test]
async fn an_answer_that_decides_nothing_asks_again_and_a_foreign_state_is_refused() {
    let stage = Stage::new("tool-loop", json!({"approve": ["*"]})).await;
    let stage = stage.script(&[&calls(&[("echo", json!({"text": "hi"}))]), &[text("done")]]);
    let state = stage.play(turn(MODEL)).await.end.unwrap().interruption.unwrap().state;
    let resumed =
        |state: &Value, answer| Turn { resume: Some(Resumption { state: state.clone(), answer }), ..turn(MODEL) };
    let refused = stage.play(resumed(&json!({"rounds": 1}), json!({"approve": true}))).await.end;
    assert!(matches!(refused, Err(CallError::Component { code: "invalid", .. })), "{refused:?}");
    let again = stage.play(resumed(&state, json!("whatever"))).await;
    assert_eq!(again.reason(), FinishReason::Interrupted);
    let state = again.end.unwrap().interruption.unwrap().state;
    assert_eq!(stage.play(resumed(&state, json!({"approve": true}))).await.text, "done");
}

#[tokio::test]
async fn steps_of_parallel_calls_are_told_and_their_results_go_back_in_order() {
    let asks = calls(&[("echo", json!({"text": "a"})), ("echo", json!({"text": "b"}))]);
    let stage = Stage::new("tool-loop", json!({})).await.script(&[&asks, &[text("both")]]);
    let played = stage.play(turn(MODEL)).await;
    assert_eq!((played.reason(), &*played.text), (FinishReason::Stop, "both"));
    let results = played.ended(StepKind::Tool).into_iter().map(|(_, detail)| detail["result"].clone());
    assert_eq!(results.collect::<Vec<_>>(), [json!(r#"{"text":"a"}"#), json!(r#"{"text":"b"}"#)]);
    assert!(played.calls.is_empty(), "the tenant's own tools are no business of the application");
    let ids: Vec<&str> = played.steps.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["step-1", "step-1", "step-2", "step-3", "step-2", "step-3", "step-4", "step-4"]);
    assert_eq!(played.end.unwrap().usage, Usage { prompt_tokens: 10, cached_tokens: 0, completion_tokens: 6 });
}

#[tokio::test]
async fn react_acts_in_text_and_answers_in_a_call_of_its_own() {
    let stage = Stage::new("react", json!({})).await.script(&[
        &[text("Thought: I echo.\nAction: echo\nAction Input: {\"text\":\"x\"}")],
        &[text("Thought: I have it.\nAction: Done")],
        &[text("It says x.")],
    ]);
    let played = stage.play(turn(MODEL)).await;
    assert_eq!((played.reason(), &*played.text), (FinishReason::Stop, "It says x."));
    assert_eq!(played.ended(StepKind::Tool)[0].1["result"], r#"{"text":"x"}"#);
    let asked = stage.asked();
    assert!(matches!(&asked[0].constraint, Some(Constraint::Lark(g)) if g.contains("echo\\nAction Input: ")));
    assert!(
        asked[2].constraint.is_none() && conversation(&asked[2]).join("\n").contains("Observation: {\"text\":\"x\"}")
    );
}

#[tokio::test]
async fn a_plan_is_carried_out_with_its_tool() {
    let plan = json!({"steps": [{"task": "say it", "tool": "echo"}, {"task": "praise it", "tool": "none"}]});
    let stage = Stage::new("plan-execute", json!({})).await.script(&[
        &[text(&plan.to_string())],
        &calls(&[("echo", json!({"text": "x"}))]),
        &[text("well said")],
        &[text("All done.")],
    ]);
    let played = stage.play(turn(MODEL)).await;
    assert_eq!((played.reason(), &*played.text), (FinishReason::Stop, "All done."));
    assert_eq!(played.ended(StepKind::Plan)[0].1, plan);
    assert_eq!(played.ended(StepKind::Tool)[0].1["result"], r#"{"text":"x"}"#);
    let last = conversation(&stage.asked()[3]).join("\n");
    assert!(last.contains("1. say it -> {\"text\":\"x\"}\n2. praise it -> well said\n"), "{last}");
}

#[tokio::test]
async fn sources_are_numbered_and_unknown_citations_do_not_leave() {
    let mut stage = Stage::new("rag", json!({"banks": ["facts"]})).await.script(&[&[text("Hello [1"), text("] [7].")]]);
    let memory = stage.bench.pin("memory", "knows_lines").await;
    stage.others.push(configured(memory, json!({"lines": ["hello means good day", "nothing else"]})));
    let played = stage.play(turn(MODEL)).await;
    assert_eq!((played.reason(), &*played.text), (FinishReason::Stop, "Hello [1]."));
    assert!(conversation(&stage.asked()[0])[0].contains("[1] hello means good day\n"));
    let retrieval = played.ended(StepKind::Retrieval);
    assert_eq!((retrieval.len(), retrieval[0].1["hits"].as_array().map(Vec::len)), (1, Some(1)));
    assert_eq!(played.ended(StepKind::Other)[0].1, json!({"cited": [1]}));
}

#[tokio::test]
async fn a_route_sets_the_instructions_and_the_bounds() {
    let config = json!({"default": "other", "routes": [
        {"name": "greeting", "keywords": ["hello"], "system": "Be warm.", "max_tokens": 7, "tools": []}, {"name": "other"}]});
    let stage = Stage::new("router", config).await;
    let played = stage.play(turn(MODEL)).await;
    assert_eq!(played.text, "Hello there.");
    assert_eq!(played.ended(StepKind::Route)[0].1["route"], "greeting");
    let asked = stage.asked();
    assert_eq!(conversation(&asked[0]), ["Be warm.", "hello"]);
    assert_eq!(asked[0].sampling.max_tokens, Some(7));
}

#[tokio::test]
async fn a_long_history_is_cut_to_the_context_oldest_first() {
    use stockade_core::chat::{Message, Role as Speaker};
    // The scripted model has 2048 tokens, which are bytes.
    let stage = Stage::new("chat", json!({"system": "Be brief.", "tools": []})).await;
    let mut long = turn(MODEL);
    long.sampling.max_tokens = Some(100);
    long.messages = (0..10)
        .flat_map(|n| {
            let (q, a) = (format!("q{n}{}", "?".repeat(150)), format!("a{n}{}", "!".repeat(150)));
            [Message::text(Speaker::User, q), Message::text(Speaker::Assistant, a)]
        })
        .chain([Message::text(Speaker::User, "the question")])
        .collect();
    assert_eq!(stage.play(long).await.text, "Hello there.");
    let kept: Vec<String> = conversation(&stage.asked()[0]).iter().map(|t| t.chars().take(2).collect()).collect();
    assert_eq!(kept, ["Be", "q5", "a5", "q6", "a6", "q7", "a7", "q8", "a8", "q9", "a9", "th"]);
}
