use super::*;
use stockade_guest::memories::{Item, insert};
use stockade_guest::testing::{Host, run, turn};

/// The harness's memory finds the items that contain the query.
fn filled() -> Host {
    let host = Host::new();
    let item = |id: &str, text: &str, title: &str| Item {
        id: id.into(),
        metadata: json!({"title": title}).to_string(),
        ..Item::new(text)
    };
    insert("docs", &[item("d1", "tea is green", "Leaves"), item("d2", "tea is hot", "Kettle")]).unwrap();
    insert("notes", &[item("n1", "tea at five", ""), item("n2", "tea is green", "Twice")]).unwrap();
    host
}

fn ended(host: &Host, kind: StepKind) -> Vec<Value> {
    let details = host.sent().into_iter().filter_map(|event| match event {
        Event::Step(step) if step.kind == kind && step.status == StepStatus::Done => {
            serde_json::from_str(&step.detail).ok()
        }
        _ => None,
    });
    details.collect()
}

#[test]
fn sources_of_all_banks_reach_the_model_numbered_and_wrong_citations_do_not_leave() {
    let host = filled().reply("Green [1], at five [2], blue [9].");
    let config = json!({"banks": ["docs", "notes"], "system": "Be kind."});
    assert_eq!(run::<Rag>(config, turn("tea")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), "Green [1], at five [2], blue.");
    let system = host.requests()[0].messages[0].joined_text();
    assert!(system.starts_with("Be kind.\n\nSources"), "{system}");
    assert!(system.contains("[1] Leaves: tea is green\n[2] tea at five\n[3] Kettle: tea is hot\n"), "{system}");
    assert!(!system.contains("[4]"), "the same text counts once: {system}");
    let hits = &ended(&host, StepKind::Retrieval)[0]["hits"];
    assert_eq!(
        (&hits[1]["bank"], &hits[1]["id"], &hits[0]["title"]),
        (&json!("notes"), &json!("n1"), &json!("Leaves"))
    );
    assert_eq!(ended(&host, StepKind::Other), [json!({"cited": [1, 2]})]);
}

#[test]
fn without_a_source_it_says_so_or_lets_the_model_answer() {
    let host = filled();
    assert_eq!(run::<Rag>(json!({"banks": ["docs"]}), turn("coffee")), Ok(FinishReason::Stop.into()));
    assert!(host.sent_text().starts_with("I have found nothing") && host.requests().is_empty());
    let host = filled().reply("Coffee is brown [1].");
    let config = json!({"banks": ["docs"], "no_hit": "answer"});
    run::<Rag>(config, turn("coffee")).unwrap();
    assert_eq!(host.sent_text(), "Coffee is brown [1].");
    assert_eq!(host.requests()[0].messages.len(), 1);
}

#[test]
fn the_model_may_write_the_query() {
    let host = filled().reply("hot").reply("Yes [1].");
    let mut asked = turn("Tell me of tea");
    asked.messages.extend([Message::assistant("Ask on."), Message::user("Is it warm?")]);
    run::<Rag>(json!({"banks": ["docs"], "rewrite": true}), asked).unwrap();
    let requests = host.requests();
    assert!(matches!(requests[0].constraint, Some(Constraint::Regex(_))));
    assert!(requests[0].messages[2].joined_text().starts_with("Is it warm?\n\nDo not answer."));
    assert!(requests[1].messages[0].joined_text().contains("[1] Kettle: tea is hot"));
    assert_eq!(requests[1].messages.last().map(Message::joined_text), Some("Is it warm?".into()));
}

#[test]
fn sources_stay_within_their_tokens_and_the_first_is_cut_to_them() {
    // The harness counts bytes.
    for (tokens, kept) in [(5, &["tea i ..."][..]), (12, &["tea is green"]), (22, &["tea is green", "tea is hot"])] {
        let host = filled().reply("ok");
        run::<Rag>(json!({"banks": ["docs"], "source_tokens": tokens}), turn("tea")).unwrap();
        let system = host.requests()[0].messages[0].joined_text();
        let texts: Vec<&str> =
            system.lines().filter_map(|l| l.strip_prefix('[')?.split_once(": ").map(|p| p.1)).collect();
        assert_eq!(texts, kept, "{tokens} tokens");
    }
}

