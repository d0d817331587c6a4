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
