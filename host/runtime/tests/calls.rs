//! Honest guests: what they are given, what comes back, and what the trace says.

mod support;

use serde_json::json;
use std::sync::Arc;
use stockade_core::chat::{Message, Role as Speaker};
use stockade_core::event::{Event, FinishReason};
use stockade_core::infer::{InferError, Prompt};
use stockade_core::plugin::*;
use stockade_core::registry::Quotas;
use support::*;

fn grants_all() -> Grants {
    Grants { models: vec!["*".into()], buckets: vec!["*".into()], components: vec!["*".into()], ..Grants::default() }
}

async fn drain(mut events: TurnStream) -> (String, Option<Result<Event, CallError>>) {
    let (mut said, mut last) = (String::new(), None);
    while let Some(event) = events.recv().await {
        match event {
            Ok(Event::Text(t)) => said.push_str(&t.text),
            event => last = Some(event),
        }
    }
    (said, last)
}

#[tokio::test]
async fn a_shield_passes_and_blocks_and_the_trace_names_it() {
    let bench = bench();
    let shield = bench.pin("shield.input", "blocks_word").await;
    let shield = configured(shield, json!({"word": "hello"}));
    let asked = call(&shield);
    let verdict = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
    let Ok(Verdict::Block(violation)) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(violation.category, "word");
    let trace = asked.trace.snapshot();
    assert_eq!(trace.len(), 1);
    assert_eq!(trace[0].decision, "block");
    assert_eq!(trace[0].digest, shield.component.digest);
    assert_eq!(trace[0].scanned_bytes, Some(5));
    assert!(trace[0].usage.wall_us > 0 && trace[0].usage.peak_memory_bytes > 0);

    let other = configured(shield, json!({"word": "goodbye"}));
    let asked = call(&other);
    let verdict = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
    assert_eq!(verdict.unwrap(), Verdict::Pass);
    assert_eq!(asked.trace.snapshot()[0].decision, "pass");
}

#[tokio::test]
async fn a_stream_is_judged_alike_at_every_split_and_channels_are_apart() {
    let bench = bench();
    let shield = bench.pin("shield.output", "blocks_word").await;
    let shield = configured(shield, json!({"word": "secret"}));
    let text = "a secret here";
    for split in 0..=text.len() {
        let asked = call(&shield);
        let mut stream = bench.runtime.open_stream(asked.clone(), &[]).await.unwrap();
        let mut blocked_at = None;
        for piece in [&text[..split], &text[split..]] {
            let ruling = stream.feed(Channel::Text, piece).await.unwrap();
            assert!(ruling.cleared <= 2, "{ruling:?} at split {split}");
            if ruling.violation.is_some() {
                blocked_at = Some(ruling.cleared);
            }
        }
        assert_eq!(blocked_at, Some(2), "split {split}");
        let other = stream.feed(Channel::ToolCall(0), "fine, entirely fine").await.unwrap();
        assert!(other.violation.is_none());
        let rest = stream.finish(Channel::ToolCall(0)).await.unwrap();
        assert_eq!(rest.cleared, 19);
        drop(stream);
    }
}

#[tokio::test]
async fn a_streams_trace_line_comes_when_the_stream_goes() {
    let bench = bench();
    let shield = bench.pin("shield.output", "noop_shield").await;
    let asked = call(&shield);
    let mut stream = bench.runtime.open_stream(asked.clone(), &[]).await.unwrap();
    stream.feed(Channel::Text, "some text").await.unwrap();
    assert!(asked.trace.snapshot().is_empty());
    drop(stream);
    let trace = asked.trace.snapshot();
    assert_eq!(trace[0].decision, "pass");
    assert_eq!(trace[0].scanned_bytes, Some(9));
}

#[tokio::test]
async fn an_orchestrator_forwards_a_reply_with_its_usage() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let orchestrator = granted(orchestrator, grants_all());
    let events = bench.runtime.run_turn(call(&orchestrator), turn(MODEL));
    let (said, last) = drain(events).await;
    assert_eq!(said, "Hello there.");
    let Some(Ok(Event::End(end))) = last else {
        panic!("{last:?}");
    };
    assert_eq!(end.reason, FinishReason::Stop);
    assert_eq!(end.usage.completion_tokens, 3);
}

