//! Uploads: what is refused, with which words, at what cost.

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use stockade_core::plugin::*;
use support::*;

fn leb(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (n & 127) as u8;
        n >>= 7;
        out.push(low | if n > 0 { 128 } else { 0 });
        if n == 0 {
            return out;
        }
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(body.len()), body].concat()
}

/// A core module of void functions; the first is exported as `run`.
fn module(functions: &[Vec<u8>], locals: &[u8]) -> Vec<u8> {
    let mut code = leb(functions.len());
    for body in functions {
        code.extend(leb(locals.len() + body.len() + 1));
        code.extend_from_slice(locals);
        code.extend_from_slice(body);
        code.push(0x0b);
    }
    let types = [leb(functions.len()), vec![0; functions.len()]].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, b"\x01\x60\0\0"),
        section(3, &types),
        section(5, b"\x01\x00\x01"),
        section(7, b"\x01\x03run\0\0"),
        section(10, &code),
    ]
    .concat()
}

/// A component that exports the module's `run`.
fn component(core: &[u8]) -> Vec<u8> {
    [
        b"\0asm\x0d\0\x01\0".to_vec(),
        section(1, core),
        section(2, b"\x01\x00\x00\x00"),
        section(6, b"\x01\x00\x00\x01\x00\x03run"),
        section(7, b"\x01\x40\x00\x01\x00"),
        section(8, b"\x01\x00\x00\x00\x00\x00"),
        section(11, b"\x01\x00\x03run\x01\x00\x00"),
    ]
    .concat()
}

fn good() -> Vec<u8> {
    component(&module(&[vec![]], b"\x00"))
}

fn with_manifest(manifest: &[u8]) -> Vec<u8> {
    let name = b"stockade:manifest";
    let body = [&[name.len() as u8][..], name, manifest].concat();
    [good(), section(0, &body)].concat()
}

