//! Tools on the real host: the official clients of Llama Stack and MCP, a server of the MCP SDK as peer, and code that a
//! model might write.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use stockade_tests::python::{environment, llama_stack, passes, passes_with};
use stockade_tests::{Client, Options, Server, root, scratch};

fn mcp() -> Result<PathBuf> {
    environment("mcp", &[&["mcp==2.3.0", "uvicorn"]])
}

/// A server of the official SDK; ends with the value.
struct Peer {
    child: Child,
    url: String,
}

impl Peer {
    fn start(replies: &str) -> Result<Self> {
        let script = root().join("tests/clients/mcp_server.py");
        let mut child = Command::new(mcp()?).arg(script).arg(replies).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().context("stdout is piped")?).read_line(&mut port)?;
        Ok(Self { child, url: format!("http://127.0.0.1:{}/mcp", port.trim()) })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host with what the scripts use.
fn prepared(data: &Path) -> Result<Server> {
    let server = Server::start(data, &Options::default())?;
    let client = server.admin();
    for component in ["calculator", "mcp", "code-interpreter-python"] {
        client.shipped(component)?;
    }
    client.put("/stockade/v1/secrets/peer", &json!({"value": "hunter2"}))?;
    Ok(server)
}

#[test]
fn the_llama_stack_clients_register_list_and_invoke_tools() -> Result<()> {
    let data = scratch();
    let server = prepared(data.path())?;
    for (version, replies) in [("0.2.23", "stream"), ("0.6.1", "json")] {
        let peer = Peer::start(replies)?;
        passes_with(&llama_stack(version)?, "llama_stack_tools.py", &[&peer.url], &server)?;
        for role in ["calculator", "code-interpreter-python"] {
            server.admin().delete(&format!("/stockade/v1/bindings/tool/{role}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_mcp_client_uses_the_hosts_tools_and_those_of_a_server_behind_it() -> Result<()> {
    let data = scratch();
    let server = prepared(data.path())?;
    let peer = Peer::start("stream")?;
    let client = server.admin();
    let group = json!({"toolgroup_id": "mcp::peer", "provider_id": "mcp", "mcp_endpoint": {"uri": peer.url},
        "args": {"secret": "peer"}});
    client.post("/v1/toolgroups", &group)?.expect(200)?;
    let calculator = json!({"toolgroup_id": "calculator", "provider_id": "calculator"});
    client.post("/v1/toolgroups", &calculator)?.expect(200)?;
    passes(&mcp()?, "mcp_client.py", &server)?;

    // Without its token the peer's tools are gone, and the others are not.
    client.delete("/stockade/v1/secrets/peer")?;
    let listed = client.get("/v1/tools")?.expect(200)?;
    let names: Vec<_> = listed["data"].as_array().context("a list")?.iter().map(|t| t["name"].clone()).collect();
    ensure!(names == ["calculator"], "{names:?}");
    // A token of the caller's own takes its place.
    let config = json!({"url": peer.url, "group": "mcp::peer"});
    client.bind("tool/mcp-peer", json!([{"component": "mcp", "version": client.shipped("mcp")?, "config": config}]))?;
    let call = json!({"tool_name": "mcp-peer__add", "kwargs": {"a": 1, "b": 1}, "authorization": "hunter2"});
    let answer = client.post("/v1/tool-runtime/invoke", &call)?.expect(200)?;
    ensure!(answer["content"] == "2", "{answer}");
    Ok(())
}

/// Binds an interpreter under these limits and answers with what runs code in it.
fn interpreter(client: &Client, name: &str, limits: Value) -> Result<impl Fn(Value) -> Result<Value>> {
    let version = client.shipped(name)?;
    client.put(&format!("/stockade/v1/components/{name}/grants"), &json!({"limits": limits}))?.expect(200)?;
    client.bind(&format!("tool/{name}"), json!([{"component": name, "version": version}]))?;
    let (client, name) = (client.clone(), name.to_string());
    Ok(move |arguments: Value| {
        let call = json!({"tool_name": name, "kwargs": arguments});
        let answer = client.post("/v1/tool-runtime/invoke", &call)?;
        let Some(content) = answer.body["content"].as_str().filter(|_| answer.status == 200) else {
            return Ok(json!({"status": answer.status, "failed": answer.body}));
        };
        Ok(serde_json::from_str(content).unwrap_or_else(|_| json!(content)))
    })
}

#[test]
fn python_runs_and_its_limits_hold() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let limits = json!({"memory_bytes": 134_217_728, "cpu_ms": 3000, "deadline_ms": 20_000});
    let admin = server.admin();
    let run = interpreter(&admin, "code-interpreter-python", limits)?;
    let code = |code: &str| run(json!({"code": code}));

    let done = code("import math, json\nfor i in range(3): print(i)\nmath.factorial(20)")?;
    ensure!(done == json!({"stdout": "0\n1\n2\n", "stderr": "", "value": "2432902008176640000"}), "{done}");
    let failed = code("def f(x):\n    return 1 / x\nf(0)")?;
    let error = failed["error"].as_str().context("an error")?;
    ensure!(error.ends_with("ZeroDivisionError: division by zero") && error.contains("line 2, in f"), "{failed}");
    for (wrong, told) in [
        ("def f(:", "def f(:"),
        ("x = 1\nreturn x", "'return' outside function"),
        ("def f():\n  x = 1\n  nonlocal x", "name 'x' is assigned to before nonlocal"),
        ("exec('1 +')", "invalid syntax"),
        ("compile('f(', 'other.py', 'exec')", "'(' was never closed"),
        ("import ast; ast.parse('def g(:')", "invalid syntax"),
    ] {
        let done = code(wrong)?;
        let error = done["error"].as_str().with_context(|| format!("{wrong}: {done}"))?;
        ensure!(error.contains("SyntaxError") && error.contains(told), "{wrong}: {error}");
    }
    ensure!(code("try:\n  exec('1 +')\nexcept SyntaxError as e:\n  print(e.lineno)\n3")?["stdout"] == "1\n");
    ensure!(code("import os; os.environ['A'] = 'b'; os.environ['A']")?["value"] == "'b'");
    ensure!(code("import sys; print('x', file=sys.stderr); sys.exit(3)")?["error"] == "SystemExit: 3");

    let files = run(json!({"files": {"a.csv": "x,y\n1,2\n", "b": "base64:AP8="}, "code":
        "import csv, pathlib\nrows = list(csv.DictReader(open('a.csv')))\nopen('out/c.txt', 'w').write(rows[0]['y'])\n\
         pathlib.Path('d').write_bytes(open('b', 'rb').read() + b'\\xfe')"}))?;
    ensure!(files["files"] == json!({"out/c.txt": "2", "d": "base64:AP/+"}), "{files}");
    // Every call is a fresh interpreter, with randomness of its own.
    ensure!(code("open('out/c.txt').read()")?["error"].as_str().is_some_and(|e| e.contains("FileNotFoundError")));
    let year =
        code("import datetime, time\ndatetime.datetime.now().year == time.gmtime().tm_year and time.time() > 1.7e9")?;
    ensure!(year["value"] == "True", "{year}");
    let random = "import random; random.random()";
    ensure!(code(random)? != code(random)?);

    // It spins, eats memory, recurses, and looks for a way out.
    let limit = |done: Value| done["failed"]["error"]["limit"].as_str().unwrap_or_default().to_string();
    let stopped = |done: Value| ["cpu", "deadline"].contains(&limit(done).as_str());
    ensure!(stopped(code("while True: pass")?));
    ensure!(stopped(code("try:\n  while True: pass\nexcept BaseException: pass")?));
    let eaten = code("x = b'x' * 10\nwhile True: x = x + x")?;
    ensure!(
        limit(eaten.clone()) == "memory" || eaten["error"].as_str().is_some_and(|e| e.contains("MemoryError")),
        "{eaten}"
    );
    let deep = code("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()")?;
    let ended = ["trap", "memory"].contains(&limit(deep.clone()).as_str());
    ensure!(ended || deep["error"].is_string(), "{deep}");
    let deep = code("def f(): f()\nf()")?;
    ensure!(deep["error"].as_str().is_some_and(|e| e.contains("RecursionError")), "{deep}");
    ensure!(code("import numpy")?["error"].as_str().is_some_and(|e| e.contains("ModuleNotFoundError")));
    for escape in [
        "import socket; socket.create_connection(('1.1.1.1', 80))",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1/')",
        "import os; os.fork()",
        "import os; os.system('id')",
        "import subprocess; subprocess.run(['id'])",
        "import io; io.FileIO('/etc/passwd').read()",
        "import os; os.open('/etc/passwd', os.O_RDONLY)",
        "import posix; posix.open('/etc/passwd', 0)",
        "open('/etc/passwd').read()",
        "import os; os.environ['PATH']",
        "import threading; t = threading.Thread(target=print); t.start()",
        "import ctypes",
    ] {
        let done = code(escape)?;
        ensure!(done["error"].is_string() || done["failed"].is_object(), "{escape}: {done}");
        ensure!(!done.to_string().contains("root:"), "{escape}: {done}");
    }
    let flood = code("print('x' * 10**6)\n'y' * 10**6")?;
    let (stdout, value) = (flood["stdout"].as_str().unwrap_or_default(), flood["value"].as_str().unwrap_or_default());
    ensure!(
        stdout.len() < 21_000 && value.len() < 21_000 && stdout.contains("[cut after"),
        "{} {}",
        stdout.len(),
        value.len()
    );
    ensure!(code("1 + 1")?["value"] == "2", "the next call is as good as the first");
    Ok(())
}

#[test]
fn javascript_runs_and_its_limits_hold() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let limits = json!({"memory_bytes": 67_108_864, "cpu_ms": 2000, "deadline_ms": 20_000});
    let admin = server.admin();
    let run = interpreter(&admin, "code-interpreter-javascript", limits)?;
    let code = |code: &str| run(json!({"code": code}));

    let done = code("for (let i = 0; i < 3; i++) console.log(i, {a: [i]}); console.error('e'); 6 * 7")?;
    ensure!(
        done == json!({"stdout": "0 {\"a\":[0]}\n1 {\"a\":[1]}\n2 {\"a\":[2]}\n", "stderr": "e\n", "value": "42"}),
        "{done}"
    );
    ensure!(code("Promise.resolve(2n ** 70n)")?["value"] == "1180591620717411303424n");
    ensure!(
        code("(async () => { throw new TypeError('x') })()")?["error"]
            .as_str()
            .is_some_and(|e| e.starts_with("TypeError: x"))
    );
    ensure!(code("throw 7")?["error"] == "uncaught 7");
    ensure!(code("let x = ;")?["error"].as_str().is_some_and(|e| e.starts_with("SyntaxError")));
    let files =
        run(json!({"files": {"a": "1,2"}, "code": "files.b = files.a.split(',').reverse().join(); files.a.length"}))?;
    ensure!(files["files"] == json!({"b": "2,1"}) && files["value"] == "3", "{files}");
    ensure!(code("Math.random()")? != code("Math.random()")?);
    ensure!(code("globalThis.kept = 1")?["value"] == "1" && code("typeof kept")?["value"] == "undefined");

    let limit = |done: Value| done["failed"]["error"]["limit"].as_str().unwrap_or_default().to_string();
    let stopped = |done: Value| ["cpu", "deadline"].contains(&limit(done).as_str());
    ensure!(stopped(code("for (;;) {}")?));
    ensure!(stopped(code("for (;;) { try { for (;;) {} } catch {} }")?));
    let eaten = code("const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))")?;
    ensure!(limit(eaten.clone()) == "memory" || eaten["error"].is_string(), "{eaten}");
    let deep = code("(function f() { f() })()")?;
    ensure!(limit(deep.clone()) == "trap" || deep["error"].is_string(), "{deep}");
    for name in ["fetch", "require", "process", "Deno", "XMLHttpRequest", "WebSocket", "std", "os", "Worker"] {
        ensure!(code(&format!("typeof {name}"))?["value"] == "undefined", "{name}");
    }
    let import = code("import('node:fs')")?;
    ensure!(import["error"].is_string() || import["failed"].is_object(), "{import}");
    let flood = code("for (let i = 0; i < 1e5; i++) console.log('xxxxxxxxxx'); 'y'.repeat(1e6)")?;
    ensure!(
        flood["stdout"].as_str().is_some_and(|s| s.len() < 21_000 && s.contains("[cut after")),
        "{}",
        flood["stdout"]
    );
    Ok(())
}
