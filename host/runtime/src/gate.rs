//! The static gate: one pass over an upload that counts, names and refuses before anything is compiled.
//!
//! Invariant: the pass takes time and memory in proportion to the upload. It cannot foresee every expensive function;
//! that is what the compiler's own limits are for.

use crate::exports::KINDS;
use crate::host::OFFERED;
use serde::Deserialize;
use serde_json::Value;
use stockade_core::limits::Limits;
use stockade_core::plugin::{Grants, PluginKind, Reason};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// Largest `stockade:manifest` section.
const MAX_MANIFEST_BYTES: usize = 64 << 10;

/// What may be counted in an upload. Honest guests in four languages stay well below (seen most: in brackets).
const MAX_DEPTH: u32 = 12; // 4
const MAX_FUNCTIONS: u64 = 50_000; // 13,491
const MAX_BODY_BYTES: u64 = 512 << 10; // 426,843
const MAX_LOCALS: u64 = 1_000; // 271
const MAX_MODULES: u64 = 64; // 38
const MAX_INSTANCES: u64 = 256; // 108
const MAX_IMPORTS: u64 = 8_000; // 2,468
const MAX_EXPORTS: u64 = 8_000; // 4,495
const MAX_MEMORIES: u64 = 8; // 3
const MAX_TABLES: u64 = 16; // 3
const MAX_DATA_SEGMENTS: u64 = 100_000; // 10,000

/// What an upload says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    pub kinds: Vec<PluginKind>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub wanted: Grants,
    pub manifest: Value,
    pub warnings: Vec<String>,
}

/// The fields of a manifest that the host acts on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    grants: Option<Grants>,
    limits: Option<Limits>,
}

/// Looks at an upload without compiling anything.
///
/// # Errors
/// All that is wrong as far as the pass gets.
pub fn inspect(bytes: &[u8]) -> Result<Inspected, Vec<Reason>> {
    if bytes.is_empty() {
        return Err(vec![no_component("byte 0", "nothing: the upload is empty".into())]);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(vec![no_component("byte 0", "bytes that are not binary WebAssembly".into())]);
    }
    let mut pass = Pass::default();
    if let Err(reason) = pass.walk(bytes) {
        return Err(vec![reason]);
    }
    // Depth and sizes are bounded now, so the full validation is cheap.
    if let Err(e) = Validator::new_with_features(features()).validate_all(bytes) {
        return Err(vec![Reason {
            at: format!("byte {}", e.offset()),
            found: e.message().to_string(),
            expected: "a valid component".into(),
        }]);
    }
    pass.finish()
}

/// What the engine runs.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
        | WasmFeatures::CM_ASYNC
}

#[derive(Default)]
struct Pass {
    depth: u32,
    counts: Counts,
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<Vec<u8>>,
    component: bool,
}

#[derive(Default)]
struct Counts {
    functions: u64,
    modules: u64,
    instances: u64,
    imports: u64,
    exports: u64,
    memories: u64,
    tables: u64,
    data: u64,
}

