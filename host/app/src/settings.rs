//! The settings of `serve`: flag over environment over file over default, each known by name, unit and reason.
//!
//! Read once at start; below the binary every setting is a field. Unknown keys are refused with the nearest known one.

use crate::cli::Serve;
use crate::failure::Failure;
use std::collections::BTreeMap;
use std::path::Path;
use stockade_core::spelling::edits;
use toml::Value;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(String),
    Environment(String),
    Flag(&'static str),
}

/// One known setting.
struct Known {
    key: &'static str,
    default: Value,
    unit: &'static str,
    about: &'static str,
}

macro_rules! settings {
    ($($section:ident { $($(#[doc = $about:literal])+ $field:ident: $ty:ty = $default:expr, $unit:literal;)+ })+) => {
        $(
            #[derive(Debug, Clone, PartialEq)]
            #[allow(non_camel_case_types, reason = "a section is named as it is written in the file")]
            pub struct $section { $($(#[doc = $about])+ pub $field: $ty,)+ }
        )+

        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings { $(pub $section: $section,)+ }

        fn known() -> Vec<Known> {
            vec![$($(Known {
                key: concat!(stringify!($section), ".", stringify!($field)),
                default: <$ty as Setting>::to_value($default),
                unit: $unit,
                about: concat!($($about),+).trim_ascii(),
            },)+)+]
        }

        impl Settings {
            fn from_values(values: &Values) -> Result<Self, Failure> {
                Ok(Self { $($section: $section { $($field:
                    values.typed(concat!(stringify!($section), ".", stringify!($field)))?,)+ },)+ })
            }
        }
    };
}

settings! {
    server {
        /// Where it accepts requests.
        listen: String = "127.0.0.1:8321".into(), "address:port";
        /// Largest request body, uploads of components apart.
        max_body_bytes: u64 = 16 << 20, "bytes";
        /// Requests in work at once over all tenants; more wait or are refused.
        max_concurrent_requests: u64 = 512, "requests";
        /// Longest time for one request from its first byte to its last.
        request_timeout_seconds: u64 = 600, "seconds";
        /// How long a stream may wait for a client that does not read.
        write_timeout_seconds: u64 = 30, "seconds";
        /// How long an interrupted turn waits for its answer.
        interruption_seconds: u64 = 86_400, "seconds";
        /// How long running streams may go on after SIGTERM.
        drain_seconds: u64 = 30, "seconds";
    }
    models {
        /// Never pull a model.
        offline: bool = false, "";
        /// The hub that models are pulled from.
        hub_endpoint: String = String::new(), "URL, empty: the default hub";
        /// Worker threads for model computation.
        threads: u64 = 0, "threads, 0: one for each core";
        /// Memory for all models together: weights, caches and scratch.
        memory_bytes: u64 = 0, "bytes, 0: three quarters of what the machine or its control group has";
        /// Requests that may wait for a model; more are refused as overloaded.
        max_queue: u64 = 256, "requests";
        /// Sequences that one model decodes at once.
        max_sequences: u64 = 32, "sequences";
        /// Tokens computed in one step; bounds the delay a long prompt causes to others.
        step_tokens: u64 = 256, "tokens";
    }
    components {
        /// Calls into components at once; more are refused as overloaded.
        max_instances: u64 = 200, "calls";
        /// Threads that run components.
        threads: u64 = 0, "threads, 0: cores less one, at least one";
        /// Largest upload.
        max_upload_bytes: u64 = 64 << 20, "bytes";
        /// Processor time for compiling one upload.
        compile_cpu_seconds: u64 = 60, "seconds";
        /// Memory for compiling one upload.
        compile_memory_bytes: u64 = 1 << 30, "bytes";
        /// Wall time of a call where its grant says nothing else.
        deadline_ms: u64 = 120_000, "milliseconds";
        /// Processor time of a call where its grant says nothing else.
        cpu_ms: u64 = 5_000, "milliseconds";
        /// Memory of a call where its grant says nothing else.
        memory_bytes: u64 = 64 << 20, "bytes";
        /// Folder of compiled components; several servers of one user may share it.
        artifacts: String = String::new(), "folder, empty: in the data folder";
        /// Push and bind the shipped components for the default tenant at its first start.
        bind_shipped: bool = true, "";
    }
    jobs {
        /// Jobs that run at once; 0: this host takes none.
        at_once: u64 = 1, "jobs";
        /// Threads of a running job: the share of the machine that training has beside serving.
        threads: u64 = 0, "threads, 0: half of the cores, at least one";
        /// How much training yields to everything else.
        nice: u64 = 10, "niceness, 0 to 19";
        /// Unfinished jobs of a tenant whose quotas say nothing.
        per_tenant: u64 = 16, "jobs";
    }
    traces {
        /// Traces kept for each tenant.
        keep: u64 = 10_000, "traces";
    }
    log {
        /// `text` for people, `json` for programs.
        format: String = "text".into(), "text or json";
        /// What to log, as `level` or `target=level,...`.
        filter: String = "info".into(), "filter";
    }
}

impl Settings {
    /// Reads all four layers.
    pub fn load(flags: &Serve) -> Result<(Self, Values), Failure> {
        let mut values = Values::defaults();
        if let Some(path) = &flags.config {
            values.read_file(path)?;
        } else if Path::new("stockade.toml").is_file() {
            values.read_file(Path::new("stockade.toml"))?;
        }
        values.read_environment(std::env::vars())?;
        if let Some(listen) = &flags.listen {
            values.set("server.listen", Value::String(listen.clone()), Origin::Flag("--listen"))?;
        }
        if let Some(log) = flags.log {
            let format = if log == crate::cli::LogFormat::Json { "json" } else { "text" };
            values.set("log.format", Value::String(format.into()), Origin::Flag("--log"))?;
        }
        if flags.offline {
            values.set("models.offline", Value::Boolean(true), Origin::Flag("--offline"))?;
        }
        let settings = Self::from_values(&values)?;
        if !["text", "json"].contains(&settings.log.format.as_str()) {
            return Err(Failure::usage(format!("log.format is `{}`, not `text` or `json`", settings.log.format)));
        }
        Ok((settings, values))
    }
}

/// Every known key with its value and origin.
pub struct Values(BTreeMap<&'static str, (Known, Value, Origin)>);

impl Values {
    fn defaults() -> Self {
        Self(
            known()
                .into_iter()
                .map(|k| (k.key, (k.default.clone(), Origin::Default, k)))
                .map(|(key, (v, o, k))| (key, (k, v, o)))
                .collect(),
        )
    }

    fn read_file(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        let table: toml::Table = text.parse().map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        for (section, value) in table {
            let Value::Table(fields) = value else {
                return Err(Failure::usage(format!("{name}: `{section}` stands outside of a section")));
            };
            for (field, value) in fields {
                self.set(&format!("{section}.{field}"), value, Origin::File(name.clone()))
                    .map_err(|f| Failure::usage(format!("{name}: {f}")))?;
            }
        }
        Ok(())
    }

    /// Variables of the form `STOCKADE_SECTION__KEY`.
    fn read_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), Failure> {
        for (name, text) in variables {
            let Some((section, field)) = name.strip_prefix("STOCKADE_").and_then(|n| n.split_once("__")) else {
                continue;
            };
            let key = format!("{}.{}", section.to_lowercase(), field.to_lowercase());
            let value = match self.0.get(key.as_str()).map(|(known, ..)| &known.default) {
                Some(Value::String(_)) | None => Value::String(text),
                Some(_) => text.parse().map_err(|_| Failure::usage(format!("{name}: `{text}` is not a value")))?,
            };
            self.set(&key, value, Origin::Environment(name.clone()))
                .map_err(|f| Failure::usage(format!("{name}: {f}")))?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), Failure> {
        let Some(entry) = self.0.get_mut(key) else {
            let nearest = self.0.keys().min_by_key(|k| edits(k, key)).copied().unwrap_or_default();
            return Err(Failure::usage(format!("`{key}` is not a setting; the nearest is `{nearest}`")));
        };
        if entry.1.type_str() != value.type_str() {
            return Err(Failure::usage(format!("`{key}` is a {}, this is a {}", entry.1.type_str(), value.type_str())));
        }
        (entry.1, entry.2) = (value, origin);
        Ok(())
    }

    fn typed<T: Setting>(&self, key: &'static str) -> Result<T, Failure> {
        let (_, value, _) = self.0.get(key).ok_or_else(|| Failure::usage(format!("`{key}` is not a setting")))?;
        T::from_value(value).ok_or_else(|| Failure::usage(format!("`{key}` = {value} is out of range")))
    }

    /// A stockade.toml with every setting, its unit, meaning and origin; also the reference page of all settings.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for (key, (known, value, origin)) in &self.0 {
            let (this, field) = key.split_once('.').unwrap_or(("", key));
            if this != section {
                section = this;
                out += &format!("{}[{section}]\n", if out.is_empty() { "" } else { "\n" });
            }
            let unit = if known.unit.is_empty() { String::new() } else { format!(" ({})", known.unit) };
            let origin = match origin {
                Origin::Default => "default".to_string(),
                Origin::File(name) => format!("file {name}"),
                Origin::Environment(name) => format!("environment {name}"),
                Origin::Flag(flag) => format!("flag {flag}"),
            };
            out += &format!("# {}{unit}; {origin}\n{field} = {value}\n", known.about);
        }
        out
    }
}

/// A type that a setting can have.
trait Setting: Sized {
    fn to_value(self) -> Value;
    fn from_value(value: &Value) -> Option<Self>;
}

impl Setting for String {
    fn to_value(self) -> Value {
        Value::String(self)
    }
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_string)
    }
}

impl Setting for u64 {
    fn to_value(self) -> Value {
        Value::Integer(i64::try_from(self).unwrap_or(i64::MAX))
    }
    fn from_value(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|i| u64::try_from(i).ok())
    }
}

impl Setting for bool {
    fn to_value(self) -> Value {
        Value::Boolean(self)
    }
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_beats_file_and_the_origin_is_shown() {
        let mut values = Values::defaults();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\ndrain_seconds = 5\nmax_body_bytes = 100\n").unwrap();
        values.read_file(file.path()).unwrap();
        let env = [("STOCKADE_SERVER__DRAIN_SECONDS".to_string(), "7".to_string()), ("PATH".into(), "/bin".into())];
        values.read_environment(env.into_iter()).unwrap();
        let settings = Settings::from_values(&values).unwrap();
        assert_eq!((settings.server.drain_seconds, settings.server.max_body_bytes), (7, 100));
        let text = values.render();
        assert!(text.contains("environment STOCKADE_SERVER__DRAIN_SECONDS\ndrain_seconds = 7"), "{text}");
        text.parse::<toml::Table>().unwrap();
    }

    #[test]
    fn unknown_and_mistyped_keys_are_refused_by_name() {
        let mut values = Values::defaults();
        let e = values.set("server.drain_second", Value::Integer(1), Origin::Default).unwrap_err();
        assert_eq!(e.message, "`server.drain_second` is not a setting; the nearest is `server.drain_seconds`");
        let e = values.set("server.drain_seconds", Value::Boolean(true), Origin::Default).unwrap_err();
        assert_eq!(e.message, "`server.drain_seconds` is a integer, this is a boolean");
        values.set("server.drain_seconds", Value::Integer(-1), Origin::Default).unwrap();
        assert!(Settings::from_values(&values).is_err());
    }
}
