//! Hostile components: each ends within its limit, named, while another tenant's requests go on.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use stockade_tests::{Options, Server, component, scratch};

#[test]
fn each_hostile_shield_fails_its_own_request_with_the_limit_it_met() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let chat = json!({"model": "smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
    for (name, limits) in [
        ("spins", &["cpu", "deadline"][..]),
        ("eats-memory", &["memory"]),
        ("traps", &["trap"]),
        ("storms-host-calls", &["host_calls", "cpu", "deadline"]),
    ] {
        let grants =
            json!({"limits": {"deadline_ms": 1500, "cpu_ms": 400, "memory_bytes": 33554432, "host_calls": 20000}});
        client.push(name, "1.0.0", &component(&name.replace("-", "_")), &grants)?;
        client.bind("shield.input", json!([{"component": name, "version": "1.0.0"}]))?;
        let started = Instant::now();
        let answer = client.post("/v1/chat/completions", &chat)?;
        let took = started.elapsed();
        ensure!(answer.status == 503, "{name}: {} {}", answer.status, answer.body);
        let error = &answer.body["error"];
        ensure!(error["code"] == "component_failed", "{name}: {}", answer.body);
        ensure!(limits.iter().any(|l| error["limit"] == *l), "{name}: {}", answer.body);
        ensure!(took < Duration::from_secs(5), "{name} took {took:?}");
    }
    // Failing open is the tenant's own word.
    client.bind("shield.input", json!([{"component": "traps", "version": "1.0.0", "on_failure": "allow"}]))?;
    client.post("/v1/chat/completions", &chat)?.expect(200)?;
    Ok(())
}

#[test]
fn a_victim_goes_on_beside_spinning_guests() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let victim = admin.tenant_with_key("victim", &["inference", "components"])?;
    let hostile = admin.tenant_with_key("hostile", &["inference", "components", "admin"])?;
    victim.push("quiet", "1.0.0", &component("regex-shield"), &json!({}))?;
    let limits = json!({"limits": {"deadline_ms": 20000, "cpu_ms": 10000}});
    hostile.push("spins", "1.0.0", &component("spins"), &limits)?;

    let invoke = json!({"function": "check", "args": ["input", [{"role": "user", "parts": [{"text": "hello"}], "name": Value::Null}]]});
    let measure = |n: usize| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..n {
            let started = Instant::now();
            victim.post("/stockade/v1/components/quiet/versions/1.0.0/invoke", &invoke)?.expect(200)?;
            times.push(started.elapsed());
        }
        times.sort();
        Ok(times)
    };
    measure(20)?;
    let quiet = measure(200)?;
    let spinners: Vec<_> = (0..4)
        .map(|_| {
            let (hostile, invoke) = (hostile.clone(), invoke.clone());
            std::thread::spawn(move || hostile.post("/stockade/v1/components/spins/versions/1.0.0/invoke", &invoke))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let beside = measure(200)?;
    println!(
        "victim alone p50 {:?} p99 {:?}; beside four spinning guests p50 {:?} p99 {:?}",
        quiet[100], quiet[197], beside[100], beside[197]
    );
    // The figure belongs into a benchmark; that it answers at all, two hundred times within a spinner's life, is the test.
    for spinner in spinners {
        let answer = spinner.join().expect("spinners do not panic")?;
        ensure!(answer.status == 503 || answer.body["error"] != Value::Null, "{} {}", answer.status, answer.body);
    }
    Ok(())
}
