//! The engine as a whole, over a network whose every logit depends on every token, position and page.

mod tiny;

use proptest::prelude::*;
use std::time::Duration;
use stockade_core::chat::{Message, Role};
use stockade_core::event::{Event, FinishReason};
use stockade_core::infer::*;
use stockade_infer::Settings;
use tiny::*;

fn settings() -> Settings {
    Settings { max_running: 8, max_step_tokens: 64, ..Settings::default() }
}

/// A mix of greedy and sampled requests of different lengths, some with a prefix in common.
fn workload() -> Vec<GenerateRequest> {
    let shared = prompt(99, 70);
    (0..12u64)
        .map(|i| {
            let mut tokens = if i % 3 == 0 { shared.clone() } else { Vec::new() };
            tokens.extend(prompt(i, 1 + (i as usize * 29) % 120));
            let mut request = request(tokens, 1 + (i as u32 * 17) % 60);
            request.sampling.seed = Some(i);
            match i % 4 {
                0 => request.sampling.temperature = 0.0,
                1 => request.sampling.top_p = 0.8,
                2 => (request.sampling.top_k, request.sampling.repetition_penalty) = (20, 1.3),
                _ => request.sampling.min_p = 0.05,
            }
            request
        })
        .collect()
}

#[test]
fn batched_chunked_prefix_reused_and_preempted_runs_equal_single_ones_bit_for_bit() {
    // Each alone on a fresh engine, whole prompts.
    let single: Vec<_> = workload()
        .into_iter()
        .map(|request| generate(&engine(64, Settings { max_step_tokens: 512, ..settings() }).0, request).result())
        .collect();
    for (name, pages, settings) in [
        ("batched", 256, settings()),
        ("chunks of 8", 256, Settings { max_step_tokens: 8, max_running: 4, ..settings() }),
        (
            "chunks of 40 beside decodes",
            256,
            Settings { max_step_tokens: 40, inter_token_target: Duration::from_secs(9), ..settings() },
        ),
        ("preempted", 10, Settings { watermark_permille: 0, ..settings() }),
        ("one at a time, prefix reused", 64, Settings { max_running: 1, ..settings() }),
    ] {
        let (engine, probe) = engine(pages, settings);
        probe.hold(true);
        let streams: Vec<_> = workload().into_iter().map(|r| engine.generate(r).unwrap()).collect();
        probe.hold(false);
        // Many readers at once, as nobody may block the others.
        let readers: Vec<_> = streams.into_iter().map(|s| std::thread::spawn(move || collect(s))).collect();
        let replies: Vec<_> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        for (i, (reply, want)) in replies.iter().zip(&single).enumerate() {
            assert_eq!(reply.result(), *want, "{name}, request {i}");
        }
        // And again over a warm cache.
        for (i, (request, want)) in workload().into_iter().zip(&single).enumerate() {
            let reply = generate(&engine, request);
            assert_eq!(reply.result(), *want, "{name}, warm, request {i}");
        }
        eventually("all pages free", || engine.load().kv_pages_used == 0);
    }
}

#[test]
fn preemption_happens_and_gives_the_same_reply() {
    let (engine, probe) = engine(6, Settings { watermark_permille: 0, ..settings() });
    probe.hold(true);
    // Two sequences of three pages and a bit each: both are admitted, both cannot grow.
    let streams: Vec<_> = (0..2).map(|i| engine.generate(request(prompt(i, 90), 60)).unwrap()).collect();
    probe.hold(false);
    let replies: Vec<_> = streams.into_iter().map(collect).collect();
    let steps = probe.steps.lock().unwrap();
    let prefilled: usize = steps.iter().flatten().filter(|&&rows| rows > 1).sum();
    assert!(prefilled > 180, "one of them was computed again: {prefilled}");
    for (i, reply) in replies.iter().enumerate() {
        let alone = generate(&tiny::engine(16, settings()).0, request(prompt(i as u64, 90), 60));
        assert_eq!(reply.result(), alone.result());
    }
}

