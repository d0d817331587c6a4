use super::*;
use stockade_guest::testing::{Host, run, turn};

fn adder(host: Host) -> Host {
    host.tool("add", |a| Ok(ToolOutput::ok((a["x"].as_i64().unwrap_or(0) + 1).to_string())))
}

fn interruption(outcome: Result<Outcome>) -> Interruption {
    match outcome {
        Ok(Outcome::Interrupted(interruption)) => interruption,
        other => panic!("{other:?}"),
    }
}

/// The turn goes on in a fresh host, as after a restart.
fn resumed(asked: &Turn, state: &str, answer: &Value) -> Turn {
    Turn { resume: Some(Resumption { state: state.into(), answer: answer.to_string() }), ..asked.clone() }
}

fn results(messages: &[Message]) -> Vec<(String, bool)> {
    let results = messages.iter().flat_map(|m| &m.parts).filter_map(|part| match part {
        Part::ToolResult(r) => Some((r.content.clone(), r.is_error)),
        _ => None,
    });
    results.collect()
}

#[test]
fn a_call_that_needs_approval_interrupts_and_goes_on_exactly_there() {
    let config = json!({"approve": ["add"]});
    let asked = turn("Add");
    let host = adder(Host::new())
        .tool("free", |_| Ok(ToolOutput::ok("free")))
        .reply_tool_calls(&[("add", json!({"x": 1})), ("free", json!({}))]);
    let interruption = interruption(run::<ToolLoop>(config.clone(), asked.clone()));
    assert!(host.tool_calls().is_empty(), "nothing of a round runs before the answer");
    assert_eq!(interruption.question, r#"May this tool be called? add {"x":1}"#);
    let request: Value = serde_json::from_str(&interruption.request).unwrap();
    assert_eq!(request["calls"], json!([{"id": "call-0", "name": "add", "arguments": {"x": 1}}]));

    let host = adder(Host::new()).tool("free", |_| Ok(ToolOutput::ok("free"))).reply("two");
    let again = resumed(&asked, &interruption.state, &json!({"approve": true}));
    assert_eq!(run::<ToolLoop>(config.clone(), again), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), "two");
    assert_eq!(host.tool_calls().len(), 2);
    assert_eq!(results(&host.requests()[0].messages), [("2".into(), false), ("free".into(), false)]);
    let Event::Step(step) = &host.sent()[0] else { panic!("{:?}", host.sent()) };
    assert_eq!(step.id, "step-2", "steps go on counting");

    let host = adder(Host::new()).tool("free", |_| Ok(ToolOutput::ok("free"))).reply("then not");
    let answer = json!({"call-0": {"approve": false, "reason": "not today"}});
    let refused = resumed(&asked, &interruption.state, &answer);
    assert_eq!(run::<ToolLoop>(config, refused), Ok(FinishReason::Stop.into()));
    assert_eq!(host.tool_calls(), [("free".into(), "{}".into())]);
    let want = ("the user does not allow this call: not today".into(), true);
    assert_eq!(results(&host.requests()[0].messages), [want, ("free".into(), false)]);
}

#[test]
fn what_a_turn_has_spent_counts_after_an_interruption() {
    let config = json!({"approve": ["*"], "limits": {"model_calls": 2}});
    let asked = turn("Add");
    let _host = adder(Host::new()).reply_tool_call("add", json!({"x": 1}));
    let state = interruption(run::<ToolLoop>(config.clone(), asked.clone())).state;
    let host = adder(Host::new()).reply("two");
    run::<ToolLoop>(config, resumed(&asked, &state, &json!({"approve": true}))).unwrap();
    assert_eq!(host.requests()[0].tool_choice, ToolChoice::Forbidden);
}

