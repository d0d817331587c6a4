//! `stockade new`, `build`, `test` and `watch`: the way of a plugin author.
//!
//! A plugin is a folder with a `component.toml`: the manifest, and in `[build]` how to build it, whatever the language:
//! `prepare` and `command` are run in the folder, `output` is the component they leave. `[test] command` runs the
//! language's own tests; the cases in `tests/*.json` run against the built component under the host's own limits.

use super::component::{Push, push};
use crate::cli::{Build, Kind, Language, New, Watch};
use crate::client::Client;
use crate::embedded;
use crate::failure::{Exit, Failure};
use crate::manifest;
use crate::output::{Output, fields};
use clap::ValueEnum;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where `stockade build` leaves the component with its manifest.
const BUILT: &str = "build";

pub fn new(options: &New, output: Output) -> Result<(), Failure> {
    stockade_core::id::ComponentName::new(&options.name).map_err(|e| Failure::usage(e.to_string()))?;
    let folder = PathBuf::from(&options.name);
    if folder.exists() {
        return Err(Failure::new(Exit::Refused, format!("{} exists already", folder.display())));
    }
    let language = value_name(options.lang);
    let kind = value_name(options.kind);
    let files = template(&language, &kind, &options.name)
        .ok_or_else(|| Failure::usage(format!("there is no {language} template for a {kind}; {}", kinds(&language))))?;
    for (path, bytes) in &files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        std::fs::write(path, bytes)?;
    }
    let made =
        json!({"name": options.name, "kind": kind, "language": language, "folder": folder, "files": files.len()});
    output.document(&made, |_| {
        let (n, role) = (&options.name, role_of(&kind, &options.name));
        format!(
            "{n}/ is a {language} {kind}. Next:\n  cd {n}\n  stockade build\n  stockade test\n  \
             stockade component push --grant-wanted --bind {role}\nIts README.md says what to change."
        )
    });
    Ok(())
}

/// What a plugin of this kind is bound to.
fn role_of(kind: &str, name: &str) -> String {
    match kind {
        "shield" => "shield.output".into(),
        "tool" | "toolset" => format!("tool/{name}"),
        "reward-scorer" => format!("reward/{name}"),
        "evaluator" | "generator" => format!("{kind}/{name}"),
        role => role.into(),
    }
}

/// Builds the plugin and answers with the component's path and digest.
pub fn build(options: &Build, output: Output) -> Result<(), Failure> {
    let built = build_in(&options.folder)?;
    output.document(&built.describe(), fields);
    Ok(())
}

pub fn test(options: &Build, output: Output) -> Result<(), Failure> {
    let report = test_in(&options.folder)?;
    output.document(&report.json(), |_| report.text());
    if report.failed() { Err(Failure::new(Exit::Failed, "a test failed")) } else { Ok(()) }
}

