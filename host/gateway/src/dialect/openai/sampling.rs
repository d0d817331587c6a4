//! Sampling fields that chat completions and completions share, vLLM's extras included.

use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::Value;
use stockade_core::infer::Sampling;

/// Most stop sequences and the longest in bytes, as the engine takes them.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Most tokens with a bias.
const MAX_BIASED: usize = 4096;
/// Most alternatives with their log-probability.
pub const MAX_TOP_LOGPROBS: i64 = 20;
/// Most choices of a request.
const MAX_CHOICES: i64 = 8;

/// Everything but the bound on tokens and `logprobs`, which the two routes spell differently.
pub fn read(f: &Fields) -> Result<Sampling, ApiError> {
    let d = Sampling::default();
    let top_p = f.number("top_p", 0.0..=1.0)?.unwrap_or(d.top_p);
    // vLLM writes "all" as -1 or 0.
    let top_k = f.integer("top_k", -1..=i64::from(u32::MAX))?.unwrap_or(0);
    let repetition = f.number("repetition_penalty", 0.0..=10.0)?;
    if repetition == Some(0.0) {
        return Err(f.wrong("repetition_penalty", "must be over 0"));
    }
    Ok(Sampling {
        max_tokens: None,
        temperature: f.number("temperature", 0.0..=2.0)?.unwrap_or(d.temperature),
        top_k: u32::try_from(top_k.max(0)).unwrap_or(0),
        // 0 keeps the likeliest alone, as the smallest positive mass does.
        top_p: top_p.max(1e-6),
        min_p: f.number("min_p", 0.0..=1.0)?.unwrap_or(d.min_p),
        repetition_penalty: repetition.unwrap_or(d.repetition_penalty),
        frequency_penalty: f.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(d.frequency_penalty),
        presence_penalty: f.number("presence_penalty", -2.0..=2.0)?.unwrap_or(d.presence_penalty),
        logit_bias: logit_bias(f)?,
        seed: f.integer("seed", i64::MIN..=i64::MAX)?.map(|s| s.cast_unsigned()),
        stop: stop(f)?,
        ignore_eos: f.bool("ignore_eos")?.unwrap_or(false),
        logprobs: None,
    })
}

pub fn choices(f: &Fields) -> Result<usize, ApiError> {
    let n = f.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1);
    Ok(usize::try_from(n).unwrap_or(1))
}

/// A bound on new tokens, at least `min`.
pub fn max_tokens(f: &Fields, name: &str, min: i64) -> Result<Option<u32>, ApiError> {
    let n = f.integer(name, min..=i64::from(u32::MAX))?;
    Ok(n.and_then(|n| u32::try_from(n).ok()))
}

/// Whether to stream, and whether the stream ends with usage.
pub fn stream(f: &Fields) -> Result<(bool, bool), ApiError> {
    let stream = f.bool("stream")?.unwrap_or(false);
    let Some(options) = f.object("stream_options")? else {
        return Ok((stream, false));
    };
    if !stream {
        return Err(f.wrong("stream_options", "is only allowed with `stream`"));
    }
    Ok((true, options.bool("include_usage")?.unwrap_or(false)))
}

fn stop(f: &Fields) -> Result<Vec<String>, ApiError> {
    let stops: Vec<String> = match f.value("stop") {
        None => Vec::new(),
        Some(Value::String(s)) => vec![s.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|s| s.as_str().map(String::from))
            .collect::<Option<_>>()
            .ok_or_else(|| f.wrong("stop", "must be a string or an array of strings"))?,
        Some(_) => return Err(f.wrong("stop", "must be a string or an array of strings")),
    };
    let sound = |s: &String| !s.is_empty() && s.len() <= MAX_STOP_BYTES;
    if stops.len() > MAX_STOPS || !stops.iter().all(sound) {
        return Err(f.wrong("stop", format!("at most {MAX_STOPS} sequences of 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(stops)
}

fn logit_bias(f: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(bias) = f.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    if bias.map().len() > MAX_BIASED {
        return Err(f.wrong("logit_bias", format!("at most {MAX_BIASED} tokens")));
    }
    bias.iter()
        .map(|(id, _)| {
            let token = id.parse::<u32>().map_err(|_| bias.wrong(id, "is not a token id"))?;
            let value = bias.number(id, -100.0..=100.0)?;
            Ok((token, value.unwrap_or(0.0)))
        })
        .collect()
}
