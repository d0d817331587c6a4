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