#[test]
fn an_answer_that_decides_nothing_asks_again_and_a_foreign_state_is_refused() {
    let config = json!({"approve": ["*"]});
    let asked = turn("Add");
    let _host = adder(Host::new()).reply_tool_call("add", json!({"x": 1}));
    let first = interruption(run::<ToolLoop>(config.clone(), asked.clone()));
    for answer in [json!("yes"), json!({"other": {"approve": true}})] {
        let host = adder(Host::new());
        let again = interruption(run::<ToolLoop>(config.clone(), resumed(&asked, &first.state, &answer)));
        assert!(again.question.starts_with("An answer is {") && again.question.ends_with(&first.question));
        assert_eq!(again.request, first.request);
        assert!(host.tool_calls().is_empty());
        let host = adder(Host::new()).reply("2");
        run::<ToolLoop>(config.clone(), resumed(&asked, &again.state, &json!({"approve": true}))).unwrap();
        assert_eq!(host.tool_calls().len(), 1);
    }
    let ended = run::<ToolLoop>(config, resumed(&asked, "{}", &json!({"approve": true})));
    assert!(matches!(ended, Err(Error::Invalid(_))), "{ended:?}");
}

#[test]
fn the_same_call_is_cut_and_the_model_has_to_answer() {
    let same = |host: Host| host.reply_tool_call("add", json!({"x": 1}));
    let host = same(same(same(adder(Host::new())))).reply("enough");
    assert_eq!(run::<ToolLoop>(json!({}), turn("Add")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.sent_text()), (2, "enough".into()));
    let requests = host.requests();
    assert_eq!(requests[3].tool_choice, ToolChoice::Forbidden);
    let last = results(&requests[3].messages).pop().unwrap();
    assert!(last.1 && last.0.contains("made before"), "{last:?}");
}

