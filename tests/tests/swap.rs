//! A component is swapped while streams run: each request keeps what it started with, none fails.

use anyhow::{Result, ensure};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stockade_tests::{Options, Server, component, scratch};

#[test]
fn requests_in_flight_keep_their_version_and_new_ones_get_the_new_one() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let wasm = component("emits_pieces");
    client.push("emits-pieces", "1.0.0", &wasm, &json!({}))?;
    client.push("emits-pieces", "2.0.0", &wasm, &json!({}))?;
    let bind = |version: &str, tag: &str| {
        client.bind("orchestrator", json!([{"component": "emits-pieces", "version": version, "config": {"tag": tag}}]))
    };
    bind("1.0.0", "one")?;

    let stop = Arc::new(AtomicBool::new(false));
    let pieces: Vec<String> = (0..40).map(|i| format!("{i} ")).collect();
    let body = json!({"model": "smollm2", "messages": [{"role": "user", "content": "go"}],
        "metadata": {"pieces": serde_json::to_string(&pieces)?}});
    let expected = |tag: &str| format!("{tag}{}{tag}", pieces.concat());
    let (one, two) = (expected("one"), expected("two"));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (client, body, stop) = (client.clone(), body.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut texts = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    texts.push(client.chat_stream(&body)?);
                }
                Ok::<_, anyhow::Error>(texts)
            })
        })
        .collect();
    for _ in 0..10 {
        bind("2.0.0", "two")?;
        std::thread::sleep(std::time::Duration::from_millis(60));
        client.post("/stockade/v1/bindings/orchestrator/rollback", &json!({}))?.expect(200)?;
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    stop.store(true, Ordering::Relaxed);
    let (mut ones, mut twos) = (0, 0);
    for caller in callers {
        for streamed in caller.join().expect("callers do not panic")? {
            ensure!(streamed.done && streamed.error.is_none(), "{streamed:?}");
            if streamed.text == one {
                ones += 1;
            } else {
                ensure!(streamed.text == two, "a mixture: {:?}", streamed.text);
                twos += 1;
            }
        }
    }
    ensure!(ones > 0 && twos > 0, "{ones} of the first version, {twos} of the second");
    Ok(())
}

#[test]
fn a_bad_upload_changes_nothing() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let before = client.get("/stockade/v1/bindings")?.expect(200)?;
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("noise", b"\x13\x37 this is no component"),
        ("core module", b"\0asm\x01\0\0\0"),
        ("truncated", &component("regex-shield")[..500]),
        ("text", b"(component)"),
    ] {
        let path = "/stockade/v1/components/bad/versions/1.0.0";
        let answer = client.send("PUT", path, "application/wasm", &[], bytes)?;
        ensure!(answer.status == 422, "{name}: {} {}", answer.status, answer.body);
        ensure!(answer.body["code"] == "invalid_component", "{name}: {}", answer.body);
        ensure!(answer.body["reasons"].as_array().is_some_and(|r| !r.is_empty()), "{name}: {}", answer.body);
    }
    ensure!(client.get("/stockade/v1/components/bad")?.status == 404);
    ensure!(client.get("/stockade/v1/bindings")?.expect(200)? == before);

    // The same bytes again are fine, other bytes under a taken version are not.
    let path = "/stockade/v1/components/same/versions/1.0.0";
    let put = |bytes: &[u8]| client.send("PUT", path, "application/wasm", &[], bytes);
    ensure!(put(&component("regex-shield"))?.status == 201);
    ensure!(put(&component("regex-shield"))?.status == 200);
    let other = put(&component("echo-tool"))?;
    ensure!(other.status == 409 && other.body["code"] == "version_exists", "{} {}", other.status, other.body);
    Ok(())
}
