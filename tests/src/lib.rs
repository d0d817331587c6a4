//! The harness of the whole-host tests: starts the real binary on a folder of its own, talks HTTP to it, kills it.

pub mod interval;
pub mod python;
pub mod tiny_guard;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The admin key that every test server is seeded with.
pub const ADMIN_KEY: &str = "sk-admin-of-the-tests-0123456789abcdef";
/// How long a server may take to accept requests, model loading included.
const START: Duration = Duration::from_secs(120);

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate stands in the workspace").to_path_buf()
}

/// The binary under test: `$STOCKADE_BIN`, else the release build.
pub fn binary() -> PathBuf {
    std::env::var_os("STOCKADE_BIN").map_or_else(|| root().join("target/release/stockade"), PathBuf::from)
}

/// A folder of the recorded fixtures, which lie beside the workspace.
pub fn fixture(name: &str) -> PathBuf {
    root().join("../shared/fixtures").join(name)
}

/// A component that `cargo xtask components` has built.
pub fn component(name: &str) -> Vec<u8> {
    let path = root().join("target/components").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask components`", path.display()))
}

/// How to start a server.
#[derive(Debug, Default, Clone)]
pub struct Options {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Options {
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts on `data` with a free port and waits for its `ready` line.
    pub fn start(data: &Path, options: &Options) -> Result<Self> {
        let started = Instant::now();
        share_artifacts(data)?;
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(&options.args)
            .env("STOCKADE_ADMIN_KEY", ADMIN_KEY)
            .env("XDG_CONFIG_HOME", data.join("config"))
            // One folder for all: each component compiles once, and not once a test.
            .env("STOCKADE_COMPONENTS__ARTIFACTS", root().join("target/test-artifacts"))
            .envs(options.env.iter().map(|(k, v)| (k, v)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: build it with `cargo xtask build`", binary().display()))?;
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().context("stderr is piped")?;
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().expect("nobody panics with the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (ready, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("ready ") {
                    let _ = ready.send(url.trim().to_string());
                }
            }
        });
        while started.elapsed() < START {
            if let Ok(url) = address.recv_timeout(Duration::from_millis(50)) {
                return Ok(Self { child, url, log });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}:\n{}", log.lock().expect("nobody panics with the log"));
            }
        }
        let _ = child.kill();
        bail!("no ready line within {START:?}:\n{}", log.lock().expect("nobody panics with the log"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with the log").clone()
    }

    /// SIGKILL: no chance to write anything.
    pub fn kill(mut self) {
        self.child.kill().expect("the server was running");
        let _ = self.child.wait();
    }

    /// SIGTERM; answers with the exit status once it has drained.
    pub fn stop(mut self) -> Result<std::process::ExitStatus> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill failed");
        Ok(self.child.wait()?)
    }

    pub fn client(&self, key: &str) -> Client {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Client { agent, url: self.url.clone(), key: key.into(), tenant: None }
    }

    /// A client with the admin key, acting on tenant `default`.
    pub fn admin(&self) -> Client {
        self.client(ADMIN_KEY)
    }
}

/// One folder of compiled components for all servers: each component compiles once, not once a test.
fn share_artifacts(data: &Path) -> Result<()> {
    let (shared, own) = (root().join("target/test-artifacts"), data.join("components"));
    if !own.exists() {
        std::fs::create_dir_all(&shared)?;
        std::fs::create_dir_all(data)?;
        std::os::unix::fs::symlink(shared, own)?;
    }
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer with its status and headers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// The body when the status is `status`.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "status {} instead of {status}: {}", self.status, self.body);
        Ok(self.body)
    }
}

#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    pub url: String,
    pub key: String,
    tenant: Option<String>,
}

impl Client {
    /// The same key, acting on another tenant.
    pub fn on_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.into()), ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, "application/json", &[], &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("POST", path, "application/json", &[], body.to_string().as_bytes())
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("PUT", path, "application/json", &[], body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send("DELETE", path, "application/json", &[], &[])
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut response = self.raw(method, path, content_type, headers, body)?;
        let headers = response
            .headers()
            .iter()
            .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status: response.status().as_u16(), headers, body })
    }

    fn raw(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", content_type);
        if let Some(tenant) = &self.tenant {
            request = request.header("stockade-tenant", tenant);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(if body.is_empty() { self.agent.run(request.body(())?)? } else { self.agent.run(request.body(body)?)? })
    }

    /// The data of each server-sent event, as it comes; `on_event` answers whether to go on. Answers with the trace's id.
    pub fn stream(&self, path: &str, body: &Value, mut on_event: impl FnMut(&str) -> bool) -> Result<String> {
        let mut response = self.raw("POST", path, "application/json", &[], body.to_string().as_bytes())?;
        let status = response.status().as_u16();
        let trace = response.headers().get("stockade-trace").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let trace = trace.to_string();
        let mut reader = BufReader::new(response.body_mut().as_reader());
        if status != 200 {
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            bail!("status {status}: {text}");
        }
        for line in reader.lines() {
            if let Some(data) = line?.strip_prefix("data:")
                && !on_event(data.trim_start())
            {
                break;
            }
        }
        Ok(trace)
    }

    /// A streamed chat's text and finish reason.
    pub fn chat_stream(&self, body: &Value) -> Result<Streamed> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let mut streamed = Streamed::default();
        self.stream("/v1/chat/completions", &body, |data| {
            if data == "[DONE]" {
                streamed.done = true;
                return false;
            }
            if let Ok(chunk) = serde_json::from_str::<Value>(data) {
                streamed.take(&chunk);
                streamed.chunks.push(chunk);
            }
            true
        })?;
        Ok(streamed)
    }

    /// Uploads a component and grants `grants`.
    pub fn push(&self, name: &str, version: &str, wasm: &[u8], grants: &Value) -> Result<Value> {
        let path = format!("/stockade/v1/components/{name}/versions/{version}");
        let answer = self.send("PUT", &path, "application/wasm", &[], wasm)?;
        ensure!([200, 201].contains(&answer.status), "push {name}: {} {}", answer.status, answer.body);
        if !grants.is_null() {
            self.put(&format!("/stockade/v1/components/{name}/grants"), grants)?.expect(200)?;
        }
        Ok(answer.body)
    }

    /// The trace of a reply, which may be readable up to 3 s after its end.
    pub fn trace(&self, id: &str) -> Result<Value> {
        let asked = Instant::now();
        loop {
            let answer = self.get(&format!("/stockade/v1/traces/{id}"))?;
            if answer.status == 200 {
                return Ok(answer.body);
            }
            ensure!(asked.elapsed() < Duration::from_secs(3), "no trace {id} within 3 s: {}", answer.body);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Calls a function of the bound memory with its arguments in order.
    pub fn memory(&self, function: &str, args: Value) -> Result<Value> {
        let bound = self.get("/stockade/v1/bindings/memory")?.expect(200)?;
        let version = bound["entries"][0]["version"].as_str().context("memory is bound")?;
        let path = format!("/stockade/v1/components/memory/versions/{version}/invoke");
        let answer = self.post(&path, &json!({"function": function, "args": args}))?.expect(200)?;
        ensure!(answer["error"].is_null(), "{function}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }

    /// Waits until a shipped component is in and answers with its version: those that are not bound at the first start
    /// come after it.
    pub fn shipped(&self, name: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            let found = self.get(&format!("/stockade/v1/components/{name}"))?;
            if found.status == 200 {
                return Ok(found.body["latest"].as_str().context("a component has a latest version")?.into());
            }
            ensure!(started.elapsed() < START, "{name} is not in after {START:?}: {}", found.body);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Binds a role to these entries.
    pub fn bind(&self, role: &str, entries: Value) -> Result<Value> {
        self.put(&format!("/stockade/v1/bindings/{role}"), &json!({"entries": entries}))?.expect(200)
    }

    /// Makes a tenant and a key of it with these scopes; answers with a client of that key.
    pub fn tenant_with_key(&self, name: &str, scopes: &[&str]) -> Result<Self> {
        self.post("/stockade/v1/tenants", &json!({"name": name}))?.expect(201)?;
        let key = json!({"tenant": name, "name": "test", "scopes": scopes});
        let key = self.post("/stockade/v1/keys", &key)?.expect(201)?;
        Ok(Self { key: key["key"].as_str().context("a new key is shown")?.into(), tenant: None, ..self.clone() })
    }
}

/// What a streamed chat came to.
#[derive(Debug, Default)]
pub struct Streamed {
    pub text: String,
    pub refusal: String,
    pub tool_arguments: String,
    pub finish_reason: Option<String>,
    pub error: Option<Value>,
    pub chunks: Vec<Value>,
    /// The closing `[DONE]` was seen.
    pub done: bool,
}

impl Streamed {
    fn take(&mut self, chunk: &Value) {
        if let Some(error) = chunk.get("error").filter(|e| !e.is_null()) {
            self.error = Some(error.clone());
        }
        let choice = &chunk["choices"][0];
        self.text += choice["delta"]["content"].as_str().unwrap_or_default();
        self.refusal += choice["delta"]["refusal"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            self.tool_arguments += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.into());
        }
    }
}

/// A folder for one test's data; removed at the end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("the machine has a temporary folder")
}
