use super::*;
use stockade_guest::testing::{Host, run, turn};

const LOOK: &str = "Thought: I add.\nAction: add\nAction Input: {\"x\":1}";
const DONE: &str = "Thought: I know it.\nAction: Done";

fn adder() -> Host {
    Host::new().tool("add", |a| Ok(ToolOutput::ok((a["x"].as_i64().unwrap() + 1).to_string())))
}

/// The first rule of a step's grammar.
fn grammar_start(request: &stockade_guest::inference::ChatRequest) -> String {
    let Some(Constraint::Lark(grammar)) = &request.constraint else { panic!("{:?}", request.constraint) };
    grammar.lines().next().unwrap_or_default().into()
}

fn last_text(request: &stockade_guest::inference::ChatRequest) -> String {
    request.messages.last().map(Message::joined_text).unwrap_or_default()
}

#[test]
fn observations_come_back_until_the_model_is_done_and_answers() {
    let host = adder().reply(LOOK).reply(DONE).reply("It is 2.");
    assert_eq!(run::<React>(json!({}), turn("1 + 1?")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), "It is 2.", "thoughts are told as steps only");
    let requests = host.requests();
    assert!(matches!(&requests[0].constraint, Some(Constraint::Lark(g)) if g.contains("add")));
    let second = last_text(&requests[1]);
    let want = "1 + 1?\n\nThought: I add.\nAction: add\nAction Input: {\"x\":1}\nObservation: 2\n\
        The next step, with the action Done if my request is answered above:";
    assert_eq!(second, want);
    let seen = "1 + 1?\n\nAction: add\nAction Input: {\"x\":1}\nObservation: 2\n";
    assert_eq!(last_text(&requests[2]), format!("{seen}Now answer my request from what was observed."));
    assert_eq!((&requests[2].constraint, requests.len()), (&None, 3));
    let titles: Vec<_> = host
        .sent()
        .into_iter()
        .filter_map(|e| match e {
            Event::Step(step) if step.status == StepStatus::Done => Some((step.kind, step.title)),
            _ => None,
        })
        .collect();
    let want = [(StepKind::Inference, "thought"), (StepKind::Tool, "add"), (StepKind::Inference, "thought")];
    assert_eq!(titles, want.map(|(kind, title)| (kind, title.to_string())));
}

