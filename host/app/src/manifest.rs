//! The manifest inside a component: the custom section `stockade:manifest` that `stockade build` writes from
//! `component.toml`.

use crate::failure::Failure;
use serde_json::Value;
use std::path::Path;

pub const SECTION: &str = "stockade:manifest";
const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
/// Largest manifest in bytes.
const MAX_BYTES: usize = 64 << 10;

/// What the commands read of it; the host reads the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub name: Option<String>,
    pub version: Option<String>,
}

impl Manifest {
    /// The manifest of a component, empty where it has none.
    pub fn of_component(bytes: &[u8]) -> Self {
        let json = section(bytes).and_then(|s| serde_json::from_slice::<Value>(s).ok()).unwrap_or(Value::Null);
        let field = |name: &str| json[name].as_str().map(str::to_string);
        Self { name: field("name"), version: field("version") }
    }
}

/// Reads `component.toml` as the JSON that goes into the section.
pub fn read_toml(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let table: toml::Table = text.parse().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let json = serde_json::to_value(table).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    for field in ["name", "version"] {
        if !json[field].is_string() {
            return Err(Failure::usage(format!("{}: `{field}` is missing", path.display())));
        }
    }
    Ok(json)
}

/// The component with this manifest in place of any it had.
pub fn embed(component: &[u8], manifest: &Value) -> Result<Vec<u8>, Failure> {
    if !component.starts_with(HEADER) {
        return Err(Failure::usage("not a WebAssembly component"));
    }
    let json = manifest.to_string();
    if json.len() > MAX_BYTES {
        return Err(Failure::usage(format!("the manifest exceeds {MAX_BYTES} bytes")));
    }
    let mut out = HEADER.to_vec();
    for part in Sections(&component[HEADER.len()..]) {
        if part.id != 0 || custom_name(part.body) != Some(SECTION.as_bytes()) {
            out.extend_from_slice(part.whole);
        }
    }
    let mut body = leb128(SECTION.len());
    body.extend_from_slice(SECTION.as_bytes());
    body.extend_from_slice(json.as_bytes());
    out.push(0);
    out.extend(leb128(body.len()));
    out.extend(body);
    Ok(out)
}

fn section(bytes: &[u8]) -> Option<&[u8]> {
    let sections = Sections(bytes.strip_prefix(HEADER)?);
    let found = sections.filter(|s| s.id == 0).find(|s| custom_name(s.body) == Some(SECTION.as_bytes()))?;
    let (length, used) = read_leb128(found.body)?;
    found.body.get(used + length..).filter(|json| json.len() <= MAX_BYTES)
}

fn custom_name(body: &[u8]) -> Option<&[u8]> {
    let (length, used) = read_leb128(body)?;
    body.get(used..used.checked_add(length)?)
}

struct Section<'a> {
    id: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

/// The top-level sections; ends at the first that does not fit.
struct Sections<'a>(&'a [u8]);

impl<'a> Iterator for Sections<'a> {
    type Item = Section<'a>;
    fn next(&mut self) -> Option<Section<'a>> {
        let (&id, rest) = self.0.split_first()?;
        let (length, used) = read_leb128(rest)?;
        let body = rest.get(used..used.checked_add(length)?)?;
        let whole = &self.0[..1 + used + length];
        self.0 = &self.0[whole.len()..];
        Some(Section { id, body, whole })
    }
}

fn leb128(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n == 0 { byte } else { byte | 0x80 });
        if n == 0 {
            return out;
        }
    }
}

fn read_leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedding_twice_keeps_one_manifest_and_all_else() {
        let mut component = HEADER.to_vec();
        component.extend([1, 3, 9, 9, 9]);
        let once = embed(&component, &json!({"name": "a", "version": "1"})).unwrap();
        let twice = embed(&once, &json!({"name": "b", "version": "2"})).unwrap();
        assert_eq!(Manifest::of_component(&twice), Manifest { name: Some("b".into()), version: Some("2".into()) });
        assert_eq!(once.len(), twice.len());
        assert!(twice.starts_with(&component));
    }

    #[test]
    fn foreign_bytes_have_no_manifest() {
        for bytes in [&b""[..], b"\0asm", HEADER, b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\x0f"] {
            assert_eq!(Manifest::of_component(bytes), Manifest::default());
        }
        assert!(embed(b"nonsense", &json!({})).is_err());
    }
}