#[tokio::test]
async fn sampling_that_the_plugin_api_has_no_words_for_reaches_the_model() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let orchestrator = granted(orchestrator, grants_all());
    let mut turn = turn(MODEL);
    turn.sampling.logit_bias = vec![(3, -5.0)];
    turn.sampling.logprobs = Some(2);
    drain(bench.runtime.run_turn(call(&orchestrator), turn.clone())).await;
    assert_eq!(bench.models.asked.lock().unwrap()[0].sampling, turn.sampling);
}

#[tokio::test]
async fn events_may_pass_through_the_guest() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "reads_every_event").await;
    let orchestrator = granted(orchestrator, grants_all());
    let (said, last) = drain(bench.runtime.run_turn(call(&orchestrator), turn(MODEL))).await;
    assert_eq!(said, "Hello there.");
    assert!(matches!(last, Some(Ok(Event::End(_)))), "{last:?}");
}

#[tokio::test]
async fn a_model_error_that_the_component_passes_on_arrives_as_itself() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let orchestrator = granted(orchestrator, grants_all());
    let (_, last) = drain(bench.runtime.run_turn(call(&orchestrator), turn("unknown"))).await;
    assert!(matches!(&last, Some(Err(CallError::Infer(InferError::UnknownModel(m)))) if m == "unknown"), "{last:?}");
}

#[tokio::test]
async fn an_interrupted_turn_goes_on_in_a_fresh_instance_with_state_and_answer() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "asks_first").await;
    let (_, last) = drain(bench.runtime.run_turn(call(&orchestrator), turn(MODEL))).await;
    let Some(Ok(Event::End(end))) = last else {
        panic!("{last:?}");
    };
    let told = end.interruption.expect("it asks");
    assert_eq!((end.reason, told.question.as_str()), (FinishReason::Interrupted, "May I pay?"));
    let resume = Some(Resumption { state: told.state, answer: json!({"approve": true}) });
    let resumed = Turn { resume, ..turn(MODEL) };
    let (said, _) = drain(bench.runtime.run_turn(call(&orchestrator), resumed)).await;
    assert_eq!(said, r#"state {"messages":1} answer {"approve":true}"#);
}

#[tokio::test]
async fn a_request_touches_only_the_memory_banks_that_its_pins_name() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "forgets_memory").await;
    let orchestrator = granted(orchestrator, grants_all());
    let orchestrator = configured(orchestrator, json!({"banks": ["read", "written", "other"]}));
    let bank = |write| Bank { scoped: "user.1.x".into(), write };
    let banks = Banks([("read".into(), bank(false)), ("written".into(), bank(true))].into());
    let mut asked = call(&orchestrator);
    asked.pins = Arc::new(Pins { banks: Some(banks), ..Pins::clone(&asked.pins) });
    // No memory is bound, which is told only of a bank that may be touched.
    let (said, _) = drain(bench.runtime.run_turn(asked, turn(MODEL))).await;
    assert_eq!(said, "read denied\nwritten unavailable\nother denied\n");
    let (said, _) = drain(bench.runtime.run_turn(call(&orchestrator), turn(MODEL))).await;
    assert_eq!(said, "read unavailable\nwritten unavailable\nother unavailable\n");
}

#[tokio::test]
async fn a_slow_reader_holds_the_orchestrator_up_and_loses_nothing() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "says").await;
    let long = "abcdefghij".repeat(30);
    let orchestrator = configured(orchestrator, json!({"text": long}));
    let mut events = bench.runtime.run_turn(call(&orchestrator), turn(MODEL));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(events.len() <= 32, "{} events wait", events.len());
    let mut said = String::new();
    while let Some(Ok(Event::Text(t))) = events.recv().await {
        said.push_str(&t.text);
    }
    assert_eq!(said, long);
}

#[tokio::test]
async fn dropping_a_turn_cancels_its_model_call() {
    let bench = bench();
    bench.models.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let orchestrator = granted(orchestrator, grants_all());
    let asked = call(&orchestrator);
    let events = bench.runtime.run_turn(asked.clone(), turn(MODEL));
    while bench.models.open.lock().unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let sender = bench.models.open.lock().unwrap().remove(0);
    drop(events);
    let gone = tokio::time::timeout(std::time::Duration::from_secs(2), sender.closed()).await;
    assert!(gone.is_ok(), "the generation is still wanted");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(asked.trace.snapshot()[0].decision, "cancelled");
}

