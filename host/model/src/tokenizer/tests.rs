use super::*;
use crate::checkpoint::gguf::{Metadata, Numbers, Strings, Value};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// Reference files live outside of the repository; where there are none the parity tests have nothing to compare with.
fn shared(name: &str) -> Option<PathBuf> {
    crate::reference_file(name)
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Json) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn open(path: &Path) -> Tokenizer {
    Tokenizer::open(&Checkpoint::open(path).unwrap()).unwrap()
}

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSED: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const FRAMED: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

#[test]
fn tiny_llama_vectors_agree_from_json_and_from_gguf() {
    let Some(vectors) = shared("fixtures/llama32-tiny/tokenizer_vectors.json") else {
        return;
    };
    for model in ["llama32-tiny", "llama32-tiny-gguf/llama32-tiny-Q4_0.gguf"] {
        let tokenizer = open(&shared(&format!("fixtures/{model}")).unwrap());
        for vector in json(&vectors).as_array().unwrap() {
            let text = vector["text"].as_str().unwrap();
            let want = ids(&vector["ids"]);
            assert_eq!(tokenizer.encode(text, PARSED).unwrap(), want, "{model}: {text:?}");
            assert_eq!(tokenizer.encode(text, FRAMED).unwrap(), ids(&vector["ids_with_special"]), "{model}: {text:?}");
            assert_eq!(tokenizer.decode(&want, false), vector["decoded_keep_special"].as_str().unwrap(), "{model}");
            assert_eq!(tokenizer.decode(&want, true), vector["decoded_skip_special"].as_str().unwrap(), "{model}");
        }
    }
}

#[test]
fn vocabularies_of_llama_cpp_agree_with_its_vectors() {
    for (name, spaces) in [("gpt-2", true), ("llama-spm", true), ("bert-bge", false)] {
        let Some(file) = shared(&format!("data/tokenizer-vectors/ggml-vocab-{name}.gguf")) else {
            return;
        };
        let tokenizer = open(&file);
        for (text, want) in llama_cpp_vectors(name) {
            let got = tokenizer.encode(&text, PLAIN).unwrap();
            assert_eq!(got, want, "{name}: {text:?}");
            if spaces {
                assert_eq!(tokenizer.decode(&got, false), text, "{name}");
            }
        }
    }
}

#[test]
fn llama_3_agrees_with_its_vectors() {
    let Some(ranks) = shared("data/tokenizer-vectors/llama3-tokenizer.model") else {
        return;
    };
    let tokenizer = Tokenizer::from_gguf(&ranks, &metadata_of_ranks(&ranks)).unwrap();
    for (text, want) in llama_cpp_vectors("llama-bpe") {
        assert_eq!(tokenizer.encode(&text, PLAIN).unwrap(), want, "{text:?}");
        assert_eq!(tokenizer.decode(&want, false), text);
    }
    let lines = |name| {
        let text = std::fs::read_to_string(shared(&format!("data/tokenizer-vectors/{name}.jsonl")).unwrap()).unwrap();
        text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()).collect::<Vec<_>>()
    };
    for (name, options) in [("llama3-extra", PLAIN), ("llama3-special", PARSED)] {
        for vector in lines(name) {
            let text = vector["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, options).unwrap(), ids(&vector["ids"]), "{text:?}");
        }
    }
    // The same text from a user holds no control token and reads back unchanged.
    for vector in lines("llama3-special") {
        let text = vector["text"].as_str().unwrap();
        let got = tokenizer.encode(text, PLAIN).unwrap();
        assert!(got.iter().all(|&id| !tokenizer.is_control(id)), "{text:?}");
        assert_eq!(tokenizer.decode(&got, false), text);
    }
}

#[test]
fn bert_vectors_agree_with_truncation_and_padding_cleared() {
    let Some(expected) = shared("fixtures/bert-tiny/expected.json") else {
        return;
    };
    let tokenizer = open(&shared("fixtures/bert-tiny").unwrap());
    for case in json(&expected)["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let got = tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false }).unwrap();
        let want = ids(&case["input_ids"]);
        if want.len() < 128 {
            assert_eq!(got, want, "{text:?}");
        }
        assert!(got.len() >= want.len());
    }
}

#[test]
fn minilm_vectors_agree() {
    let (Some(expected), Some(model)) =
        (shared("fixtures/minilm-l6/expected.json"), crate::pulled_model("all-MiniLM-L6-v2"))
    else {
        return;
    };
    let tokenizer = open(&model);
    let framed = EncodeOptions { add_special: true, parse_special: false };
    for row in json(&expected)["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, framed).unwrap(), ids(&row["ids"]), "{text:?}");
    }
}