#[test]
fn a_prefix_is_reused_within_a_tenant_and_never_across() {
    let (engine, _) = engine(64, settings());
    let ask = |tenant_name: &str| {
        let mut request = request(prompt(1, 100), 4);
        request.tenant = tenant(tenant_name);
        generate(&engine, request)
    };
    let first = ask("a");
    assert_eq!((first.usage.prompt_tokens, first.usage.cached_tokens), (100, 0));
    assert_eq!(ask("a").usage.cached_tokens, 96);
    assert_eq!(ask("b").usage.cached_tokens, 0, "another tenant must not see that the prefix is known");
    assert_eq!(ask("b").usage.cached_tokens, 96);
    // A prompt that fills its pages exactly: the last token is still computed.
    assert_eq!(generate(&engine, request(prompt(1, 96), 4)).usage.cached_tokens, 64);
    // The completion is part of the next turn's prefix.
    let mut turn = prompt(1, 100);
    turn.extend(first.logprobs.iter().map(|l| l.id));
    let longer = generate(&engine, request([turn, prompt(5, 60)].concat(), 1));
    assert_eq!(longer.usage.cached_tokens, 96);
}

#[test]
fn dropping_a_stream_frees_its_pages_while_others_go_on() {
    let (engine, _) = engine(64, settings());
    let mut victim = engine.generate(request(prompt(1, 40), 2000)).unwrap();
    let other = engine.generate(request(prompt(2, 40), 300)).unwrap();
    victim.blocking_recv().unwrap().unwrap();
    drop(victim);
    assert_eq!(collect(other).usage.completion_tokens, 300);
    eventually("pages free", || engine.load() == Load { kv_pages_total: 64, ..Load::default() });
}

#[test]
fn a_waiting_request_can_be_cancelled_too() {
    let (engine, probe) = engine(64, Settings { max_running: 1, ..settings() });
    probe.hold(true);
    let running = engine.generate(request(prompt(1, 40), 5)).unwrap();
    eventually("running", || engine.load().sequences_waiting == 0);
    let waiting = engine.generate(request(prompt(2, 40), 5)).unwrap();
    drop(waiting);
    probe.hold(false);
    assert_eq!(collect(running).usage.completion_tokens, 5);
    eventually("empty", || engine.load().sequences_waiting == 0);
    let prompts = probe.steps.lock().unwrap().iter().flatten().filter(|&&rows| rows > 1).count();
    assert_eq!(prompts, 1, "the cancelled prompt never ran");
}

#[test]
fn a_full_queue_refuses_with_overloaded_and_recovers() {
    let (engine, probe) =
        engine(64, Settings { max_running: 1, max_waiting: 3, max_waiting_per_tenant: 2, ..settings() });
    probe.hold(true);
    let mut streams = vec![engine.generate(request(prompt(0, 4), 2)).unwrap()];
    eventually("running", || probe.steps.lock().unwrap().is_empty() && engine.load().sequences_waiting == 0);
    let mut refused = 0;
    for i in 1..8 {
        match engine.generate(request(prompt(i, 4), 2)) {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                assert!(matches!(error, InferError::Overloaded { .. }), "{error}");
                assert_eq!(error.fault(), stockade_core::Fault::Load);
                refused += 1;
            }
        }
    }
    assert!(refused >= 5, "{refused}");
    let mut other = request(prompt(50, 4), 2);
    other.tenant = tenant("b");
    streams.push(engine.generate(other).expect("one tenant cannot fill the queue for all"));
    probe.hold(false);
    for stream in streams {
        assert_eq!(collect(stream).usage.completion_tokens, 2);
    }
    assert_eq!(generate(&engine, request(prompt(9, 4), 2)).usage.completion_tokens, 2);
}

#[test]
fn a_slow_reader_parks_its_sequence_and_holds_nobody_up() {
    let (engine, probe) = engine(16, Settings { stream_events: 4, watermark_permille: 0, ..settings() });
    let slow = engine.generate(request(prompt(1, 40), 200)).unwrap();
    eventually("parked", || {
        let before = probe.steps.lock().unwrap().len();
        std::thread::sleep(Duration::from_millis(20));
        before > 3 && probe.steps.lock().unwrap().len() == before
    });
    // The other needs almost all pages: the parked one gives its own up.
    let quick = generate(&engine, request(prompt(2, 440), 40));
    assert_eq!(quick.usage.completion_tokens, 40);
    let late = collect(slow);
    assert_eq!(late.usage.completion_tokens, 200);
    let alone = generate(&tiny::engine(16, settings()).0, request(prompt(1, 40), 200));
    assert_eq!(late.result(), alone.result());
}

