//! Hostile use of the asynchronous ABI: tasks, subtasks, streams and waitable sets without end.

mod support;

use std::time::{Duration, Instant};
use stockade_core::limits::{LimitKind, Limits};
use stockade_core::plugin::*;
use support::*;

fn tight() -> Limits {
    Limits { deadline_ms: 600, cpu_ms: 100, memory_bytes: 16 << 20, ..Limits::default() }
}

async fn run(bench: &Bench, text: &str) -> (LimitKind, String) {
    let target = with_limits(bench.pin_text(text).await, tight());
    let began = Instant::now();
    let ended = bench.runtime.invoke(call(&target), "run".into(), vec![]).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let good = bench.pin("shield.input", "noop_shield").await;
    let verdict = bench.runtime.check(call(&good), Direction::Input, hello()).await;
    assert_eq!(verdict.unwrap(), Verdict::Pass);
    match ended {
        Err(CallError::Failed { limit, detail, .. }) => (limit, detail),
        other => panic!("{other:?}"),
    }
}

/// An asynchronous `run` whose first part and callback are given; `intrinsics` are core functions for the module.
fn task(intrinsics: &str, with: &str, imports: &str, start: &str, callback: &str) -> String {
    format!(
        r#"(component
            {intrinsics}
            (core module $m
              {imports}
              (func (export "run") (result i32) {start})
              (func (export "cb") (param i32 i32 i32) (result i32) {callback}))
            (core instance $i (instantiate $m (with "h" (instance {with}))))
            (func (export "run") async (canon lift (core func $i "run") async (callback (core func $i "cb")))))"#
    )
}

#[tokio::test]
async fn a_task_that_yields_for_ever_ends_at_its_processor_time() {
    let text = task("", "", "", "(i32.const 1)", "(i32.const 1)");
    let (limit, detail) = run(&bench(), &text).await;
    assert!(matches!(limit, LimitKind::Cpu | LimitKind::Deadline), "{detail}");
}

#[tokio::test]
async fn a_task_that_ends_without_its_result_is_a_trap() {
    let text = task("", "", "", "(i32.const 0)", "(i32.const 0)");
    assert_eq!(run(&bench(), &text).await.0, LimitKind::Trap);
}

#[tokio::test]
async fn a_task_that_waits_for_nothing_ends() {
    // 2 means: wait on the waitable set in the upper bits, which nothing will ever be in.
    let text = task(
        "(core func $new (canon waitable-set.new))",
        r#"(export "new" (func $new))"#,
        r#"(import "h" "new" (func $new (result i32)))"#,
        "(i32.or (i32.const 2) (i32.shl (call $new) (i32.const 4)))",
        "(i32.const 0)",
    );
    let (limit, detail) = run(&bench(), &text).await;
    assert!(matches!(limit, LimitKind::Trap | LimitKind::Deadline), "{detail}");
}

#[tokio::test]
async fn floods_of_sets_streams_and_resources_end_at_the_limit_of_handles() {
    let bench = bench();
    for (intrinsic, signature, body) in [
        ("(core func $new (canon waitable-set.new))", "(result i32)", "(drop (call $new))"),
        ("(type $s (stream u8)) (core func $new (canon stream.new $s))", "(result i64)", "(drop (call $new))"),
        (
            "(type $r (resource (rep i32))) (core func $new (canon resource.new $r))",
            "(param i32) (result i32)",
            "(drop (call $new (i32.const 1)))",
        ),
    ] {
        let text = task(
            intrinsic,
            r#"(export "new" (func $new))"#,
            &format!(r#"(import "h" "new" (func $new {signature}))"#),
            &format!("(loop {body} (br 0)) (unreachable)"),
            "(i32.const 0)",
        );
        let (limit, detail) = run(&bench, &text).await;
        assert_eq!(limit, LimitKind::Memory, "{intrinsic}: {detail}");
        assert_eq!(detail, "too many handles", "{intrinsic}");
    }
}

#[tokio::test]
async fn a_flood_of_subtasks_ends_at_the_limit_of_handles() {
    // Slowed down, so that the calls stay under way.
    let bench = alone(|s| s.host_calls_per_second = 1);
    let text = r#"(component
        (import "stockade:plugin/types@0.1.0" (instance $types
          (type $o' (record (field "prompt" u32) (field "requested" u32) (field "limit" u32)))
          (export "context-overflow" (type $o (eq $o')))
          (type $v' (record (field "category" string) (field "message" string) (field "score" (option f32)) (field "metadata" string)))
          (export "violation" (type $v (eq $v')))
          (type $e' (variant (case "denied" string) (case "not-found" string) (case "invalid" string) (case "conflict" string)
            (case "too-large" string) (case "context-overflow" $o) (case "overloaded") (case "timeout") (case "blocked" $v)
            (case "unavailable" string) (case "other" string)))
          (export "error" (type $e (eq $e')))))
        (alias export $types "error" (type $error))
        (import "stockade:plugin/secrets@0.1.0" (instance $s
          (export "error" (type $e (eq $error)))
          (export "get" (func async (param "name" string) (result (result string (error $e)))))))
        (core module $libc (memory (export "mem") 2)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
        (core instance $c (instantiate $libc))
        (core func $get (canon lower (func $s "get") async (memory (core memory $c "mem")) (realloc (core func $c "realloc"))))
        (core module $m
          (import "h" "get" (func $get (param i32 i32 i32) (result i32)))
          (func (export "run") (loop (drop (call $get (i32.const 0) (i32.const 1) (i32.const 64))) (br 0))))
        (core instance $i (instantiate $m (with "h" (instance (export "get" (func $get))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let (limit, detail) = run(&bench, text).await;
    assert!(matches!(limit, LimitKind::Memory | LimitKind::Cpu), "{limit:?}: {detail}");
}
