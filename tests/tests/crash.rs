//! kill -9 at any moment loses nothing that was acknowledged.

use anyhow::{Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stockade_tests::{Options, Server, scratch};

#[test]
fn every_acknowledged_write_survives_kill_9() -> Result<()> {
    let data = scratch();
    let acknowledged: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    for round in 0..8u64 {
        let server = Server::start(data.path(), &Options::default())?;
        let client = server.admin();
        for (key, value) in acknowledged.lock().expect("no writer panics").iter() {
            let found = client.get(&format!("/stockade/v1/state/crash/{key}"))?.expect(200)?;
            // A later write may have been committed whose answer the kill has cut off.
            ensure!(
                found["n"].as_u64() >= Some(*value),
                "{key}: {} instead of {value} after round {round}",
                found["n"]
            );
            ensure!(found["pad"].as_str().map(str::len) == Some(6000), "{key} is torn");
        }
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let (client, acknowledged) = (client.clone(), acknowledged.clone());
                std::thread::spawn(move || {
                    for n in 0.. {
                        // Large enough to be cut into several rows, small enough to be quick.
                        let key = format!("w{w}-{}", n % 10);
                        let value = json!({"n": round * 1_000_000 + n, "pad": "x".repeat(6000)});
                        let path = format!("/stockade/v1/state/crash/{key}");
                        match client.put(&path, &value) {
                            Ok(answer) if answer.status < 300 => {
                                acknowledged.lock().expect("no writer panics").insert(key, round * 1_000_000 + n);
                            }
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(120 + round * 37));
        server.kill();
        for writer in writers {
            writer.join().expect("writers end when the server is gone");
        }
    }
    let acknowledged = acknowledged.lock().expect("no writer panics");
    ensure!(acknowledged.len() >= 4, "the writers got nowhere: {acknowledged:?}");
    Ok(())
}

#[test]
fn a_background_response_that_a_kill_cuts_off_has_failed() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let body = json!({"model": "smollm2", "input": "Count to ten thousand.", "max_output_tokens": 4000,
        "background": true});
    let queued = server.admin().post("/v1/responses", &body)?.expect(200)?;
    ensure!(queued["status"] == "queued", "{queued}");
    server.kill();
    let server = Server::start(data.path(), &Options::default())?;
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap_or_default());
    let found = server.admin().get(&path)?.expect(200)?;
    let told = found["error"]["message"].as_str().unwrap_or_default();
    ensure!(found["status"] == "failed" && told.contains("the host was stopped"), "{found}");
    Ok(())
}

#[test]
fn sigterm_drains_and_ends_cleanly() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let body = json!({"model": "smollm2", "max_tokens": 60, "temperature": 0,
        "messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}]});
    let stream = std::thread::spawn(move || client.chat_stream(&body));
    std::thread::sleep(Duration::from_millis(700));
    let status = server.stop()?;
    let streamed = stream.join().expect("the client does not panic")?;
    ensure!(status.success(), "{status}");
    ensure!(streamed.done && streamed.finish_reason.is_some(), "the stream was cut: {streamed:?}");
    Ok(())
}