#[test]
fn a_running_reader_waits_for_a_chunk_at_most_beside_a_huge_prompt() {
    let target = Duration::from_millis(10);
    let (engine, probe) = engine(256, Settings { inter_token_target: target, max_step_tokens: 512, ..settings() });
    probe.row_cost(Duration::from_micros(200));
    let mut victim = engine.generate(request(prompt(1, 40), 200)).unwrap();
    victim.blocking_recv().unwrap().unwrap();
    probe.steps.lock().unwrap().clear();
    let mut huge = request(prompt(2, 3000), 1);
    huge.tenant = tenant("b");
    let huge = engine.generate(huge).unwrap();
    let victim = std::thread::spawn(move || collect(victim));
    collect(huge);
    let steps = probe.steps.lock().unwrap().clone();
    victim.join().unwrap();
    let beside: Vec<usize> = steps.iter().filter(|s| s.len() == 2).map(|s| s.iter().sum()).collect();
    assert!(beside.len() > 20, "{beside:?}");
    // 10 ms at 200 us a row: 50 rows, less what a sleep really takes.
    assert!(beside.iter().all(|&rows| rows <= 1 + 48), "{beside:?}");
}

#[test]
fn a_small_tenant_is_served_beside_a_tenant_that_floods_with_long_prompts() {
    let (engine, probe) = engine(512, Settings { max_running: 4, max_step_tokens: 64, ..settings() });
    // Slow enough that the count is read within a step or two of the small one's end.
    probe.row_cost(Duration::from_micros(100));
    probe.hold(true);
    let flood: Vec<_> = (0..6).map(|i| engine.generate(request(prompt(i, 2000), 4)).unwrap()).collect();
    let mut small = request(prompt(77, 60), 4);
    small.tenant = tenant("b");
    let small = engine.generate(small).unwrap();
    probe.hold(false);
    assert_eq!(collect(small).usage.completion_tokens, 4);
    let rows: usize = probe.steps.lock().unwrap().iter().flatten().sum();
    assert!(rows < 2400, "the small one ended after {rows} rows of 12000");
    drop(flood);
}

#[test]
fn an_error_in_one_request_ends_that_request_alone() {
    let (engine, probe) = engine(64, settings());
    probe.hold(true);
    let good = engine.generate(request(prompt(1, 40), 50)).unwrap();
    let broken = engine.generate(request(vec![1, 2, NAN], 50)).unwrap();
    probe.hold(false);
    assert!(collect(broken).error.unwrap().contains("sampling"));
    assert_eq!(collect(good).usage.completion_tokens, 50);
}

#[test]
fn a_failed_or_panicked_step_ends_its_requests_and_the_engine_goes_on() {
    let (engine, _) = engine(64, settings());
    for token in [FAIL, PANIC] {
        let reply = generate(&engine, request(vec![1, 2, token], 50));
        assert!(reply.error.unwrap().contains("backend failed in step"));
        assert_eq!(generate(&engine, request(prompt(1, 40), 5)).usage.completion_tokens, 5);
        eventually("pages free", || engine.load().kv_pages_used == 0);
    }
}

#[test]
fn replies_end_by_stop_string_end_token_and_length() {
    let (engine, _) = engine(64, settings());
    let all = generate(&engine, request(prompt(1, 40), 60));
    assert_eq!((all.reason, all.usage.completion_tokens), (Some(FinishReason::Length), 60));
    let stop: String = all.text.chars().skip(20).take(5).collect();
    let mut stopped = request(prompt(1, 40), 60);
    stopped.sampling.stop = vec![stop.clone()];
    let stopped = generate(&engine, stopped);
    assert_eq!(stopped.reason, Some(FinishReason::Stop));
    assert_eq!(stopped.text, all.text.split(&stop).next().unwrap());
    assert_eq!(stopped.logprobs[..], all.logprobs[..stopped.logprobs.len()]);
    let mut ended = request(prompt(1, 40), 60);
    ended.sampling.ignore_eos = false;
    ended.sampling.logit_bias = vec![(EOS, 100.0)];
    let ended = generate(&engine, ended);
    assert_eq!((ended.reason, ended.text.as_str(), ended.usage.completion_tokens), (Some(FinishReason::Stop), "", 1));
}