#[test]
fn tools_of_the_application_and_a_constraint_pass_through() {
    let host = filled().reply_tool_call("theirs", json!({"a": 1}));
    let mut asked = turn("tea");
    asked.tools.push(ToolSpec::new("theirs", "", &json!({})));
    assert_eq!(run::<Rag>(json!({"banks": ["docs"]}), asked), Ok(FinishReason::ToolCalls.into()));
    assert!(host.sent().iter().any(|e| matches!(e, Event::ToolCall(c) if c.arguments == r#"{"a":1}"#)));
    let host = filled().reply("[9]");
    let mut asked = turn("tea");
    asked.constraint = Some(Constraint::JsonSchema("{}".into()));
    run::<Rag>(json!({"banks": ["docs"]}), asked).unwrap();
    assert_eq!(host.sent_text(), "[9]", "JSON has brackets of its own");
}

#[test]
fn filter_mode_and_threshold_reach_the_memory() {
    let host = filled().reply("Hot [1].");
    let config = json!({"banks": ["docs"], "filter": {"title": "Kettle"}, "mode": "keyword", "threshold": 0.5,
        "ranking": {"ranker": "rrf"}});
    run::<Rag>(config, turn("tea")).unwrap();
    let system = host.requests()[0].messages[0].joined_text();
    assert!(system.contains("[1] Kettle: tea is hot") && !system.contains("Leaves"), "{system}");
}

#[test]
fn a_reply_that_cites_nothing_may_get_the_citation_of_its_source() {
    let config = json!({"banks": ["docs", "notes"], "attribute": true});
    let host = filled().reply("This tea is served at five.");
    run::<Rag>(config.clone(), turn("tea")).unwrap();
    assert_eq!(host.sent_text(), "This tea is served at five.", "too little of it is in a source");
    let host = filled().reply("Green tea, green leaves 1 2 3");
    insert("docs", &[Item::new("tea: green leaves 1 2 3")]).unwrap();
    run::<Rag>(config.clone(), turn("tea")).unwrap();
    assert!(host.sent_text().starts_with("Green tea, green leaves 1 2 3 ["), "{}", host.sent_text());
    assert!(ended(&host, StepKind::Other)[0]["attributed"].as_f64() > Some(0.5));
    let host = filled().reply("Green tea [1], green leaves 1 2 3");
    run::<Rag>(config, turn("tea")).unwrap();
    assert_eq!(host.sent_text(), "Green tea [1], green leaves 1 2 3");
}

fn boiler(host: Host) -> Host {
    host.tool("boil", |a| Ok(ToolOutput::ok(format!("{} degrees", a["to"]))))
}

#[test]
fn tools_that_are_named_are_called_beside_the_sources() {
    let host = boiler(filled()).reply_tool_call("boil", json!({"to": 80})).reply("Green [1], 80 degrees [9].");
    let config = json!({"banks": ["docs"], "tools": ["boil"]});
    assert_eq!(run::<Rag>(config.clone(), turn("tea")), Ok(FinishReason::Stop.into()));
    assert_eq!(host.sent_text(), "Green [1], 80 degrees.");
    assert_eq!(host.tool_calls(), [("boil".into(), r#"{"to":80}"#.into())]);
    let requests = host.requests();
    assert!(requests.iter().all(|r| r.messages[0].joined_text().contains("[1] Leaves: tea is green\n")));
    assert!(requests[0].messages[0].joined_text().contains("what your tools return"));
    assert_eq!(requests[1].messages.last().map(|m| m.role), Some(Role::Tool));
    assert_eq!(ended(&host, StepKind::Other), [json!({"cited": [1]})]);
    let ids: Vec<String> = host
        .sent()
        .into_iter()
        .filter_map(|event| match event {
            Event::Step(step) if step.status == StepStatus::Done => Some(step.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["step-1", "step-2", "step-3", "step-4", "step-5"], "search, model, tool, model, citations");

    // Without a source it is still the model that answers, and without a name no tool is offered.
    let host = boiler(filled()).reply("I do not know.");
    run::<Rag>(config, turn("coffee")).unwrap();
    assert_eq!((host.sent_text(), host.requests()[0].tools.len()), ("I do not know.".into(), 1));
    let host = boiler(filled()).reply("Green [1].");
    run::<Rag>(json!({"banks": ["docs"]}), turn("tea")).unwrap();
    assert!(host.requests()[0].tools.is_empty());
}

#[test]
fn a_turn_that_waits_for_approval_keeps_its_sources_under_their_numbers() {
    let config = json!({"banks": ["docs"], "tools": ["boil"], "approve": ["boil"]});
    let host = boiler(filled()).reply_tool_call("boil", json!({"to": 80}));
    let Ok(Outcome::Interrupted(asked)) = run::<Rag>(config.clone(), turn("tea")) else { panic!() };
    assert!(host.tool_calls().is_empty(), "nothing runs before the answer");
    let resumed = |state: &str, answer: Value| Turn {
        resume: Some(Resumption { state: state.into(), answer: answer.to_string() }),
        ..turn("tea")
    };
    // The memory is empty by then.
    let host = boiler(Host::new()).reply("Hot [2], 80 degrees [3].");
    let ended_so = run::<Rag>(config.clone(), resumed(&asked.state, json!({"approve": true})));
    assert_eq!((ended_so, host.sent_text().as_str()), (Ok(FinishReason::Stop.into()), "Hot [2], 80 degrees."));
    assert_eq!(host.tool_calls().len(), 1);
    assert!(host.requests()[0].messages[0].joined_text().contains("[2] Kettle: tea is hot\n"));
    assert_eq!(ended(&host, StepKind::Retrieval)[0]["hits"][1]["id"], "d2");
    assert_eq!(ended(&host, StepKind::Other), [json!({"cited": [2]})]);

    let again = run::<Rag>(config.clone(), resumed(&asked.state, json!("yes")));
    let Ok(Outcome::Interrupted(again)) = again else { panic!("{again:?}") };
    let host = boiler(Host::new()).reply("Hot [2].");
    run::<Rag>(config.clone(), resumed(&again.state, json!({"approve": false}))).unwrap();
    assert_eq!((host.tool_calls().len(), host.sent_text().as_str()), (0, "Hot [2]."));
    assert!(matches!(run::<Rag>(config, resumed("{}x", json!(1))), Err(Error::Invalid(_))));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let notes = [
        "The kettle is in the kitchen.",
        "A kettle boils at noon.",
        "Ann has the kettle.",
        "kettle: three litres",
        "No kettle on Friday.",
    ];
    let notes = notes.map(Item::new);
    testing::latency("rag", || {
        let host = Host::new().reply("Hello.");
        insert("notes", &notes).unwrap();
        let ended = run::<Rag>(json!({"banks": ["notes"]}), turn("kettle"));
        assert_eq!((ended, host.sent_text().as_str()), (Ok(FinishReason::Stop.into()), "Hello."));
    });
}
