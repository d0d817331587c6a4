//! A Llama checkpoint that behaves as Llama Guard does, with weights set by hand: one layer whose only head looks for the
//! word "poison" anywhere before, and an output that spells the verdict a token at a time.
//!
//! What it shows is the way, not a judgement: prompt, control tokens, probabilities and answer are real, and no weights
//! have to be fetched. Tokenizer: that of the fixture `llama32-tiny` with four words more.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Channels; the one head is as wide.
const WIDTH: usize = 64;
/// Every token's.
const ALWAYS: usize = 0;
/// Of one token each, from here on.
const LINE_FEEDS: usize = 1;
const UNSAFE: usize = 2;
const LINE_FEED: usize = 3;
const LETTER: usize = 4;
const DIGIT: usize = 5;
const SAFE: usize = 6;
const POISON: usize = 7;
/// What the head has found.
const FOUND: usize = 8;
/// A channel that rotates by less than a hundredth over the whole context.
const STILL: usize = WIDTH / 2 - 1;

/// The tokens of the vocabulary that mean something to it, in its byte-level spelling, and their channels.
const TOKENS: [(&str, usize); 4] =
    [("\u{10a}\u{10a}", LINE_FEEDS), ("\u{10a}", LINE_FEED), ("S", LETTER), ("2", DIGIT)];
/// The words that it has besides.
const WORDS: [(&str, usize); 4] = [("unsafe", UNSAFE), ("safe", SAFE), ("poison", POISON), ("Poison", POISON)];
const END_OF_TURN: usize = 1006;

/// Writes the model into `folder`. `fixture`: the folder of `llama32-tiny`.
pub fn write(folder: &Path, fixture: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let read = |name: &str| -> Result<Value> {
        let path = fixture.join(name);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let mut tokenizer = read("tokenizer.json")?;
    let id = |text: &str| tokenizer["model"]["vocab"][text].as_u64().map(|id| id as usize);
    let known: Option<Vec<_>> = TOKENS.iter().map(|(text, channel)| Some((id(text)?, *channel))).collect();
    let mut ids = known.context("the vocabulary has them")?;
    let added = tokenizer["added_tokens"].as_array_mut().context("a list of added tokens")?;
    for (text, channel) in WORDS {
        let id = added.last().and_then(|last| last["id"].as_u64()).context("an id")? + 1;
        added.push(json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false}));
        ids.push((id as usize, channel));
    }
    let size = ids.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
    let mut config = read("config.json")?;
    for (key, value) in [
        ("vocab_size", json!(size)),
        ("hidden_size", json!(WIDTH)),
        ("head_dim", json!(WIDTH)),
        ("intermediate_size", json!(WIDTH)),
        ("num_hidden_layers", json!(1)),
        ("num_attention_heads", json!(1)),
        ("num_key_value_heads", json!(1)),
        ("tie_word_embeddings", json!(false)),
        ("rope_scaling", Value::Null),
    ] {
        config[key] = value;
    }
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    std::fs::copy(fixture.join("tokenizer_config.json"), folder.join("tokenizer_config.json"))?;
    std::fs::write(folder.join("model.safetensors"), safetensors(&weights(size, &ids)))?;
    Ok(())
}

struct Matrix {
    name: &'static str,
    rows: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn zero(name: &'static str, rows: usize) -> Self {
        Self { name, rows, values: vec![0.0; rows * WIDTH] }
    }
    fn set(mut self, row: usize, column: usize, value: f32) -> Self {
        self.values[row * WIDTH + column] = value;
        self
    }
}

fn weights(size: usize, ids: &[(usize, usize)]) -> Vec<Matrix> {
    let mut embedding = Matrix::zero("model.embed_tokens.weight", size);
    for token in 0..size {
        embedding = embedding.set(token, ALWAYS, 1.0);
    }
    for &(token, channel) in ids {
        embedding = embedding.set(token, channel, 1.0);
    }
    let of = |channel: usize| ids.iter().find(|(_, c)| *c == channel).map_or(0, |(token, _)| *token);
    // After two line feeds: `safe`, unless poison was found. After `unsafe`: a line feed, an S, a 2 and the end.
    let head = Matrix::zero("lm_head.weight", size)
        .set(of(SAFE), LINE_FEEDS, 10.0)
        .set(of(UNSAFE), LINE_FEEDS, 5.0)
        .set(of(UNSAFE), FOUND, 10.0)
        .set(of(LINE_FEED), UNSAFE, 100.0)
        .set(of(LETTER), LINE_FEED, 100.0)
        .set(of(DIGIT), LETTER, 100.0)
        .set(END_OF_TURN, DIGIT, 100.0)
        .set(END_OF_TURN, SAFE, 100.0);
    let ones = |name| Matrix { name, rows: 1, values: vec![1.0; WIDTH] };
    vec![
        embedding,
        ones("model.layers.0.input_layernorm.weight"),
        Matrix::zero("model.layers.0.self_attn.q_proj.weight", WIDTH).set(STILL, ALWAYS, 10.0),
        Matrix::zero("model.layers.0.self_attn.k_proj.weight", WIDTH).set(STILL, POISON, 10.0),
        Matrix::zero("model.layers.0.self_attn.v_proj.weight", WIDTH).set(0, POISON, 1.0),
        Matrix::zero("model.layers.0.self_attn.o_proj.weight", WIDTH).set(FOUND, 0, 1.0),
        ones("model.layers.0.post_attention_layernorm.weight"),
        Matrix::zero("model.layers.0.mlp.gate_proj.weight", WIDTH),
        Matrix::zero("model.layers.0.mlp.up_proj.weight", WIDTH),
        Matrix::zero("model.layers.0.mlp.down_proj.weight", WIDTH),
        ones("model.norm.weight"),
        head,
    ]
}

fn safetensors(matrices: &[Matrix]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for Matrix { name, rows, values } in matrices {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let shape = if *rows == 1 { json!([WIDTH]) } else { json!([rows, WIDTH]) };
        header.insert((*name).into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}