#[test]
fn what_is_known_to_fail_is_refused_before_the_queue() {
    let (engine, _) = engine(4, settings());
    let fails = |change: fn(&mut GenerateRequest)| {
        let mut request = request(prompt(1, 10), 4);
        change(&mut request);
        engine.generate(request).map(|_| ()).unwrap_err()
    };
    assert!(matches!(fails(|r| r.model = stockade_core::id::ModelId::new("x").unwrap()), InferError::UnknownModel(_)));
    // Four pages hold 128 tokens: what can never fit is refused though the context were longer.
    let overflow = fails(|r| r.prompt = Prompt::Tokens(prompt(1, 126)));
    assert!(matches!(overflow, InferError::ContextOverflow { prompt: 126, requested: 4, limit: 128 }), "{overflow}");
    for (field, change) in [
        ("temperature", (|r| r.sampling.temperature = f32::NAN) as fn(&mut GenerateRequest)),
        ("top_p", |r| r.sampling.top_p = 1.5),
        ("max_tokens", |r| r.sampling.max_tokens = Some(0)),
        ("prompt", |r| r.prompt = Prompt::Tokens(vec![])),
        ("prompt", |r| r.prompt = Prompt::Tokens(vec![1_000_000])),
        ("logprobs", |r| r.sampling.logprobs = Some(21)),
        ("stop", |r| r.sampling.stop = vec!["x".into(); 17]),
    ] {
        match fails(change) {
            InferError::Invalid { field: found, .. } => assert_eq!(found, field),
            other => panic!("{field}: {other}"),
        }
    }
    assert_eq!(generate(&engine, request(prompt(1, 124), 4)).usage.completion_tokens, 4, "the last that fits");
}

#[test]
fn log_likelihood_equals_the_log_probabilities_of_a_generation() {
    let (engine, _) = engine(64, Settings { score_rows: 5, ..settings() });
    for length in [1, 31, 32, 33, 100] {
        let reply = generate(&engine, request(prompt(3, length), 40));
        let score = ScoreRequest {
            model: model(),
            tenant: tenant("a"),
            context: Prompt::Tokens(prompt(3, length)),
            continuation: EmbedInput::Tokens(reply.logprobs.iter().map(|l| l.id).collect()),
        };
        let scored = futures_block(engine.log_likelihood(score)).unwrap();
        let pairs = |l: &[stockade_core::event::TokenLogprob]| {
            l.iter().map(|l| (l.id, l.logprob, l.top[0].0)).collect::<Vec<_>>()
        };
        assert_eq!(pairs(&scored), pairs(&reply.logprobs));
    }
    eventually("pages free", || engine.load().kv_pages_used == 0);
}

fn futures_block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn the_end_of_the_engine_ends_its_streams_as_cancelled() {
    let (engine, _) = engine(64, Settings { stream_events: 2000, ..settings() });
    let mut stream = engine.generate(request(prompt(1, 40), 1500)).unwrap();
    stream.blocking_recv().unwrap().unwrap();
    drop(engine);
    let mut last = None;
    while let Some(event) = stream.blocking_recv() {
        last = Some(event);
    }
    let Some(Ok(Event::End(end))) = last else { panic!("{last:?}") };
    assert_eq!(end.reason, FinishReason::Cancelled);
}

#[test]
fn a_chat_is_rendered_and_plain_text_is_not() {
    let (engine, _) = engine(64, settings());
    let prompt = ChatPrompt { messages: vec![Message::text(Role::User, "hi")], ..ChatPrompt::default() };
    let rendered = engine.render(&model(), &prompt).unwrap();
    assert_eq!(rendered.text, "[user]hi[assistant]");
    let mut chat = request(vec![], 8);
    chat.prompt = Prompt::Chat(prompt);
    let mut tokens = request(rendered.tokens, 8);
    assert_eq!(generate(&engine, chat).text, generate(&engine, tokens.clone()).text);
    tokens.prompt = Prompt::Text("hi".into());
    assert_eq!(generate(&engine, tokens).usage.prompt_tokens, 3, "with the begin token");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_page_leaks_over_any_workload(jobs in proptest::collection::vec((1usize..150, 1u32..40, 0u8..5), 1..20), pages in 6usize..24, step in 4usize..64) {
        let (engine, _) = engine(pages, Settings { max_step_tokens: step, max_running: 4, stream_events: 3, watermark_permille: 50, ..settings() });
        let mut readers = Vec::new();
        for (i, (length, max_tokens, fate)) in jobs.into_iter().enumerate() {
            let mut tokens = prompt(i as u64 % 4, length);
            if fate == 4 { tokens.push(NAN); }
            let mut request = request(tokens, max_tokens);
            request.tenant = tenant(if i % 2 == 0 { "a" } else { "b" });
            let Ok(mut stream) = engine.generate(request) else { continue };
            match fate {
                0 => drop(stream),
                1 => { stream.blocking_recv(); }
                _ => readers.push(std::thread::spawn(move || collect(stream))),
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
        eventually("everything is given back", || engine.load() == Load { kv_pages_total: pages as u32, ..Load::default() });
    }
}
