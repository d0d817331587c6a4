//! `stockade doctor`: what this machine, its models and its server are like.

use crate::client::Client;
use crate::embedded;
use crate::failure::{Exit, Failure};
use crate::folders;
use crate::output::{Output, table};
use crate::vault;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    /// Works, but something would be better.
    Hint,
    Bad,
}

struct Finding {
    what: &'static str,
    mark: Mark,
    text: String,
}

pub fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let findings = [
        processor(),
        memory(),
        folder("data folder", &folders::data()),
        secrets(&folders::data()),
        folder("model folder", &folders::models()),
        default_model(),
        components(),
        command("rust", "rustc", &["--version"], "install rustup to build Rust plugins"),
        command("python", "python3", &["--version"], "install Python 3 to build Python plugins and pull from packages"),
        command("node", "node", &["--version"], "install Node.js to build JavaScript plugins"),
        server(client),
    ];
    let list: Vec<Value> = findings
        .iter()
        .map(|f| json!({"check": f.what, "state": format!("{:?}", f.mark).to_lowercase(), "detail": f.text}))
        .collect();
    output.document(&json!({"data": list}), |_| {
        let rows: Vec<Vec<String>> = findings
            .iter()
            .map(|f| {
                let mark = match f.mark {
                    Mark::Ok => "ok",
                    Mark::Hint => "hint",
                    Mark::Bad => "BAD",
                };
                vec![mark.into(), f.what.into(), f.text.clone()]
            })
            .collect();
        table(&rows)
    });
    if findings.iter().any(|f| f.mark == Mark::Bad) {
        return Err(Failure::new(Exit::Failed, "something here has to be mended"));
    }
    Ok(())
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    let (fast, text) = (
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
        "without AVX2 the portable kernels serve, many times slower",
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (fast, text) = (false, "this processor is served by the portable kernels, many times slower");
    if fast {
        Finding { what: "processor", mark: Mark::Ok, text: format!("{cores} cores, AVX2") }
    } else {
        Finding { what: "processor", mark: Mark::Hint, text: format!("{cores} cores; {text}") }
    }
}

fn memory() -> Finding {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    match line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()) {
        Some(kib) if kib < 1 << 20 => Finding {
            what: "memory",
            mark: Mark::Hint,
            text: format!("{} MiB free; the default model wants 1 GiB", kib >> 10),
        },
        Some(kib) => Finding { what: "memory", mark: Mark::Ok, text: format!("{} MiB free", kib >> 10) },
        None => Finding { what: "memory", mark: Mark::Hint, text: "unknown".into() },
    }
}

fn folder(what: &'static str, path: &Path) -> Finding {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let probe = existing.join(format!(".stockade-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"") {
        Ok(()) => {
            let _ = std::fs::remove_file(probe);
            Finding { what, mark: Mark::Ok, text: path.display().to_string() }
        }
        Err(e) => Finding { what, mark: Mark::Bad, text: format!("{} cannot be written: {e}", existing.display()) },
    }
}

/// Whether what is sealed here can be opened, and by nobody else.
fn secrets(data: &Path) -> Finding {
    let what = "secrets";
    match vault::current(data) {
        Ok(Some((key, place))) => Finding { what, mark: Mark::Ok, text: format!("sealed with key {key} of {place}") },
        Ok(None) => Finding { what, mark: Mark::Ok, text: "the first start makes the key that seals them".into() },
        Err(f) => Finding { what, mark: Mark::Bad, text: f.message },
    }
}

fn default_model() -> Finding {
    let what = "default model";
    let entry = stockade_model::catalogue::default_entry();
    if entry.installed(&folders::models()).is_some() {
        Finding { what, mark: Mark::Ok, text: format!("{} is here", entry.name) }
    } else {
        Finding { what, mark: Mark::Hint, text: format!("`stockade models pull {}` fetches it", entry.name) }
    }
}

fn components() -> Finding {
    let what = "components";
    let shipped = embedded::SHIPPED.len();
    if embedded::MISSING.is_empty() {
        return Finding { what, mark: Mark::Ok, text: format!("{shipped} shipped") };
    }
    let missing = embedded::MISSING.join(", ");
    let text = format!("{shipped} shipped; left out when this binary was built: {missing}");
    Finding { what, mark: Mark::Hint, text }
}

fn command(what: &'static str, program: &str, args: &[&str], hint: &str) -> Finding {
    match Command::new(program).args(args).output() {
        Ok(out) if out.status.success() => {
            Finding { what, mark: Mark::Ok, text: String::from_utf8_lossy(&out.stdout).trim().to_string() }
        }
        _ => Finding { what, mark: Mark::Hint, text: hint.into() },
    }
}

fn server(client: &Client) -> Finding {
    match client.get("/health") {
        Ok(_) => Finding { what: "server", mark: Mark::Ok, text: format!("ready at {}", client.url()) },
        Err(f) if f.exit == Exit::NoServer => {
            Finding { what: "server", mark: Mark::Hint, text: format!("none at {}", client.url()) }
        }
        Err(f) => Finding { what: "server", mark: Mark::Bad, text: f.message },
    }
}
