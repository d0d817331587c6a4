use super::*;
use stockade_guest::testing::{Host, run, turn};

fn config(by: &[&str]) -> Value {
    json!({"by": by, "default": "talk", "threshold": 0.9, "routes": [
        {"name": "talk", "description": "small talk"},
        {"name": "code", "description": "programs", "keywords": ["Rust", "python"], "pattern": "fn \\w+\\(",
         "examples": ["write a program"], "model": "coder", "system": "You write code.", "tools": ["run"],
         "temperature": 0.25, "max_tokens": 64},
        {"name": "sums", "description": "arithmetic", "examples": ["0123 + 4567"]},
    ]})
}

/// The host with the reply's end, and what the route step says.
fn routed(host: Host, by: &[&str], asked: Turn) -> (Host, Value) {
    let host = host.tool("run", |_| Ok(ToolOutput::ok("")));
    assert_eq!(run::<Router>(config(by), asked), Ok(FinishReason::Stop.into()));
    let mut steps = host.sent().into_iter().filter_map(|event| match event {
        Event::Step(step) if step.kind == StepKind::Route => serde_json::from_str(&step.detail).ok(),
        _ => None,
    });
    let detail = steps.next_back().unwrap();
    (host, detail)
}

#[test]
fn rules_choose_model_instructions_tools_and_sampling() {
    for text in ["help me with RUST", "what is fn main() {"] {
        let mut asked = turn(text);
        asked.sampling.max_tokens = Some(900);
        let (host, detail) = routed(Host::new().reply("ok"), &["rules"], asked);
        assert_eq!(detail, json!({"route": "code", "by": "rules", "score": null}));
        let request = &host.requests()[0];
        assert_eq!((&*request.model, request.tools.len()), ("coder", 1));
        assert_eq!(request.messages[0].joined_text(), "You write code.");
        assert_eq!((request.sampling.temperature, request.sampling.max_tokens), (Some(0.25), Some(64)));
        let ids: Vec<_> = host
            .sent()
            .into_iter()
            .filter_map(|e| if let Event::Step(step) = e { Some(step.id) } else { None })
            .collect();
        assert_eq!(ids, ["step-1", "step-1", "step-2", "step-2"], "the loop goes on counting");
    }
}

#[test]
fn nothing_that_fits_takes_the_default_and_ways_are_tried_in_order() {
    let (_, detail) = routed(Host::new().reply("ok"), &["rules", "similarity"], turn("rusty weather"));
    assert_eq!(detail, json!({"route": "talk", "by": null, "score": null}));
    let (_, detail) = routed(Host::new().reply("ok"), &["rules", "similarity"], turn("0123 + 4567"));
    assert_eq!((&detail["route"], &detail["by"]), (&json!("sums"), &json!("similarity")));
    assert!(detail["score"].as_f64() > Some(0.99));
}

#[test]
fn a_model_may_choose_among_the_names_alone() {
    let (host, detail) = routed(Host::new().reply("sums").reply("ok"), &["model"], turn("how much is it"));
    assert_eq!(detail["route"], "sums");
    let request = &host.requests()[0];
    assert_eq!(request.constraint, Some(Constraint::Regex("talk|code|sums".into())));
    assert_eq!(request.sampling.temperature, Some(0.0));
}

#[test]
fn a_broken_configuration_says_what_is_wrong() {
    let _host = Host::new();
    let mut broken = config(&["rules"]);
    broken["routes"][1]["pattern"] = json!("(");
    let ended = run::<Router>(broken, turn("hello"));
    assert!(matches!(&ended, Err(Error::Invalid(text)) if text.contains("pattern of `code`")), "{ended:?}");
    let mut broken = config(&["rules"]);
    broken["default"] = json!("nowhere");
    let ended = run::<Router>(broken, turn("hello"));
    assert!(matches!(&ended, Err(Error::Invalid(text)) if text.contains("`nowhere`")), "{ended:?}");
}

#[test]
fn a_call_that_needs_approval_interrupts_and_goes_on_by_the_same_route() {
    let mut config = config(&["model"]);
    config["approve"] = json!(["run"]);
    let runner = || Host::new().tool("run", |a| Ok(ToolOutput::ok(format!("ran {}", a["x"]))));
    let host = runner().reply("code").reply_tool_call("run", json!({"x": 1}));
    let Ok(Outcome::Interrupted(asked)) = run::<Router>(config.clone(), turn("hello")) else { panic!() };
    assert!(host.tool_calls().is_empty(), "nothing runs before the answer");
    assert_eq!(asked.question, r#"May this tool be called? run {"x":1}"#);
    let resumed = |state: &str, answer: Value| Turn {
        resume: Some(Resumption { state: state.into(), answer: answer.to_string() }),
        ..turn("hello")
    };
    // In a fresh host, as after a restart; nobody is asked for the route again.
    let host = runner().reply("It ran.");
    let ended = run::<Router>(config.clone(), resumed(&asked.state, json!({"approve": true})));
    assert_eq!((ended, host.sent_text().as_str()), (Ok(FinishReason::Stop.into()), "It ran."));
    assert_eq!(host.tool_calls(), [("run".into(), r#"{"x":1}"#.into())]);
    let request = &host.requests()[0];
    assert_eq!((host.requests().len(), &*request.model), (1, "coder"));
    assert_eq!(request.messages.last().map(|m| m.role), Some(Role::Tool));
    let routes: Vec<Value> = host
        .sent()
        .into_iter()
        .filter_map(|event| match event {
            Event::Step(s) if s.kind == StepKind::Route && s.status == StepStatus::Done => {
                serde_json::from_str(&s.detail).ok()
            }
            _ => None,
        })
        .collect();
    assert_eq!(routes, [json!({"route": "code", "by": "model", "score": null})]);

    let host = runner();
    let again = run::<Router>(config.clone(), resumed(&asked.state, json!("yes")));
    let Ok(Outcome::Interrupted(again)) = again else { panic!("{again:?}") };
    assert!(again.question.starts_with("An answer is") && host.requests().is_empty(), "{}", again.question);
    let host = runner().reply("I may not.");
    run::<Router>(config.clone(), resumed(&again.state, json!({"approve": false, "reason": "no"}))).unwrap();
    assert_eq!((host.tool_calls().len(), host.sent_text().as_str()), (0, "I may not."));

    // What a turn waits on is of a configuration that may have changed since.
    config["routes"][1]["name"] = json!("programs");
    let ended = run::<Router>(config.clone(), resumed(&asked.state, json!({"approve": true})));
    assert!(matches!(&ended, Err(Error::Invalid(text)) if text.contains("`code`")), "{ended:?}");
    assert!(matches!(run::<Router>(config, resumed("{}x", json!(1))), Err(Error::Invalid(_))));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::latency("router", || {
        let host = testing::Host::new().reply("Hello.");
        let ended = testing::run::<Router>(
            json!({"default": "all", "by": ["rules"], "routes": [{"name": "all", "keywords": ["hi"], "tools": []}]}),
            testing::turn("Hi"),
        );
        assert_eq!((ended, host.sent_text().is_empty()), (Ok(FinishReason::Stop.into()), false));
    });
}
