//! Over real sockets: clients that leave, do not read, do not write, and a host that shuts down.

use crate::fakes::*;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stockade_gateway::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Served {
    address: std::net::SocketAddr,
    inference: std::sync::Arc<FakeInference>,
    registry: stockade_core::registry::Registry,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

async fn serve(settings: Settings) -> Served {
    let parts = parts(settings).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    Served {
        address,
        inference: parts.inference,
        registry: parts.registry,
        stop,
        server: tokio::spawn(parts.gateway.serve(listener, shutdown)),
    }
}

impl Served {
    async fn open(&self, said: &str, more: serde_json::Value) -> TcpStream {
        let body = chat_body(said, more).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream
    }

    async fn cancelled(&self, n: usize) {
        let started = Instant::now();
        while self.inference.cancelled.load(Ordering::SeqCst) < n {
            assert!(started.elapsed() < Duration::from_secs(5), "the generation goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn newest_trace(&self) -> stockade_core::registry::TraceRecord {
        let tenant = stockade_core::TenantId::default_tenant();
        let traces = self.registry.traces(&tenant, None, 1).unwrap();
        traces.into_iter().next().expect("a trace")
    }
}

async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_generation_streamed_or_not() {
    let host = serve(Settings::default()).await;
    let mut stream = host.open("hang", json!({"stream": true})).await;
    read_until(&mut stream, "so ").await;
    drop(stream);
    host.cancelled(1).await;
    let stream = host.open("hang", json!({})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(host.inference.cancelled.load(Ordering::SeqCst), 1);
    drop(stream);
    host.cancelled(2).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let newest = host.newest_trace();
    assert_eq!(newest.status, "cancelled");
    // `hang` in the prompt, `so ` in the completion, a byte a token.
    assert_eq!((newest.tokens.prompt_tokens, newest.tokens.completion_tokens), (4, 3));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let host = serve(Settings { write_timeout: Duration::from_millis(200), ..Settings::default() }).await;
    let stream = host.open("flood", json!({"stream": true})).await;
    host.cancelled(1).await;
    drop(stream);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_closed() {
    let host = serve(Settings { header_timeout: Duration::from_millis(200), ..Settings::default() }).await;
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused() {
    let host = serve(Settings { body_timeout: Duration::from_millis(200), ..Settings::default() }).await;
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 10\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = read_until(&mut stream, "\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
}

#[tokio::test]
async fn quiet_streams_are_kept_open_by_comments() {
    let host = serve(Settings { keep_alive: Duration::from_millis(50), ..Settings::default() }).await;
    let mut stream = host.open("hang", json!({"stream": true})).await;
    read_until(&mut stream, ": keep-alive").await;
}

#[tokio::test]
async fn a_request_over_its_time_ends_with_an_error() {
    let host = serve(Settings { request_timeout: Duration::from_millis(200), ..Settings::default() }).await;
    let mut stream = host.open("hang", json!({"stream": true})).await;
    let seen = read_until(&mut stream, "overloaded").await;
    assert!(seen.contains("so "), "{seen}");
    let mut stream = host.open("hang", json!({})).await;
    let seen = read_until(&mut stream, "overloaded").await;
    assert!(seen.starts_with("HTTP/1.1 503"), "{seen}");
    host.cancelled(2).await;
}

#[tokio::test]
async fn shutdown_lets_streams_end_refuses_new_ones_and_writes_their_traces() {
    let host = serve(Settings::default()).await;
    let mut stream = host.open("hang", json!({"stream": true})).await;
    read_until(&mut stream, "so ").await;
    let Served { address, stop, server, registry, .. } = host;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // While a stream still runs the host answers that it is draining.
    let mut probe = TcpStream::connect(address).await.unwrap();
    probe.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let reply = read_until(&mut probe, "draining").await;
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    assert!(!server.is_finished());
    drop(stream);
    let served = tokio::time::timeout(Duration::from_secs(5), server).await;
    served.expect("it ends once its requests have").unwrap().unwrap();
    let tenant = stockade_core::TenantId::default_tenant();
    assert_eq!(registry.traces(&tenant, None, 10).unwrap().len(), 1);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_drain_time_ends_what_does_not_end_itself() {
    let host = serve(Settings { drain: Duration::from_millis(100), ..Settings::default() }).await;
    let mut stream = host.open("hang", json!({"stream": true})).await;
    read_until(&mut stream, "so ").await;
    host.stop.send(()).unwrap();
    let served = tokio::time::timeout(Duration::from_secs(5), host.server).await;
    served.expect("it ends").unwrap().unwrap();
}