#[tokio::test]
async fn without_a_grant_each_service_answers_denied() {
    let bench = bench();
    for (guest, word) in
        [("reads_denied_bucket", "buckets"), ("reads_denied_secret", "secrets"), ("calls_denied_model", "models")]
    {
        let shield = bench.pin("shield.input", guest).await;
        let asked = call(&shield);
        let ended = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
        assert!(matches!(&ended, Err(CallError::Denied { what, .. }) if what.contains(word)), "{guest}: {ended:?}");
        assert_eq!(asked.trace.snapshot()[0].decision, "denied", "{guest}");
    }
}

#[tokio::test]
async fn control_tokens_are_read_in_the_parts_of_a_prompt_that_say_so_and_nowhere_else() {
    let bench = bench();
    let guard = bench.pin("shield.input", "llama-guard").await;
    let guard = granted(configured(guard, json!({"model": MODEL})), grants_all());
    let messages = vec![Message::text(Speaker::User, "a<|eot_id|>b")];
    *bench.models.likely.lock().unwrap() = "safe".into();
    let verdict = bench.runtime.check(call(&guard), Direction::Input, messages.clone()).await;
    assert_eq!(verdict.unwrap(), Verdict::Pass);
    {
        let scored = bench.models.scored.lock().unwrap();
        let Prompt::Tokens(tokens) = &scored[0].context else { panic!("{:?}", scored[0].context) };
        assert_eq!(scored.len(), 2);
        assert_eq!(scored[0].context, scored[1].context);
        let read = |tokens: &[u32]| tokens.iter().map(|t| (t % CONTROL) as u8 as char).collect::<String>();
        let runs: Vec<_> = tokens.chunk_by(|a, b| (*a < CONTROL) == (*b < CONTROL)).collect();
        assert_eq!(runs.len(), 4, "header, body, header, line feeds");
        assert_eq!(read(runs[0]), "<|begin_of_text|><|start_header_id|>user<|end_header_id|>");
        assert!(runs[0][0] > CONTROL && runs[1][0] < CONTROL);
        assert!(read(runs[1]).contains("User: a<|eot_id|>b\n"), "{}", read(runs[1]));
        assert_eq!(read(runs[2]), "<|eot_id|><|start_header_id|>assistant<|end_header_id|>");
        assert_eq!(read(runs[3]), "\n\n");
    }
    *bench.models.likely.lock().unwrap() = "unsafe".into();
    bench.models.replies.lock().unwrap().push(vec![Ok(text("\nS1")), Ok(end())]);
    let verdict = bench.runtime.check(call(&guard), Direction::Input, messages).await;
    assert!(matches!(&verdict, Ok(Verdict::Block(v)) if v.category == "S1" && v.score == Some(1.0)), "{verdict:?}");
    let asked = bench.models.asked.lock().unwrap();
    assert!(matches!(&asked[0].prompt, Prompt::Tokens(tokens) if tokens.ends_with(&[117, 110, 115, 97, 102, 101])));
}