#[test]
fn a_tool_that_fails_is_the_models_to_read() {
    let host = Host::new()
        .tool("breaks", |_| Err(Error::Timeout))
        .reply_tool_call("breaks", json!({}))
        .reply("it did not work");
    assert_eq!(run::<ToolLoop>(json!({}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!(results(&host.requests()[1].messages), [("the tool failed: it took too long".into(), true)]);
}

#[test]
fn the_first_call_is_required_unless_the_application_says_else() {
    let config = json!({"require_tool": true});
    let host = adder(Host::new()).reply_tool_call("add", json!({"x": 1})).reply("2");
    run::<ToolLoop>(config.clone(), turn("Add")).unwrap();
    let choices: Vec<_> = host.requests().into_iter().map(|r| r.tool_choice).collect();
    assert_eq!(choices, [ToolChoice::Required, ToolChoice::Auto]);
    let host = adder(Host::new()).reply("no");
    let mut asked = turn("Add");
    asked.tool_choice = ToolChoice::Forbidden;
    run::<ToolLoop>(config, asked).unwrap();
    assert_eq!(host.requests()[0].tool_choice, ToolChoice::Forbidden);
}

#[test]
fn a_constrained_answer_comes_after_the_tools_and_alone() {
    let host = adder(Host::new()).reply_tool_call("add", json!({"x": 1})).reply("It is 2.").reply(r#"{"sum":2}"#);
    let mut asked = turn("Add");
    asked.constraint = Some(Constraint::JsonObject);
    assert_eq!(run::<ToolLoop>(json!({}), asked), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), r#"{"sum":2}"#);
    let constrained: Vec<_> = host.requests().into_iter().map(|r| r.constraint.is_some()).collect();
    assert_eq!(constrained, [false, false, true]);
}

#[test]
fn tokens_of_all_calls_together_are_bounded() {
    let config = json!({"limits": {"tokens": 40}});
    let words = "w ".repeat(35);
    let call = stockade_guest::types::ToolCallDelta {
        index: 0,
        id: Some("1".into()),
        name: Some("add".into()),
        arguments: "{}".into(),
    };
    let mut events: Vec<Event> = words.split_inclusive(' ').map(|w| Event::Text(w.into())).collect();
    events.push(Event::ToolCall(call));
    let host = adder(Host::new()).events(events, FinishReason::ToolCalls).reply("done");
    assert_eq!(run::<ToolLoop>(config, turn("x")), Ok(FinishReason::Stop.into()));
    let requests = host.requests();
    let bounds: Vec<_> = requests.iter().map(|r| r.sampling.max_tokens).collect();
    assert_eq!(bounds, [Some(40), Some(4)]);
    assert_eq!(requests[1].tool_choice, ToolChoice::Forbidden);
}

#[test]
fn calls_of_the_tenants_tools_are_bounded_over_the_turn_and_those_beyond_are_left_out() {
    let config = json!({"limits": {"tool_calls": 3}});
    let add = |x: i32| ("add", json!({"x": x}));
    let host = adder(Host::new()).reply_tool_calls(&[add(1), add(2)]).reply_tool_calls(&[add(3), add(4)]).reply("done");
    assert_eq!(run::<ToolLoop>(config.clone(), turn("Add")), Ok(FinishReason::Stop.into()));
    let made: Vec<_> = host.tool_calls().into_iter().map(|(_, arguments)| arguments).collect();
    assert_eq!((made, host.sent_text()), ([1, 2, 3].map(|x| json!({"x": x}).to_string()).to_vec(), "done".into()));
    let choices: Vec<_> = host.requests().into_iter().map(|r| r.tool_choice).collect();
    assert_eq!(choices, [ToolChoice::Auto, ToolChoice::Auto, ToolChoice::Forbidden]);

    // The application's tools are no part of it: they are offered on, alone.
    let mut asked = turn("Add");
    asked.tools.push(ToolSpec::new("theirs", "", &json!({})));
    let host = adder(Host::new()).reply_tool_calls(&[add(1), add(2), add(3)]).reply_tool_call("theirs", json!({}));
    assert_eq!(run::<ToolLoop>(config.clone(), asked.clone()), Ok(FinishReason::ToolCalls.into()));
    let offered: Vec<Vec<String>> =
        host.requests().into_iter().map(|r| r.tools.into_iter().map(|t| t.name).collect()).collect();
    assert_eq!(offered, [vec!["theirs", "add"], vec!["theirs"]]);
    // A model that calls all the same ends the turn.
    let host = adder(Host::new()).reply_tool_calls(&[add(1), add(2), add(3)]).reply_tool_calls(&[add(4)]);
    assert_eq!(run::<ToolLoop>(config, asked), Ok(FinishReason::Stop.into()));
    assert_eq!(host.tool_calls().len(), 3);
}

#[test]
fn calls_before_an_interruption_count_after_it() {
    let config = json!({"approve": ["pay"], "limits": {"tool_calls": 2}});
    let pay = |host: Host| adder(host).tool("pay", |_| Ok(ToolOutput::ok("paid")));
    let asked = turn("Add, then pay");
    let _host = pay(Host::new()).reply_tool_call("add", json!({"x": 1})).reply_tool_call("pay", json!({}));
    let state = interruption(run::<ToolLoop>(config.clone(), asked.clone())).state;
    let host = pay(Host::new()).reply("done");
    run::<ToolLoop>(config, resumed(&asked, &state, &json!({"approve": true}))).unwrap();
    assert_eq!((host.tool_calls().len(), &host.requests()[0].tool_choice), (1, &ToolChoice::Forbidden));
}

#[test]
fn one_call_at_a_time_leaves_the_others_of_a_reply_out() {
    let config = json!({"limits": {"calls_at_once": 1}});
    let add = |x: i32| ("add", json!({"x": x}));
    let host = adder(Host::new()).reply_tool_calls(&[add(1), add(2)]).reply("2");
    assert_eq!(run::<ToolLoop>(config.clone(), turn("Add")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.tool_calls(), [("add".into(), json!({"x": 1}).to_string())]);
    let called: usize = host.requests()[1].messages.iter().map(|m| results(std::slice::from_ref(m)).len()).sum();
    assert_eq!(called, 1, "what was left out has no result either");
    // The application's as well, with tools of the tenant's and without.
    for own in [true, false] {
        let mut asked = turn("x");
        asked.tools.push(ToolSpec::new("theirs", "", &json!({})));
        let host = if own { adder(Host::new()) } else { Host::new() };
        let host = host.reply_tool_calls(&[("theirs", json!({"n": 1})), ("theirs", json!({"n": 2}))]);
        assert_eq!(run::<ToolLoop>(config.clone(), asked), Ok(FinishReason::ToolCalls.into()));
        let sent: Vec<_> = host.sent().into_iter().filter(|e| matches!(e, Event::ToolCall(_))).collect();
        let [Event::ToolCall(call)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(call.arguments, json!({"n": 1}).to_string());
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::latency("tool-loop", || {
        let host = testing::Host::new().reply("Hello.");
        let ended = testing::run::<ToolLoop>(json!({}), testing::turn("Hi"));
        assert_eq!((ended, host.sent_text().is_empty()), (Ok(FinishReason::Stop.into()), false));
    });
}