/// A word that no merge covers: digits, spaces, accents, emoji, broken-up characters.
fn awkward() -> Vec<String> {
    let long_spaces = " ".repeat(3000);
    ["", " ", "  x", "\u{2581}", "<0x41>", "naïve 你好 😀", "a\r\n\r\nb\t\tc  d   ", "1234567 89", &long_spaces]
        .map(str::to_owned)
        .to_vec()
}

/// A tiny SentencePiece vocabulary in which merges could spell `<s>`.
fn small_sentencepiece() -> Tokenizer {
    let mut texts = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    let mut types = vec![2, 3, 3];
    for byte in 0..=255u8 {
        texts.push(format!("<0x{byte:02X}>"));
        types.push(6);
    }
    for text in ["<", "s", ">", "<s", "\u{2581}", "\u{2581}s", "a"] {
        texts.push(text.into());
        types.push(1);
    }
    let scores = (0..texts.len()).map(|i| -(i as f32));
    let metadata: Metadata = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.scores", Value::Numbers(scores.collect::<Numbers>())),
        ("tokenizer.ggml.tokens", Value::Strings(texts.iter().collect::<Strings>())),
        ("tokenizer.ggml.token_type", Value::Numbers(types.into_iter().collect::<Numbers>())),
        ("tokenizer.ggml.bos_token_id", Value::Unsigned(1)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    Tokenizer::from_gguf(Path::new("small.gguf"), &metadata).unwrap()
}

#[test]
fn sentencepiece_text_reads_back_and_never_becomes_a_control_token() {
    let tokenizer = small_sentencepiece();
    for text in awkward().iter().map(String::as_str).chain(["<s>", "a<s>a</s>"]) {
        let ids = tokenizer.encode(text, PLAIN).unwrap();
        assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{text:?} became {ids:?}");
        if text != "\u{2581}" {
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
    }
    let parsed = tokenizer.encode("<s>a", FRAMED).unwrap();
    assert_eq!(parsed[..2], [1, 1], "asked for, the frame's BOS and the text's");
}

#[test]
fn a_merge_that_spells_a_control_token_is_cut_apart() {
    // Byte-level BPE whose merges make `<s>`, which is a control token of the same vocabulary.
    let texts = ["<", "s", ">", "<s", "<s>", "a"];
    let metadata: Metadata = [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("llama-bpe".into())),
        ("tokenizer.ggml.tokens", Value::Strings(texts.iter().collect::<Strings>())),
        ("tokenizer.ggml.token_type", Value::Numbers([1, 1, 1, 1, 3, 1].into_iter().collect::<Numbers>())),
        ("tokenizer.ggml.merges", Value::Strings(["< s", "<s >"].iter().collect::<Strings>())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    let tokenizer = Tokenizer::from_gguf(Path::new("small.gguf"), &metadata).unwrap();
    for text in ["<s>", "a<s>a<s>"] {
        let ids = tokenizer.encode(text, PLAIN).unwrap();
        assert!(!ids.contains(&4), "{text:?} became {ids:?}");
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
    assert!(tokenizer.encode("<s>", PARSED).unwrap().contains(&4));
}

#[test]
fn unknown_tokenizers_are_refused_by_name() {
    for (model, pre, name) in [("rwkv", "x", "rwkv"), ("gpt2", "tekken", "tekken")] {
        let metadata: Metadata = [
            ("tokenizer.ggml.model", Value::String(model.into())),
            ("tokenizer.ggml.pre", Value::String(pre.into())),
            ("tokenizer.ggml.tokens", Value::Strings(["a"].iter().collect::<Strings>())),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect();
        let error = Tokenizer::from_gguf(Path::new("x.gguf"), &metadata).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("x.gguf"), "{error}");
    }
}

#[test]
fn text_above_the_limit_is_refused() {
    let tokenizer = small_sentencepiece();
    let text = "a".repeat(MAX_TEXT_BYTES + 1);
    let error = tokenizer.encode(&text, PLAIN).unwrap_err();
    assert_eq!(error, TokenizeError::TooLong { bytes: MAX_TEXT_BYTES + 1, limit: MAX_TEXT_BYTES });
}

/// Backtracking expressions and quadratic merges would show here, as lost text or as minutes.
#[test]
fn long_monotonous_text_encodes_and_reads_back() {
    let Some(model) = shared("fixtures/llama32-tiny") else {
        return;
    };
    let tokenizer = open(&model);
    for unit in [" ", "a", "\n", "0", "!", " \n", "'s", "<|eot_id|>", "é", "\u{0301}"] {
        let text = unit.repeat((1 << 20) / unit.len());
        let started = std::time::Instant::now();
        let ids = tokenizer.encode(&text, PLAIN).unwrap();
        eprintln!("{unit:?}: 1 MiB in {:?}", started.elapsed());
        assert_eq!(tokenizer.decode(&ids, false), text, "{unit:?}");
    }
}

/// llama.cpp's test strings and the ids they must give.
fn llama_cpp_vectors(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |ending: &str| {
        let file = format!("data/tokenizer-vectors/ggml-vocab-{name}.gguf.{ending}");
        std::fs::read_to_string(shared(&file).unwrap()).unwrap()
    };
    let texts = read("inp");
    let ids = read("out");
    let texts = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned);
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    let vectors: Vec<_> = texts.zip(ids).collect();
    assert!(vectors.len() >= 46, "{name}: {}", vectors.len());
    vectors
}

/// A tiktoken rank file as the GGUF metadata that converters make of it.
fn metadata_of_ranks(file: &Path) -> Metadata {
    let text = std::fs::read_to_string(file).unwrap();
    let tokens: Vec<Vec<u8>> = text.lines().map(|line| base64(line.split(' ').next().unwrap())).collect();
    let rank: std::collections::HashMap<&[u8], usize> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let mut texts: Vec<String> = tokens.iter().map(|token| to_byte_level(token)).collect();
    let mut merges = Vec::new();
    for token in &tokens {
        // Every pair that makes the token: ranks alone say which pair is merged first.
        let mut pairs: Vec<_> =
            (1..token.len()).filter_map(|cut| Some((*rank.get(&token[..cut])?, *rank.get(&token[cut..])?))).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(left, right)| format!("{} {}", texts[left], texts[right])));
    }
    let mut types = vec![1; texts.len()];
    let special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|step_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ];
    texts.extend(special.map(str::to_owned));
    types.resize(texts.len(), 3);
    [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("llama-bpe".into())),
        ("tokenizer.ggml.tokens", Value::Strings(texts.iter().collect::<Strings>())),
        ("tokenizer.ggml.token_type", Value::Numbers(types.into_iter().collect::<Numbers>())),
        ("tokenizer.ggml.merges", Value::Strings(merges.iter().collect::<Strings>())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect()
}

fn to_byte_level(bytes: &[u8]) -> String {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted = |b: u8| 0x100 + (0..b).filter(|&c| !printable(c)).count() as u32;
    bytes.iter().map(|&b| if printable(b) { char::from(b) } else { char::from_u32(shifted(b)).unwrap() }).collect()
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|&c| c != b'=').map(value).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let n = group.iter().fold(0u32, |n, &d| n << 6 | u32::from(d)) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&n.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn tokenizers_and_templates_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
    shared::<crate::template::ChatTemplate>();
    shared::<Checkpoint>();
}