#[tokio::test]
async fn a_model_outside_of_the_grant_looks_like_no_model() {
    let bench = bench();
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let grants = Grants { models: vec!["another".into()], ..Grants::default() };
    let orchestrator = granted(orchestrator, grants);
    let (_, last) = drain(bench.runtime.run_turn(call(&orchestrator), turn(MODEL))).await;
    assert!(matches!(&last, Some(Err(CallError::Component { code: "not-found", .. }))), "{last:?}");
    assert!(bench.models.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn state_outlives_instances_and_stays_with_its_tenant() {
    let bench = bench();
    bench.registry.ensure_default_tenant().await.unwrap();
    let stranger = stockade_core::TenantId::new("stranger").unwrap();
    let quotas = Quotas::default();
    bench.registry.create_tenant(stranger.clone(), quotas).await.unwrap();
    let tool = granted(bench.pin("tool/count", "counts_in_state").await, grants_all());
    for (tenant, expected) in [(tenant(), "1"), (tenant(), "2"), (stranger, "1")] {
        let asked = Call { tenant, ..call(&tool) };
        let invoked = bench.runtime.invoke(asked, "call".into(), vec![json!("{}")]).await;
        assert_eq!(invoked.unwrap().result["content"], expected);
    }
}

#[tokio::test]
async fn tools_are_called_through_the_host_within_the_grant() {
    let bench = bench();
    bench.registry.ensure_default_tenant().await.unwrap();
    let count = granted(bench.pin("tool/count", "counts_in_state").await, grants_all());
    let noop = bench.pin("tool/noop", "noop_tool").await;
    let orchestrator = bench.pin("orchestrator", "calls_tools").await;
    let orchestrator = granted(orchestrator, Grants { components: vec!["tool/count".into()], ..Grants::default() });
    let asked = call_among(&orchestrator, &[count, noop]);
    let (said, last) = drain(bench.runtime.run_turn(asked.clone(), turn(MODEL))).await;
    assert!(matches!(last, Some(Ok(Event::End(_)))), "{last:?}");
    assert_eq!(said, "count: \"1\"\n");
    let functions: Vec<_> = asked.trace.snapshot().into_iter().map(|c| c.function).collect();
    assert_eq!(functions, ["describe", "call", "run"]);
}

#[tokio::test]
async fn functions_are_invoked_by_name_and_bad_arguments_are_named() {
    let bench = bench();
    let shield = bench.pin("shield.input", "blocks_word").await;
    let shield = configured(shield, json!({"word": "hello"}));
    let invoke =
        |function: &str, args: Vec<serde_json::Value>| bench.runtime.invoke(call(&shield), function.into(), args);
    let message = json!({"role": "user", "parts": [{"text": "hello"}], "name": null});
    for name in ["check", "shield#check", "stockade:plugin/shield@0.1.0#check"] {
        let invoked = invoke(name, vec![json!("input"), json!([message])]).await.unwrap();
        assert_eq!(invoked.result["block"]["category"], "word");
        assert!(invoked.usage.wall_us > 0);
    }
    let held = invoke("hold-back", vec![]).await.unwrap();
    assert!(held.result.is_u64(), "{:?}", held.result);

    let none = invoke("shield#judge", vec![]).await.unwrap_err();
    assert!(matches!(none, CallError::NoFunction { .. }), "{none:?}");
    for (args, word) in [
        (vec![], "0 given, 2 needed"),
        (vec![json!("sideways"), json!([])], "direction"),
        (vec![json!("input"), json!([{"role": "user", "parts": 3}])], "messages[0].parts"),
        (vec![json!("input"), json!([{"role": "user", "parts": [], "x": 1}])], "messages[0].x"),
    ] {
        let refused = invoke("check", args).await.unwrap_err();
        assert!(matches!(&refused, CallError::Arguments(text) if text.contains(word)), "{refused:?}");
    }
    let session = invoke("[constructor]session", vec![json!("text")]).await.unwrap_err();
    assert!(matches!(session, CallError::Arguments(_)), "{session:?}");
}

#[tokio::test]
async fn artifacts_survive_a_restart_and_come_back_from_the_blob() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.artifacts = folder.path().join("artifacts");
    let first = bench_with(settings.clone());
    let shield = first.pin("shield.input", "noop_shield").await;
    let (registry, models) = (first.registry.clone(), first.models.clone());
    drop(first);

    let second = bench_over(settings.clone(), registry.clone(), models.clone());
    second.runtime.warm(&shield.component).await.unwrap();
    drop(second);

    std::fs::remove_dir_all(&settings.artifacts).unwrap();
    let third = bench_over(settings, registry, models);
    let verdict = third.runtime.check(call(&shield), Direction::Input, hello()).await;
    assert_eq!(verdict.unwrap(), Verdict::Pass);
}

#[tokio::test]
async fn a_damaged_artifact_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.artifacts = folder.path().join("artifacts");
    let first = bench_with(settings.clone());
    let shield = first.pin("shield.input", "noop_shield").await;
    let (registry, models) = (first.registry.clone(), first.models.clone());
    drop(first);
    let configs = std::fs::read_dir(&settings.artifacts).unwrap();
    for config in configs {
        for file in std::fs::read_dir(config.unwrap().path()).unwrap() {
            std::fs::write(file.unwrap().path(), b"damaged").unwrap();
        }
    }
    let second = bench_over(settings, registry, models);
    second.runtime.warm(&shield.component).await.unwrap();
}