impl Pass {
    fn walk(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|e| no_component_at(e.offset(), e.message().into()))?;
            self.payload(&payload)?;
        }
        Ok(())
    }

    fn payload(&mut self, payload: &Payload) -> Result<(), Reason> {
        let top = self.depth <= 1;
        let c = &mut self.counts;
        let parse = |e: wasmparser::BinaryReaderError| no_component_at(e.offset(), e.message().into());
        match payload {
            Payload::Version { encoding, range, .. } => {
                if self.depth == 0 {
                    if *encoding != Encoding::Component {
                        return Err(no_component("byte 0", "a core module".into()));
                    }
                    self.component = true;
                }
                self.depth = self.depth.saturating_add(1);
                bounded(self.depth.into(), MAX_DEPTH.into(), "levels of nesting", range.start)?;
            }
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::FunctionSection(s) => {
                let at = s.range().start;
                add(&mut c.functions, s.count(), MAX_FUNCTIONS, "functions", at)?;
            }
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                let size = range.len() as u64;
                bounded(size, MAX_BODY_BYTES, "bytes in one function", range.start)?;
                let mut locals = 0u64;
                for group in body.get_locals_reader().map_err(parse)? {
                    let (n, _) = group.map_err(parse)?;
                    add(&mut locals, n, MAX_LOCALS, "locals in one function", range.start)?;
                }
            }
            Payload::ModuleSection { unchecked_range, .. } => {
                let at = unchecked_range.start;
                add(&mut c.modules, 1, MAX_MODULES, "core modules", at)?;
            }
            Payload::InstanceSection(s) => {
                let at = s.range().start;
                add(&mut c.instances, s.count(), MAX_INSTANCES, "core instances", at)?;
            }
            Payload::ComponentInstanceSection(s) => {
                let at = s.range().start;
                add(&mut c.instances, s.count(), MAX_INSTANCES, "instances", at)?;
            }
            Payload::ImportSection(s) => {
                let at = s.range().start;
                add(&mut c.imports, s.count(), MAX_IMPORTS, "imports", at)?;
            }
            Payload::ExportSection(s) => {
                let at = s.range().start;
                add(&mut c.exports, s.count(), MAX_EXPORTS, "exports", at)?;
            }
            Payload::MemorySection(s) => {
                let at = s.range().start;
                add(&mut c.memories, s.count(), MAX_MEMORIES, "memories", at)?;
            }
            Payload::TableSection(s) => {
                let at = s.range().start;
                add(&mut c.tables, s.count(), MAX_TABLES, "tables", at)?;
            }
            Payload::DataSection(s) => {
                let at = s.range().start;
                add(&mut c.data, s.count(), MAX_DATA_SEGMENTS, "data segments", at)?;
            }
            Payload::ComponentImportSection(s) => {
                let at = s.range().start;
                add(&mut c.imports, s.count(), MAX_IMPORTS, "imports", at)?;
                if top {
                    for import in s.clone() {
                        self.imports.push(import.map_err(parse)?.name.name.to_string());
                    }
                }
            }
            Payload::ComponentExportSection(s) => {
                let at = s.range().start;
                add(&mut c.exports, s.count(), MAX_EXPORTS, "exports", at)?;
                if top {
                    for export in s.clone() {
                        self.exports.push(export.map_err(parse)?.name.name.to_string());
                    }
                }
            }
            Payload::CustomSection(s) if top && s.name() == "stockade:manifest" => {
                let size = s.data().len() as u64;
                bounded(size, MAX_MANIFEST_BYTES as u64, "bytes of manifest", s.data_offset())?;
                if self.manifest.replace(s.data().to_vec()).is_some() {
                    return Err(Reason {
                        at: format!("byte {}", s.data_offset()),
                        found: "a second `stockade:manifest` section".into(),
                        expected: "at most one".into(),
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Inspected, Vec<Reason>> {
        let mut reasons: Vec<Reason> = self.imports.iter().filter_map(|i| refused(i)).collect();
        let (manifest, acted_on) = match self.manifest.as_deref().map(manifest) {
            None => (Value::Null, Manifest::default()),
            Some(Ok(read)) => read,
            Some(Err(reason)) => {
                reasons.push(reason);
                (Value::Null, Manifest::default())
            }
        };
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let exported = |name: &str| self.exports.iter().any(|e| e == name);
        let kinds: Vec<PluginKind> = KINDS.iter().filter(|(name, _)| exported(name)).map(|(_, kind)| *kind).collect();
        let mut warnings = Vec::new();
        if kinds.is_empty() {
            warnings.push("it exports no interface of the plugin API: it can be invoked, but not bound".into());
        }
        let mut wanted = acted_on.grants.unwrap_or_else(|| wanted_by_imports(&self.imports));
        wanted.limits = wanted.limits.or(acted_on.limits);
        Ok(Inspected { kinds, imports: self.imports, exports: self.exports, wanted, manifest, warnings })
    }
}

fn manifest(bytes: &[u8]) -> Result<(Value, Manifest), Reason> {
    let bad = |found: String| Reason {
        at: "section stockade:manifest".into(),
        found,
        expected: "a JSON object as `stockade build` writes it".into(),
    };
    let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(format!("no JSON: {e}")))?;
    if !value.is_object() {
        return Err(bad("JSON, but no object".into()));
    }
    let acted_on = Manifest::deserialize(&value).map_err(|e| bad(e.to_string()))?;
    Ok((value, acted_on))
}

/// Whether the host lacks what is imported under `name`.
fn refused(name: &str) -> Option<Reason> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let served =
        if interface.starts_with("stockade:") { version.starts_with("0.1.") } else { version.starts_with("0.2.") };
    if OFFERED.contains(&interface) && served {
        return None;
    }
    let found = match interface.split_once('/') {
        Some((package @ "wasi:sockets", _)) => format!("`{name}`: components have no {package}"),
        _ => format!("`{name}`, which this host does not offer"),
    };
    Some(Reason {
        at: format!("import {name}"),
        found,
        expected: "interfaces of stockade:plugin@0.1.0, and of WASI 0.2: io, clocks, random, \
                   filesystem, cli"
            .into(),
    })
}

/// What a component needs in order to use all that it imports.
fn wanted_by_imports(imports: &[String]) -> Grants {
    let mut wanted = Grants::default();
    let all = || vec!["*".to_string()];
    for import in imports {
        let interface = import.split_once('@').map_or(import.as_str(), |(i, _)| i);
        match interface {
            "stockade:plugin/inference" => wanted.models = all(),
            "stockade:plugin/state" | "stockade:plugin/vectors" => wanted.buckets = all(),
            "stockade:plugin/secrets" => wanted.secrets = all(),
            "stockade:plugin/http" => wanted.http = all(),
            "stockade:plugin/datasets" => wanted.datasets = all(),
            "stockade:plugin/jobs" => wanted.jobs = all(),
            "stockade:plugin/tools" => wanted.components.push("tool/*".into()),
            "stockade:plugin/shields" => {
                wanted.components.push("shield.input".into());
                wanted.components.push("shield.output".into());
            }
            "stockade:plugin/prompt-store" => wanted.components.push("prompt-store".into()),
            "stockade:plugin/memory" => wanted.components.push("memory".into()),
            _ => {}
        }
    }
    wanted
}

fn add(sum: &mut u64, more: u32, limit: u64, what: &str, at: usize) -> Result<(), Reason> {
    *sum = sum.saturating_add(more.into());
    bounded(*sum, limit, what, at)
}

fn bounded(found: u64, limit: u64, what: &str, at: usize) -> Result<(), Reason> {
    if found <= limit {
        return Ok(());
    }
    Err(Reason { at: format!("byte {at}"), found: format!("{found} {what}"), expected: format!("at most {limit}") })
}

fn no_component(at: &str, found: String) -> Reason {
    Reason { at: at.into(), found, expected: "a WebAssembly component in binary form".into() }
}

fn no_component_at(offset: usize, found: String) -> Reason {
    no_component(&format!("byte {offset}"), found)
}
