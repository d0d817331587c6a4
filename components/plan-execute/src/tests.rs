use super::*;
use stockade_guest::testing::{Host, run, turn};

fn plan(steps: &[(&str, &str)]) -> String {
    let steps: Vec<Value> = steps.iter().map(|(task, tool)| json!({"task": task, "tool": tool})).collect();
    json!({"steps": steps}).to_string()
}

fn adder() -> Host {
    Host::new().tool("add", |a| match a["x"].as_i64() {
        Some(x) => Ok(ToolOutput::ok((x + 1).to_string())),
        None => Ok(ToolOutput::failed("x is missing")),
    })
}

fn told(host: &Host, kind: StepKind) -> Vec<(String, StepStatus)> {
    let steps = host.sent().into_iter().filter_map(|event| match event {
        Event::Step(step) if step.kind == kind && step.status != StepStatus::Started => Some((step.title, step.status)),
        _ => None,
    });
    steps.collect()
}

fn last_text(host: &Host, request: usize) -> String {
    host.requests()[request].messages.last().map(Message::joined_text).unwrap_or_default()
}

#[test]
fn a_plan_is_carried_out_and_the_answer_comes_from_its_results() {
    let host = adder()
        .reply(&plan(&[("Add one to four", "add"), ("Say it nicely", "none")]))
        .reply_tool_call("add", json!({"x": 4}))
        .reply("five, nicely")
        .reply("It is five.");
    assert_eq!(run::<PlanExecute>(json!({}), turn("4 + 1?")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), "It is five.");
    let requests = host.requests();
    assert!(matches!(&requests[0].constraint, Some(Constraint::JsonSchema(s)) if s.contains(r#"["add","none"]"#)));
    assert_eq!(requests[1].tool_choice, ToolChoice::Named("add".into()));
    assert!(last_text(&host, 2).contains("1. Add one to four -> 5\nNow do only this step: Say it nicely"));
    assert!(
        last_text(&host, 3).ends_with("2. Say it nicely -> five, nicely\nNow answer my request from these results.")
    );
    assert_eq!(told(&host, StepKind::Plan), [("plan".into(), StepStatus::Done)]);
    assert_eq!(told(&host, StepKind::Tool), [("add".into(), StepStatus::Done)]);
    assert_eq!(told(&host, StepKind::Inference), [("Say it nicely".into(), StepStatus::Done)]);
}

#[test]
fn a_plan_ends_where_a_step_needs_a_call_that_is_not_left() {
    let host = adder()
        .reply(&plan(&[("Add", "add"), ("Add again", "add"), ("Never", "none")]))
        .reply_tool_call("add", json!({"x": 4}))
        .reply("Five so far.");
    assert_eq!(run::<PlanExecute>(json!({"limits": {"tool_calls": 1}}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.sent_text()), (1, "Five so far.".into()));
}

#[test]
fn a_failed_step_is_planned_around_at_most_as_often_as_allowed() {
    let fails = |host: Host| host.reply(&plan(&[("Add", "add"), ("Never", "none")])).reply_tool_call("add", json!({}));
    let host = fails(fails(adder())).reply("Sorry.");
    let config = json!({"max_replans": 1});
    assert_eq!(run::<PlanExecute>(config, turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.requests().len(), 5);
    assert!(last_text(&host, 2).contains("1. Add -> failed: x is missing\nThe last of these steps failed."));
    let plans = [("plan".into(), StepStatus::Done), ("mended plan".into(), StepStatus::Done)];
    assert_eq!((told(&host, StepKind::Plan), host.sent_text()), (plans.to_vec(), "Sorry.".into()));
}

#[test]
fn a_broken_plan_or_a_spent_budget_still_ends_with_an_answer() {
    let host = adder().reply("{\"steps\": [").reply("Anyway.");
    assert_eq!(run::<PlanExecute>(json!({}), turn("x")), Ok(FinishReason::Stop.into()));
    assert_eq!(told(&host, StepKind::Plan), [("plan".into(), StepStatus::Failed)]);
    assert_eq!(host.sent_text(), "Anyway.");
    let host = adder().reply(&plan(&[("a a", "none"), ("b b", "none")])).reply("A").reply("Done.");
    run::<PlanExecute>(json!({"limits": {"model_calls": 3}}), turn("x")).unwrap();
    assert_eq!((host.requests().len(), host.sent_text()), (3, "Done.".into()));
}

#[test]
fn tools_of_the_application_are_offered_with_the_answer_or_called_at_once() {
    let with_tool = |choice| {
        let mut asked = turn("x");
        asked.tools.push(ToolSpec::new("theirs", "", &json!({})));
        asked.tool_choice = choice;
        asked
    };
    let host = adder().reply_tool_call("theirs", json!({}));
    let ended = run::<PlanExecute>(json!({}), with_tool(ToolChoice::Named("theirs".into())));
    assert_eq!(ended, Ok(FinishReason::ToolCalls.into()));
    assert_eq!(host.requests().len(), 1);
    let host = adder().reply(&plan(&[("Think", "none")])).reply("hm").reply_tool_call("theirs", json!({}));
    assert_eq!(run::<PlanExecute>(json!({}), with_tool(ToolChoice::Auto)), Ok(FinishReason::ToolCalls.into()));
    assert_eq!(host.requests()[2].tools.len(), 1);
    assert!(host.sent().iter().any(|e| matches!(e, Event::ToolCall(_))));
}

#[test]
fn a_tool_that_has_to_be_called_is_where_the_plan_begins() {
    let first = |choice: ToolChoice| {
        let host =
            adder().tool("sub", |_| Ok(ToolOutput::ok("0"))).reply(&plan(&[("a a", "none")])).reply("A").reply("B");
        run::<PlanExecute>(json!({}), Turn { tool_choice: choice, ..turn("x") }).unwrap();
        let Some(Constraint::JsonSchema(schema)) = host.requests()[0].constraint.clone() else { panic!() };
        let schema: Value = serde_json::from_str(&schema).unwrap();
        schema["properties"]["steps"]["prefixItems"][0]["properties"]["tool"]["enum"].clone()
    };
    assert_eq!(first(ToolChoice::Auto), Value::Null);
    assert_eq!(first(ToolChoice::Required), json!(["add", "sub"]));
    assert_eq!(first(ToolChoice::Named("sub".into())), json!(["sub"]));
}

#[test]
fn a_call_that_needs_approval_interrupts_and_the_plan_goes_on_exactly_there() {
    let config = json!({"approve": ["add"]});
    let asked = turn("4 + 1?");
    let steps = plan(&[("Think of four", "none"), ("Add one to four", "add"), ("Say it nicely", "none")]);
    let host = adder().reply(&steps).reply("four").reply_tool_call("add", json!({"x": 4}));
    let Ok(Outcome::Interrupted(interruption)) = run::<PlanExecute>(config.clone(), asked.clone()) else { panic!() };
    assert!(host.tool_calls().is_empty() && host.sent_text().is_empty(), "nothing runs before the answer");
    assert_eq!(interruption.question, r#"May this tool be called? add {"x":4}"#);
    let resumed = |answer: Value| Turn {
        resume: Some(Resumption { state: interruption.state.clone(), answer: answer.to_string() }),
        ..asked.clone()
    };
    // In a fresh host, as after a restart.
    let host = adder().reply("five, nicely").reply("It is five.");
    assert_eq!(run::<PlanExecute>(config.clone(), resumed(json!({"approve": true}))), Ok(FinishReason::Stop.into()));
    assert_eq!(
        (host.tool_calls(), host.sent_text()),
        (vec![("add".into(), r#"{"x":4}"#.into())], "It is five.".into())
    );
    let done = "1. Think of four -> four\n2. Add one to four -> 5\n";
    assert!(last_text(&host, 0).contains(&format!("{done}Now do only this step: Say it nicely")));
    let Event::Step(step) = &host.sent()[0] else { panic!("{:?}", host.sent()) };
    assert_eq!(step.id, "step-3", "steps go on counting");

    let host = adder().reply(&plan(&[("Guess", "none")])).reply("six?").reply("About six.");
    let refused = resumed(json!({"approve": false, "reason": "not today"}));
    assert_eq!(run::<PlanExecute>(config.clone(), refused), Ok(FinishReason::Stop.into()));
    assert!(host.tool_calls().is_empty());
    let why = "2. Add one to four -> failed: the user does not allow this call: not today\n";
    assert!(last_text(&host, 0).contains(&format!("{why}The last of these steps failed.")));
    assert_eq!(told(&host, StepKind::Plan), [("mended plan".into(), StepStatus::Done)]);

    let host = adder();
    let again = run::<PlanExecute>(config.clone(), resumed(json!("yes")));
    let Ok(Outcome::Interrupted(again)) = again else { panic!("{again:?}") };
    assert!(again.question.starts_with("An answer is") && host.requests().is_empty(), "{}", again.question);
    let host = adder().reply("nicely").reply("Five.");
    let answer = json!({"approve": true}).to_string();
    let late = Turn { resume: Some(Resumption { state: again.state, answer }), ..asked.clone() };
    assert_eq!(run::<PlanExecute>(config.clone(), late), Ok(FinishReason::Stop.into()));
    assert_eq!((host.tool_calls().len(), host.sent_text().as_str()), (1, "Five."));
    let foreign = Turn { resume: Some(Resumption { state: "{}x".into(), answer: "1".into() }), ..asked };
    assert!(matches!(run::<PlanExecute>(config, foreign), Err(Error::Invalid(_))));
}

#[test]
fn what_a_turn_has_planned_and_spent_counts_after_an_interruption() {
    let asked = turn("x");
    let resumed = |config: &Value| {
        adder().reply(&plan(&[("Add", "add")])).reply_tool_call("add", json!({"x": 1}));
        let Ok(Outcome::Interrupted(interruption)) = run::<PlanExecute>(config.clone(), asked.clone()) else {
            panic!()
        };
        let answer = json!({"approve": false}).to_string();
        let host = adder().reply("Sorry.");
        let turn = Turn { resume: Some(Resumption { state: interruption.state, answer }), ..asked.clone() };
        assert_eq!(run::<PlanExecute>(config.clone(), turn), Ok(FinishReason::Stop.into()));
        (host.requests().len(), host.sent_text())
    };
    for config in [json!({"approve": ["*"], "max_replans": 0}), json!({"approve": ["*"], "limits": {"model_calls": 3}})]
    {
        assert_eq!(resumed(&config), (1, "Sorry.".into()), "{config}");
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let steps = plan(&[("Say hello", "none")]);
    testing::latency("plan-execute", || {
        let host = Host::new().reply(&steps).reply("Hello.").reply("Hello.");
        let ended = run::<PlanExecute>(json!({}), turn("Hi"));
        assert_eq!((ended, host.sent_text().as_str()), (Ok(FinishReason::Stop.into()), "Hello."));
    });
}