#[test]
fn a_model_that_never_ends_is_made_to_answer() {
    let act = |n: i32| format!("Thought: more\nAction: add\nAction Input: {{\"x\":{n}}}");
    let host = adder().reply(&act(1)).reply(&act(2)).reply("enough");
    assert_eq!(run::<React>(json!({"limits": {"model_calls": 3}}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.sent_text()), (2, "enough".into()));
}

#[test]
fn once_its_tool_calls_are_made_it_answers() {
    let act = |n: i32| format!("Thought: more\nAction: add\nAction Input: {{\"x\":{n}}}");
    let host = adder().reply(&act(1)).reply(&act(2)).reply("enough");
    assert_eq!(run::<React>(json!({"limits": {"tool_calls": 2}}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.sent_text()), (2, "enough".into()));
}

#[test]
fn the_same_action_again_and_steps_that_were_cut_off_do_not_go_on_for_ever() {
    let host = adder().reply("Thought: so long").reply(LOOK).reply(LOOK).reply("fine");
    assert_eq!(run::<React>(json!({}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.requests().len()), (1, 4));
    assert!(last_text(&host.requests()[1]).contains("too long"));
}

#[test]
fn a_step_that_is_cut_off_twice_ends_the_work() {
    let host = adder().reply("Thought: so long").reply("Thought: so long").reply("fine");
    assert_eq!(run::<React>(json!({}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.sent_text(), last_text(&host.requests()[2])), ("fine".into(), "x".into()));
}

#[test]
fn thoughts_are_intents_until_something_is_known_and_the_first_failure_is_tried_again() {
    let act = |n: i32| format!("Thought: I need to add\nAction: add\nAction Input: {{\"x\":{n}}}");
    let fails_below_two = |a: Value| match a["x"].as_i64() {
        Some(x) if x >= 2 => Ok(ToolOutput::ok((x + 1).to_string())),
        _ => Ok(ToolOutput::failed("too small")),
    };
    let host = Host::new().tool("add", fails_below_two);
    let host = host.reply(&act(0)).reply(&act(2)).reply(&act(1)).reply(DONE).reply("3");
    assert_eq!(run::<React>(json!({}), turn("x")), Ok(FinishReason::Stop.into()));
    let requests = host.requests();
    let starts: Vec<String> = requests[..4].iter().map(grammar_start).collect();
    let want = [
        "(\"I need to \" THOUGHT act | \"I know the answer.\" DONE)",
        "\"I need to \" THOUGHT act",
        "THOUGHT (act | DONE)",
        "THOUGHT (act | DONE)",
    ];
    assert_eq!(starts, want.map(|rule| format!("start: \"Thought: \" {rule}")));
    assert!(last_text(&requests[1]).contains("Observation: Error: too small\nThe next step:"));
}

#[test]
fn a_tool_of_the_application_ends_the_turn_with_its_call() {
    let host = adder().reply("Thought: ask\nAction: theirs\nAction Input: {\"a\":1}");
    let mut asked = turn("x");
    asked.tools.push(ToolSpec::new("theirs", "", &json!({})));
    assert_eq!(run::<React>(json!({}), asked), Ok(FinishReason::ToolCalls.into()));
    let calls: Vec<_> = host.sent().into_iter().filter(|e| matches!(e, Event::ToolCall(_))).collect();
    let [Event::ToolCall(call)] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.name.as_deref(), &*call.arguments), (Some("theirs"), "{\"a\":1}"));
}

#[test]
fn a_required_tool_is_called_before_the_answer_and_a_constraint_holds_for_the_answer() {
    let host = adder().reply(LOOK).reply(DONE).reply("{}");
    let mut asked = turn("x");
    asked.tool_choice = ToolChoice::Named("add".into());
    asked.constraint = Some(Constraint::JsonObject);
    asked.sampling.stop = vec!["\n".into()];
    run::<React>(json!({}), asked).unwrap();
    let requests = host.requests();
    let may_end = |n: usize| grammar_start(&requests[n]).contains("DONE");
    assert_eq!((may_end(0), may_end(1)), (false, true));
    assert_eq!(requests[2].constraint, Some(Constraint::JsonObject));
    assert_eq!((requests[0].sampling.stop.len(), requests[2].sampling.stop.len()), (0, 1));
}

#[test]
fn without_tools_it_just_answers_and_a_block_is_no_failure() {
    let host = Host::new().reply("Hello there").block_output_after(6);
    assert_eq!(run::<React>(json!({}), turn("Hi")), Ok(FinishReason::ContentFilter.into()));
    assert_eq!((host.sent_text(), host.requests().len()), ("Hello ".into(), 1));
}

#[test]
fn a_call_that_needs_approval_interrupts_and_goes_on_exactly_there() {
    let config = json!({"approve": ["add"]});
    let host = adder().reply(LOOK);
    let Ok(Outcome::Interrupted(asked)) = run::<React>(config.clone(), turn("1 + 1?")) else { panic!() };
    assert!(host.tool_calls().is_empty(), "nothing runs before the answer");
    assert_eq!(asked.question, r#"May this tool be called? add {"x":1}"#);
    let resumed = |state: &str, answer: Value| Turn {
        resume: Some(Resumption { state: state.into(), answer: answer.to_string() }),
        ..turn("1 + 1?")
    };
    // In a fresh host, as after a restart.
    let host = adder().reply(DONE).reply("It is 2.");
    let ended = run::<React>(config.clone(), resumed(&asked.state, json!({"approve": true})));
    assert_eq!((ended, host.sent_text().as_str()), (Ok(FinishReason::Stop.into()), "It is 2."));
    assert_eq!(host.tool_calls().len(), 1);
    assert!(last_text(&host.requests()[0]).contains("Action: add\nAction Input: {\"x\":1}\nObservation: 2"));

    let host = adder().reply(DONE).reply("I may not.");
    run::<React>(config.clone(), resumed(&asked.state, json!({"approve": false, "reason": "no"}))).unwrap();
    assert!(host.tool_calls().is_empty());
    let told = last_text(&host.requests()[0]);
    assert!(told.contains("Observation: Error: the user does not allow this call: no"), "{told}");
    assert!(grammar_start(&host.requests()[0]).contains("DONE"), "what a person has refused need not be tried again");

    adder();
    let again = run::<React>(config.clone(), resumed(&asked.state, json!("yes")));
    let Ok(Outcome::Interrupted(again)) = again else { panic!("{again:?}") };
    assert!(again.question.starts_with("An answer is"), "{}", again.question);
    assert!(matches!(run::<React>(config, resumed("{}x", json!(1))), Err(Error::Invalid(_))));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::latency("react", || {
        let host = testing::Host::new().reply("Final Answer: Hello.");
        let ended = testing::run::<React>(json!({}), testing::turn("Hi"));
        assert_eq!((ended, host.sent_text().is_empty()), (Ok(FinishReason::Stop.into()), false));
    });
}