/// Builds and tests whenever the content of a source file changes; ends with Ctrl-C.
pub fn watch(options: &Watch, client: &Client, output: Output) -> Result<(), Failure> {
    let mut seen = None;
    loop {
        let now = sources_digest(&options.build.folder)?;
        if seen.as_ref() != Some(&now) {
            seen = Some(now);
            match watch_once(options, client) {
                Ok(done) => output.line(&done, |d| format!("built {}", d["digest"].as_str().unwrap_or_default())),
                Err(failure) => eprintln!("{failure}"),
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn watch_once(options: &Watch, client: &Client) -> Result<Value, Failure> {
    let report = test_in(&options.build.folder)?;
    if report.failed() {
        return Err(Failure::new(Exit::Failed, report.text()));
    }
    let built = build_in(&options.build.folder)?;
    if let Some(role) = &options.bind {
        let version = built.digest[..12].to_string();
        let options = Push { name: None, version: Some(version), grant_wanted: true, bind: Some(role.clone()) };
        push(client, &built.path, &options)?;
    }
    Ok(built.describe())
}

pub struct Built {
    pub name: String,
    pub path: PathBuf,
    pub digest: String,
    size_bytes: usize,
}

impl Built {
    fn describe(&self) -> Value {
        json!({"path": self.path, "digest": self.digest, "name": self.name, "size_bytes": self.size_bytes})
    }
}

/// What `stockade build` made in `folder`.
pub fn built_component(folder: &Path) -> Result<PathBuf, Failure> {
    let name = read_manifest(folder)?["name"].as_str().unwrap_or_default().to_string();
    let path = folder.join(BUILT).join(format!("{name}.wasm"));
    if path.is_file() {
        Ok(path)
    } else {
        Err(Failure::not_found(format!("{} is not there: run `stockade build` first", path.display())))
    }
}

pub fn build_in(folder: &Path) -> Result<Built, Failure> {
    let mut manifest = read_manifest(folder)?;
    let how = manifest["build"].clone();
    if let Some(map) = manifest.as_object_mut() {
        map.remove("build");
        map.remove("test");
    }
    if how["prepare"].is_array() {
        run(folder, &how["prepare"], "build.prepare")?;
    }
    run(folder, &how["command"], "build.command")?;
    let output = inside(folder, how["output"].as_str().unwrap_or_default())?;
    let bytes = std::fs::read(&output)
        .map_err(|e| Failure::new(Exit::Failed, format!("the build left no {}: {e}", output.display())))?;
    let component = manifest::embed(&bytes, &manifest)?;
    let name = manifest["name"].as_str().unwrap_or_default().to_string();
    let path = folder.join(BUILT).join(format!("{name}.wasm"));
    std::fs::create_dir_all(folder.join(BUILT))?;
    std::fs::write(&path, &component)?;
    let digest = Sha256::digest(&component).iter().map(|b| format!("{b:02x}")).collect();
    Ok(Built { name, path, digest, size_bytes: component.len() })
}

/// What the tests said.
pub struct Report {
    native: Option<bool>,
    cases: Vec<crate::cases::Outcome>,
}

impl Report {
    fn failed(&self) -> bool {
        self.native == Some(false) || self.cases.iter().any(|c| c.failure.is_some())
    }
    fn json(&self) -> Value {
        json!({"native_tests_passed": self.native, "passed": self.cases.iter().filter(|c| c.failure.is_none()).count(),
            "failed": self.cases.iter().filter(|c| c.failure.is_some()).count(),
            "cases": self.cases.iter().map(|c| json!({"name": c.name, "failure": c.failure})).collect::<Vec<_>>()})
    }
    fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(passed) = self.native {
            lines.push(format!("{}  the language's own tests", if passed { "ok    " } else { "FAILED" }));
        }
        for case in &self.cases {
            match &case.failure {
                None => lines.push(format!("ok      {}", case.name)),
                Some(why) => lines.push(format!("FAILED  {}\n        {why}", case.name)),
            }
        }
        if lines.is_empty() {
            lines.push("no tests: put cases into tests/*.json".into());
        }
        lines.join("\n")
    }
}

fn test_in(folder: &Path) -> Result<Report, Failure> {
    let built = build_in(folder)?;
    let how = read_manifest(folder)?["test"]["command"].clone();
    let native = if how.is_array() { Some(run(folder, &how, "test.command").is_ok()) } else { None };
    let cases = crate::cases::run_folder(&folder.join("tests"), &built)?;
    Ok(Report { native, cases })
}

fn read_manifest(folder: &Path) -> Result<Value, Failure> {
    let path = folder.join("component.toml");
    if !path.is_file() {
        return Err(Failure::usage(format!(
            "{} is no plugin: it has no component.toml (make one with `stockade new`)",
            folder.display()
        )));
    }
    manifest::read_toml(&path)
}

/// Runs one of the manifest's commands in the plugin's folder, its output on our stderr.
fn run(folder: &Path, command: &Value, key: &str) -> Result<(), Failure> {
    let words: Vec<&str> = command.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [program, args @ ..] = words.as_slice() else {
        return Err(Failure::usage(format!("component.toml: `{key}` is not a list of words")));
    };
    let shown = words.join(" ");
    eprintln!("+ {shown}");
    let status = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|e| Failure::new(Exit::Failed, format!("{program} could not be started: {e}")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(Exit::Failed, format!("`{shown}` ended with {status}"))) }
}

fn inside(folder: &Path, relative: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(relative);
    if relative.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Failure::usage("component.toml: `build.output` is not a path inside of the folder"));
    }
    Ok(folder.join(path))
}

/// A template's files with its placeholders filled in: what all kinds of a language share, then the kind's own.
fn template(language: &str, kind: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let own = format!("guest-sdk/templates/{language}/{kind}/");
    let shared = format!("guest-sdk/templates/{language}/common/");
    if !embedded::SDK.iter().any(|(path, _)| path.starts_with(&own)) {
        return None;
    }
    let mut files = BTreeMap::new();
    for prefix in [&shared, &own] {
        for (path, bytes) in embedded::SDK {
            if let Some(path) = path.strip_prefix(prefix.as_str()) {
                // A file that tools would take for their own inside of the repository has a `.in` at its end.
                let path = path.strip_suffix(".in").unwrap_or(path);
                files.insert(path.to_string(), fill(bytes, name));
            }
        }
    }
    for (path, bytes) in embedded::SDK {
        if let Some(path) = path.strip_prefix("wit/v0.1/") {
            files.insert(format!("wit/{path}"), bytes.to_vec());
        }
        if let Some(path) = path.strip_prefix("guest-sdk/rust/")
            && language == "rust"
        {
            files.insert(format!("vendor/stockade-guest/{path}"), bytes.to_vec());
        }
    }
    Some(files)
}

fn fill(bytes: &[u8], name: &str) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.replace("{{name}}", name).replace("{{crate}}", &name.replace(['-', '.'], "_")).into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

fn kinds(language: &str) -> String {
    let known = Kind::value_variants().iter().map(|k| value_name(*k));
    let known: Vec<String> = known.filter(|k| template(language, k, "x").is_some()).collect();
    let others: Vec<String> = Language::value_variants().iter().map(|l| value_name(*l)).collect();
    format!("{language} has {}; languages are {}", known.join(", "), others.join(", "))
}

fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
}

/// A digest of all source files, build output left out: a rebuild that touches a file without changing it is no change.
fn sources_digest(folder: &Path) -> Result<String, Failure> {
    fn walk(folder: &Path, depth: u8, hasher: &mut Sha256) -> std::io::Result<()> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.')
                || ["target", BUILT, "node_modules", "__pycache__", "vendor"].contains(&name.as_str())
            {
                continue;
            }
            if path.is_dir() && depth < 16 {
                walk(&path, depth + 1, hasher)?;
            } else if path.is_file() {
                hasher.update(name.as_bytes());
                hasher.update(std::fs::read(&path)?);
            }
        }
        Ok(())
    }
    let mut hasher = Sha256::new();
    walk(folder, 0, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