#[tokio::test]
async fn bytes_that_are_no_component_are_refused_by_what_they_are() {
    let bench = bench();
    let noise: Vec<u8> = (0..4096u32).map(|i| (i * 73 + 11) as u8).collect();
    let lying = [&b"\0asm\x0d\0\x01\0\x01"[..], &leb(0x7fff_fff0), &[0; 16]].concat();
    let truncated = good()[..good().len() - 5].to_vec();
    for (bytes, word) in [
        (vec![], "empty"),
        (noise, "not binary WebAssembly"),
        (b"(component)".to_vec(), "not binary WebAssembly"),
        (module(&[vec![]], b"\x00"), "a core module"),
        (truncated, ""),
        (lying, ""),
        (b"\0asm".to_vec(), ""),
        ([&good()[..], b"junk"].concat(), ""),
    ] {
        let began = Instant::now();
        let reasons = reasons(bench.upload(bytes).await);
        assert!(reasons[0].found.contains(word), "{reasons:?}");
        assert!(!reasons[0].expected.is_empty() && reasons[0].at.contains("byte"));
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    bench.upload(good()).await.unwrap();
}

#[tokio::test]
async fn every_cut_of_a_real_guest_is_refused_and_none_panics() {
    let bench = bench();
    let bytes = guest_bytes("noop_shield");
    for cut in (1..bytes.len()).step_by(bytes.len() / 37) {
        reasons(bench.upload(bytes[..cut].to_vec()).await);
    }
}

#[tokio::test]
async fn imports_that_the_host_lacks_are_named() {
    let bench = bench();
    for import in [
        "wasi:sockets/tcp@0.2.3",
        "wasi:http/outgoing-handler@0.2.0",
        "stockade:plugin/shield@0.1.0",
        "stockade:plugin/telemetry@0.2.0",
        "lab:other/thing@1.0.0",
    ] {
        let text = format!(r#"(component (import "{import}" (instance (export "f" (func)))))"#);
        let reasons = reasons(bench.upload(wat::parse_str(text).unwrap()).await);
        assert!(reasons[0].found.contains(import), "{reasons:?}");
        assert_eq!(reasons[0].at, format!("import {import}"));
    }
}

#[tokio::test]
async fn a_missing_or_mistyped_item_of_an_offered_interface_is_named() {
    let bench = bench();
    for (item, ty) in [("yesterday", "(result u64)"), ("now", "(result u32)")] {
        let text =
            format!(r#"(component (import "stockade:plugin/system@0.1.0" (instance (export "{item}" (func {ty})))))"#);
        let reasons = reasons(bench.upload(wat::parse_str(text).unwrap()).await);
        assert_eq!(reasons[0].at, "imports");
        assert!(reasons[0].found.contains(item), "{reasons:?}");
        assert!(reasons[0].found.contains("stockade:plugin/system"), "{reasons:?}");
    }
}

#[tokio::test]
async fn a_mistyped_export_is_named_with_its_function() {
    let bench = bench();
    let text = r#"(component
        (core module $m (func (export "describe")))
        (core instance $i (instantiate $m))
        (func $describe (canon lift (core func $i "describe")))
        (instance $tool (export "describe" (func $describe)))
        (export "stockade:plugin/tool@0.1.0" (instance $tool)))"#;
    let reasons = reasons(bench.upload(wat::parse_str(text).unwrap()).await);
    let at: Vec<_> = reasons.iter().map(|r| r.at.as_str()).collect();
    assert_eq!(at, ["export stockade:plugin/tool@0.1.0#describe", "export stockade:plugin/tool@0.1.0#call"]);
    assert_eq!(reasons[1].found, "no such function");
}

#[tokio::test]
async fn features_that_the_engine_does_not_run_are_refused() {
    let bench = bench();
    for (module, word) in [
        (r#"(memory i64 1)"#, "memory64"),
        (r#"(memory 1 1 shared)"#, ""),
        (r#"(type (array (mut i64)))"#, ""),
        (r#"(tag)"#, "exceptions"),
        (r#"(func $f (return_call $f))"#, "tail calls"),
    ] {
        let text = format!("(component (core module {module}))");
        let reasons = reasons(bench.upload(wat::parse_str(text).unwrap()).await);
        assert!(reasons[0].found.contains(word), "{module}: {reasons:?}");
    }
}

#[tokio::test]
async fn counted_limits_pass_at_their_value_and_refuse_one_beyond() {
    let bench = bench();
    // The outermost component is a level of its own.
    let nested = |n: usize| {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for _ in 1..n {
            bytes = [&b"\0asm\x0d\0\x01\0"[..], &section(4, &bytes)].concat();
        }
        bytes
    };
    let functions = |n| component(&module(&vec![vec![]; n], b"\x00"));
    let locals = |n| component(&module(&[vec![]], &[&b"\x01"[..], &leb(n), b"\x7f"].concat()));
    // `nop`s, with the group count before and `end` after them.
    let body = |n: usize| component(&module(&[vec![1; n - 2]], b"\x00"));
    let memories = |n| {
        let text = format!("(component (core module {}))", "(memory 0)".repeat(n));
        wat::parse_str(text).unwrap()
    };
    for (within, beyond, word) in [
        (nested(12), nested(13), "levels of nesting"),
        (functions(50_000), functions(50_001), "functions"),
        (locals(1_000), locals(1_001), "locals"),
        (body(512 << 10), body((512 << 10) + 1), "bytes in one function"),
        (memories(8), memories(9), "memories"),
    ] {
        let refused = reasons(bench.upload(beyond).await);
        assert!(refused[0].found.contains(word), "{refused:?}");
        bench.upload(within).await.unwrap_or_else(|e| panic!("{word}: {e:?}"));
    }
}

#[tokio::test]
async fn bombs_that_can_be_counted_are_refused_in_no_time() {
    let bench = bench();
    let mut deep = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..20_000 {
        deep = [&b"\0asm\x0d\0\x01\0"[..], &section(4, &deep)].concat();
    }
    let many = component(&module(&vec![b"\x41\x00\x1a".to_vec(); 300_000], b"\x00"));
    for bomb in [deep, many] {
        let began = Instant::now();
        reasons(bench.upload(bomb).await);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

/// Many values alive across many loops: what a register allocator likes least.
fn live_values(n: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for i in 0..n {
        body.extend(b"\x41");
        body.extend(leb(i % 31 * 4));
        body.extend(b"\x28\x02\x00\x21");
        body.extend(leb(i));
    }
    for i in 0..n {
        body.extend(b"\x03\x40\x20");
        body.extend(leb(i));
        body.extend(b"\x41\x01\x6b\x22");
        body.extend(leb(i));
        body.extend(b"\x0d\x00\x0b");
    }
    body.extend(b"\x41\x00");
    for i in 0..n {
        body.extend(b"\x20");
        body.extend(leb(i));
        body.extend(b"\x6a");
    }
    body.extend(b"\x1a");
    let locals = [&b"\x01"[..], &leb(n), b"\x7f"].concat();
    // Several of them: no single one is beyond the gate's limit of locals.
    component(&module(&vec![body; 60], &locals))
}

#[tokio::test]
async fn a_compile_bomb_ends_with_its_own_process_and_disturbs_nobody() {
    let bench = alone(|s| {
        s.compile.cpu = Duration::from_secs(1);
    });
    let shield = bench.pin("shield.input", "noop_shield").await;
    let bomb = live_values(990);
    let runtime = bench.runtime.clone();
    let upload = tokio::spawn(async move { runtime.admit(&tenant(), bomb.into()).await });
    let mut slowest = Duration::ZERO;
    while !upload.is_finished() {
        let began = Instant::now();
        let verdict = bench.runtime.check(call(&shield), Direction::Input, hello()).await;
        assert_eq!(verdict.unwrap(), Verdict::Pass);
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reasons = reasons(upload.await.unwrap());
    assert!(reasons[0].found.contains("processor time"), "{reasons:?}");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[tokio::test]
async fn a_compiler_without_memory_or_time_is_the_uploads_end() {
    let little = alone(|s| s.compile.memory_bytes = 64 << 20);
    let found = reasons(little.upload(live_values(700)).await);
    assert!(found[0].found.contains("64 MiB of memory"), "{found:?}");

    let hasty = alone(|s| s.compile.wall = Duration::from_millis(100));
    let found = reasons(hasty.upload(live_values(990)).await);
    assert!(found[0].found.contains("longer than"), "{found:?}");
    assert!(found[0].expected.contains("compile within"), "{found:?}");
}

#[tokio::test]
async fn a_refused_upload_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.artifacts = folder.path().join("artifacts");
    let bench = bench_with(settings.clone());
    let text =
        r#"(component (core module $m (func (export "run") unreachable) (start 0)) (core instance (instantiate $m)))"#;
    reasons(bench.upload(wat::parse_str(text).unwrap()).await);
    let mut files = 0;
    for config in std::fs::read_dir(&settings.artifacts).unwrap() {
        files += std::fs::read_dir(config.unwrap().path()).unwrap().count();
    }
    assert_eq!(files, 0);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&settings.artifacts).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn an_upload_says_what_it_is_and_what_it_wants() {
    let bench = bench();
    let admitted = bench.upload(guest_bytes("noop_orchestrator")).await.unwrap();
    assert_eq!(admitted.roles, [PluginKind::Orchestrator]);
    assert!(admitted.exports.contains(&"stockade:plugin/orchestrator@0.1.0".to_string()));
    assert!(admitted.imports.contains(&"stockade:plugin/inference@0.1.0".to_string()));
    assert_eq!(admitted.size_bytes, guest_bytes("noop_orchestrator").len() as u64);

    let plain = bench.upload(good()).await.unwrap();
    assert!(plain.roles.is_empty());
    assert!(plain.warnings[0].contains("cannot be bound") || plain.warnings[0].contains("not bound"));
    assert_eq!(plain.grants_wanted, Grants::default());
}

#[tokio::test]
async fn manifests_are_read_bounded_and_checked() {
    let bench = bench();
    let manifest = json!({
        "name": "x", "version": "1.0.0",
        "grants": {"models": ["smollm2"], "buckets": ["b"]},
        "limits": {"cpu_ms": 10},
    });
    let admitted = bench.upload(with_manifest(manifest.to_string().as_bytes())).await.unwrap();
    assert_eq!(admitted.manifest, manifest);
    assert_eq!(admitted.grants_wanted.models, ["smollm2"]);
    assert_eq!(admitted.grants_wanted.limits.unwrap().cpu_ms, 10);

    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    let deep = "[".repeat(60_000);
    for bad in ["", "[]", "{", r#"{"grants": {"modles": []}}"#, &long, &deep] {
        let refused = reasons(bench.upload(with_manifest(bad.as_bytes())).await);
        assert!(refused[0].at.contains("manifest") || refused[0].found.contains("manifest"), "{refused:?}");
    }
}

#[tokio::test]
async fn uploads_beyond_the_limits_of_size_and_number_are_refused() {
    let bench = alone(|s| s.compile.max_bytes = 100);
    let refused = bench.upload(vec![0; 101]).await;
    assert!(matches!(refused, Err(AdmitError::TooLarge { size: 101, limit: 100 })));

    let busy = alone(|s| {
        s.compile.max_waiting = 0;
        s.compile.cpu = Duration::from_secs(1);
    });
    let runtime = busy.runtime.clone();
    let bomb = live_values(990);
    let first = tokio::spawn(async move { runtime.admit(&tenant(), bomb.into()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let other = stockade_core::TenantId::new("other").unwrap();
    let second = busy.runtime.admit(&other, good().into()).await;
    assert!(matches!(second, Err(AdmitError::Overloaded)), "{second:?}");
    reasons(first.await.unwrap());
}

#[tokio::test]
async fn an_artifact_that_was_compiled_beforehand_is_taken_where_it_fits() {
    let bytes = guest_bytes("noop_tool");
    let admitted = bench().upload(bytes.clone()).await.unwrap();
    let name = format!("{}.cwasm", admitted.digest);
    let engines = std::fs::read_dir(settings().artifacts).unwrap().map(|e| e.unwrap().path());
    let artifact = std::fs::read(engines.map(|e| e.join(&name)).find(|p| p.is_file()).unwrap()).unwrap();

    // No compiler lives in a mebibyte.
    let idle = alone(|s| s.compile.memory_bytes = 1 << 20);
    assert!(idle.upload(bytes.clone()).await.is_err());
    let mut foreign = artifact.clone();
    foreign.truncate(1000);
    for foreign in [&foreign[..], b"", b"no artifact"] {
        // SAFETY: nothing of it runs, since its header or its length is refused.
        assert!(!unsafe { idle.runtime.seed(admitted.digest, foreign) }.unwrap());
        assert!(idle.upload(bytes.clone()).await.is_err());
    }
    // SAFETY: the compiler of the first bench made it of these bytes.
    assert!(unsafe { idle.runtime.seed(admitted.digest, &artifact) }.unwrap());
    let again = idle.upload(bytes).await.unwrap();
    assert_eq!(again.exports, admitted.exports);
}

#[tokio::test]
async fn an_artifact_goes_with_its_bytes_and_what_was_pinned_goes_on() {
    let bench = alone(|_| ());
    let (stays, goes) = (bench.pin("tool/count", "counts_in_state").await, bench.pin("tool/noop", "noop_tool").await);
    let folder = bench.folder().join("artifacts");
    let artifact = |pinned: &Pinned| {
        let name = format!("{}.cwasm", pinned.component.digest);
        let engines = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        engines.map(|engine| engine.join(&name)).any(|path| path.is_file())
    };
    bench.registry.blobs().delete(goes.component.digest).await.unwrap();
    bench.runtime.sweep().await;
    assert_eq!((artifact(&stays), artifact(&goes)), (true, false));
    let called = bench.runtime.call_tool(call(&goes), None, json!({})).await.unwrap();
    assert!(!called.is_error);

    let shared = alone(|s| s.artifacts_shared = true);
    let pinned = shared.pin("tool/noop", "noop_tool").await;
    shared.registry.blobs().delete(pinned.component.digest).await.unwrap();
    shared.runtime.sweep().await;
    let engines = std::fs::read_dir(shared.folder().join("artifacts")).unwrap();
    let files = engines.flat_map(|engine| std::fs::read_dir(engine.unwrap().path()).unwrap());
    assert_eq!(files.count(), 1, "another host may need it");
}