#[test]
fn added_tokens_keep_the_ids_of_the_file_or_the_file_is_refused() {
    let open = |added: &[(u32, &str)]| {
        let added: Vec<_> = added
            .iter()
            .map(|(id, content)| {
                serde_json::json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false})
            })
            .collect();
        let json = serde_json::json!({"version": "1.0", "added_tokens": added,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "<s>": 2}, "unk_token": "a"}});
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        let config = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": null, "vocab_file": "/home/x",
            "added_tokens_decoder": {"2": {"content": "<s>"}}}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::from_folder(folder.path()).map_err(|e| e.to_string())
    };
    let good = open(&[(2, "<s>"), (3, "<x>"), (4, "<y>")]).unwrap();
    assert_eq!((good.added_id("<s>"), good.added_id("<y>"), good.special().bos), (Some(2), Some(4), Some(2)));
    let config = serde_json::json!({"bos_token": "<s>", "eos_token": null, "added_tokens_decoder": {"2": "<s>"}});
    assert_eq!(Some(good.config()), config.as_object());
    for (added, want) in [
        (&[(3, "<x>"), (5, "<y>")][..], "`<y>` has id 5 and place 4"),
        (&[(1, "<s>")], "`<s>` has id 1 and place 2"),
        (&[(9, "<x>")], "`<x>` has id 9 and place 3"),
        (&[(3, "<x>"), (4, "<x>")], "`<x>` has id 4 and place 3"),
    ] {
        let error = open(added).unwrap_err();
        assert!(error.contains(want) && error.contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_gguf_tells_of_its_tokenizer_in_the_words_of_the_other_format() {
    let Some(model) = shared("fixtures/llama32-tiny") else {
        return;
    };
    let gguf = open(&shared("fixtures/llama32-tiny-gguf/llama32-tiny-Q4_0.gguf").unwrap());
    let folder = open(&model);
    for key in ["bos_token", "eos_token", "chat_template"] {
        assert!(gguf.config()[key].is_string(), "{key}");
        assert_eq!(gguf.config()[key], folder.config()[key], "{key}");
    }
    assert_eq!(gguf.config()["add_bos_token"], true);
    assert!(gguf.config()["added_tokens_decoder"].as_object().is_some_and(|added| !added.is_empty()));
}
