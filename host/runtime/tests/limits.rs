//! Hostile guests: each limit ends the call that meets it, and that call alone.

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use stockade_core::limits::{LimitKind, Limits};
use stockade_core::plugin::*;
use support::*;

fn tight() -> Limits {
    Limits { deadline_ms: 10_000, cpu_ms: 100, memory_bytes: 16 << 20, ..Limits::default() }
}

/// Runs a hostile shield under `limits`, then sees that a good one still answers.
async fn ended_by(guest: &str, limits: Limits) -> (LimitKind, Duration) {
    let bench = bench();
    let shield = with_limits(bench.pin("shield.input", guest).await, limits);
    let asked = call(&shield);
    let began = Instant::now();
    let ended = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
    let took = began.elapsed();
    let limit = limit(ended);
    assert_eq!(asked.trace.snapshot()[0].decision, limit.as_str(), "{guest}");

    let good = bench.pin("shield.input", "noop_shield").await;
    let verdict = bench.runtime.check(call(&good), Direction::Input, hello()).await;
    assert_eq!(verdict.unwrap(), Verdict::Pass);
    (limit, took)
}

#[tokio::test]
async fn a_spinning_guest_ends_at_its_processor_time() {
    let (limit, took) = ended_by("spins", tight()).await;
    assert_eq!(limit, LimitKind::Cpu);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn a_spinning_guest_ends_at_its_deadline_when_that_comes_first() {
    let limits = Limits { deadline_ms: 50, ..Limits::default() };
    let (limit, took) = ended_by("spins", limits).await;
    assert_eq!(limit, LimitKind::Deadline);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn memory_ends_at_the_limit_over_all_memories() {
    assert_eq!(ended_by("eats_memory", tight()).await.0, LimitKind::Memory);
}

#[tokio::test]
async fn a_trap_and_endless_recursion_are_traps() {
    assert_eq!(ended_by("traps", tight()).await.0, LimitKind::Trap);
    assert_eq!(ended_by("recurses", tight()).await.0, LimitKind::Trap);
}

#[tokio::test]
async fn calls_into_the_host_are_counted() {
    let limits = Limits { host_calls: 1_000, cpu_ms: 5_000, ..tight() };
    assert_eq!(ended_by("storms_host_calls", limits).await.0, LimitKind::HostCalls);
}

#[tokio::test]
async fn a_log_flood_ends_by_its_calls_and_keeps_a_bounded_log() {
    let bench = bench();
    let limits = Limits { host_calls: 5_000, log_lines: 10, cpu_ms: 10_000, ..tight() };
    let shield = with_limits(bench.pin("shield.input", "floods_log").await, limits);
    let asked = call(&shield);
    let ended = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
    assert_eq!(limit(ended), LimitKind::HostCalls);
    let logs = &asked.trace.snapshot()[0].logs;
    assert_eq!(logs.len(), 11);
    assert!(logs.iter().all(|l| l.len() < 5_000));
}

#[tokio::test]
async fn leaked_handles_end_at_the_limit_of_handles() {
    assert_eq!(ended_by("leaks_handles", tight()).await.0, LimitKind::Memory);
}

#[tokio::test]
async fn an_output_flood_ends_at_the_limit_of_output() {
    let bench = bench();
    let limits = Limits { output_bytes: 1 << 20, cpu_ms: 10_000, ..tight() };
    let orchestrator = with_limits(bench.pin("orchestrator", "floods_output").await, limits);
    let mut events = bench.runtime.run_turn(call(&orchestrator), turn(MODEL));
    let (mut bytes, mut last) = (0, None);
    while let Some(event) = events.recv().await {
        match event {
            Ok(stockade_core::event::Event::Text(t)) => bytes += t.text.len(),
            event => last = Some(event),
        }
    }
    assert!(bytes <= 1 << 20, "{bytes}");
    assert_eq!(limit(last.unwrap()), LimitKind::Output);
}

#[tokio::test]
async fn a_guest_that_waits_in_the_host_meets_its_deadline() {
    let bench = bench();
    bench.models.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let orchestrator = bench.pin("orchestrator", "noop_orchestrator").await;
    let grants = Grants {
        models: vec!["*".into()],
        limits: Some(Limits { deadline_ms: 80, ..Limits::default() }),
        ..Grants::default()
    };
    let orchestrator = granted(orchestrator, grants);
    let mut events = bench.runtime.run_turn(call(&orchestrator), turn(MODEL));
    assert_eq!(limit(events.recv().await.unwrap()), LimitKind::Deadline);
    let sender = bench.models.open.lock().unwrap().remove(0);
    tokio::time::timeout(Duration::from_secs(2), sender.closed()).await.unwrap();
}

#[tokio::test]
async fn fuel_is_counted_only_where_it_is_limited() {
    let bench = bench();
    let limits = Limits { fuel: 1_000_000, cpu_ms: 10_000, ..tight() };
    let spins = with_limits(bench.pin("shield.input", "spins").await, limits);
    let asked = call(&spins);
    let ended = bench.runtime.check(asked.clone(), Direction::Input, hello()).await;
    assert_eq!(limit(ended), LimitKind::Fuel);
    assert_eq!(asked.trace.snapshot()[0].usage.fuel, Some(1_000_000));

    let enough = with_limits(bench.pin("shield.input", "noop_shield").await, limits);
    let asked = call(&enough);
    bench.runtime.check(asked.clone(), Direction::Input, hello()).await.unwrap();
    let fuel = asked.trace.snapshot()[0].usage.fuel.unwrap();
    assert!(fuel > 0 && fuel < 1_000_000, "{fuel}");

    let asked = call(&bench.pin("shield.input", "noop_shield").await);
    bench.runtime.check(asked.clone(), Direction::Input, hello()).await.unwrap();
    assert_eq!(asked.trace.snapshot()[0].usage.fuel, None);
}

#[tokio::test]
async fn a_streaming_shield_that_fails_stays_failed() {
    let bench = bench();
    let shield = with_limits(bench.pin("shield.output", "spins").await, tight());
    let mut stream = bench.runtime.open_stream(call(&shield), &[]).await.unwrap();
    assert_eq!(limit(stream.feed(Channel::Text, "a").await), LimitKind::Cpu);
    assert_eq!(limit(stream.feed(Channel::Text, "b").await), LimitKind::Trap);
}

#[tokio::test]
async fn more_instances_than_the_host_has_are_refused_as_load() {
    let bench = alone(|s| s.instances = 2);
    let shield = bench.pin("shield.output", "noop_shield").await;
    let _one = bench.runtime.open_stream(call(&shield), &[]).await.unwrap();
    let two = bench.runtime.open_stream(call(&shield), &[]).await.unwrap();
    let three = bench.runtime.check(call(&shield), Direction::Input, hello()).await;
    assert!(matches!(three, Err(CallError::Overloaded)), "{three:?}");
    drop(two);
    let mut answered = Err(CallError::Overloaded);
    for _ in 0..100 {
        answered = bench.runtime.check(call(&shield), Direction::Input, hello()).await;
        if answered.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(answered.unwrap(), Verdict::Pass);
}

/// A component around one core module with a memory and a function `run`.
fn core(body: &str) -> String {
    format!(
        r#"(component
            (core module $m {body})
            (core instance $i (instantiate $m))
            (func (export "run") (canon lift (core func $i "run"))))"#
    )
}

async fn run(bench: &Bench, text: &str, limits: Limits) -> Result<Invocation, CallError> {
    let target = with_limits(bench.pin_text(text).await, limits);
    bench.runtime.invoke(call(&target), "run".into(), vec![]).await
}

#[tokio::test]
async fn memories_and_tables_count_together_to_the_byte() {
    let bench = bench();
    // 1 + 2 pages of memory and 4096 elements of 16 bytes (a page's worth): four pages.
    let text = core(
        r#"(memory 1) (memory 1) (table 0 funcref)
           (func (export "run")
             (drop (memory.grow 1 (i32.const 1)))
             (drop (table.grow (ref.null func) (i32.const 4096))))"#,
    );
    let within = Limits { memory_bytes: 4 * 65_536, ..tight() };
    let ran = run(&bench, &text, within).await.unwrap();
    assert_eq!(ran.usage.peak_memory_bytes, 4 * 65_536);
    let beyond = Limits { memory_bytes: 4 * 65_536 - 1, ..tight() };
    assert_eq!(limit(run(&bench, &text, beyond).await), LimitKind::Memory);
}

#[tokio::test]
async fn host_calls_and_fuel_end_just_beyond_their_limit() {
    let bench = bench();
    let text = r#"(component
        (import "stockade:plugin/system@0.1.0" (instance $s (export "now" (func (result u64)))))
        (core func $now (canon lower (func $s "now")))
        (core module $m
          (import "h" "now" (func $now (result i64)))
          (func (export "run") (drop (call $now)) (drop (call $now)) (drop (call $now))))
        (core instance $i (instantiate $m (with "h" (instance (export "now" (func $now))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let three = Limits { host_calls: 3, ..tight() };
    assert_eq!(run(&bench, text, three).await.unwrap().usage.host_calls, 3);
    let two = Limits { host_calls: 2, ..tight() };
    assert_eq!(limit(run(&bench, text, two).await), LimitKind::HostCalls);

    // Fuel is looked at where loops begin, so that a few units more may be burnt.
    let text = core(
        r#"(func (export "run") (local i32)
             (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000)))))"#,
    );
    let metered = |fuel| Limits { fuel, ..tight() };
    let burnt = run(&bench, &text, metered(1_000_000)).await.unwrap().usage.fuel.unwrap();
    run(&bench, &text, metered(burnt + 1)).await.unwrap();
    assert_eq!(limit(run(&bench, &text, metered(burnt - 20)).await), LimitKind::Fuel);
}

#[tokio::test]
async fn an_endless_start_function_refuses_the_upload() {
    let bench = alone(|s| {
        s.default_limits.cpu_ms = 100;
    });
    let text = core(r#"(func $s (loop (br 0))) (start $s) (func (export "run"))"#);
    let reasons = reasons(bench.upload(wat::parse_str(&text).unwrap()).await);
    assert_eq!(reasons[0].at, "trial instantiation");
    assert!(reasons[0].found.starts_with("cpu"), "{reasons:?}");
}

#[tokio::test]
async fn core_code_that_never_ends_ends_whatever_it_does() {
    let bench = bench();
    for body in [
        r#"(func (export "run") (loop (br 0)))"#,
        r#"(memory 100) (func (export "run") (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 6553600)) (br 0)))"#,
        r#"(table 50000 funcref) (func (export "run") (loop (table.fill (i32.const 0) (ref.null func) (i32.const 50000)) (br 0)))"#,
        r#"(memory 1 2) (func (export "run") (loop (drop (memory.grow (i32.const 60000))) (br 0)))"#,
    ] {
        let began = Instant::now();
        let ended = run(&bench, &core(body), tight()).await;
        assert_eq!(limit(ended), LimitKind::Cpu, "{body}");
        assert!(began.elapsed() < Duration::from_secs(5), "{body}");
    }
    let recursion = core(r#"(func $r (export "run") (call $r))"#);
    assert_eq!(limit(run(&bench, &recursion, tight()).await), LimitKind::Trap);
}

#[tokio::test]
async fn one_giant_copy_into_the_host_is_output() {
    let bench = bench();
    let text = r#"(component
        (import "stockade:plugin/telemetry@0.1.0" (instance $t
          (type $l' (enum "trace" "debug" "info" "warn" "error"))
          (export "level" (type $l (eq $l')))
          (export "log" (func (param "level" $l) (param "message" string)))))
        (core module $libc (memory (export "mem") 640) (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
        (core instance $c (instantiate $libc))
        (core func $log (canon lower (func $t "log") (memory (core memory $c "mem")) (realloc (core func $c "realloc"))))
        (core module $m
          (import "h" "log" (func $log (param i32 i32 i32)))
          (func (export "run") (call $log (i32.const 1) (i32.const 0) (i32.const 33554432))))
        (core instance $i (instantiate $m (with "h" (instance (export "log" (func $log))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let limits = Limits { memory_bytes: 64 << 20, ..tight() };
    assert_eq!(limit(run(&bench, text, limits).await), LimitKind::Output);
}

#[tokio::test]
async fn results_by_name_count_as_output() {
    let bench = bench();
    let shield = bench.pin("shield.input", "blocks_word").await;
    let shield = configured(shield, json!({"word": "hello"}));
    let message = json!({"role": "user", "parts": [{"text": "hello"}], "name": null});
    let args = vec![json!("input"), json!([message])];
    let few = with_limits(shield, Limits { output_bytes: 8, ..tight() });
    let ended = bench.runtime.invoke(call(&few), "check".into(), args).await;
    assert_eq!(limit(ended), LimitKind::Output);
}
