use super::*;
use crate::job::{Job, Named};
use crate::trainer::tests::Listener;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::PathBuf;
use stockade_core::ModelId;
use stockade_core::chat::{Message, Part, Role, ToolCall, ToolChoice, ToolResult, ToolSpec};
use stockade_core::infer::{ChatPrompt, Inference};
use stockade_model::tokenizer::EncodeOptions;
use stockade_model::{Checkpoint, Tokenizer};

/// Data by path, models not at all.
struct Paths;

impl Resolver for Paths {
    fn model(&self, name: &str) -> Result<PathBuf, TrainError> {
        panic!("{name} was asked for")
    }
    fn data(&self, name: &str) -> Result<PathBuf, TrainError> {
        Ok(PathBuf::from(name))
    }
}

/// A model or file of the shared references; see `stockade_model`'s tests.
fn reference(name: &str) -> Option<PathBuf> {
    crate::reference::reference_file(&format!("fixtures/{name}"))
}

fn model(name: &str) -> Option<ModelText> {
    let path = reference(name)?;
    let config = Checkpoint::open(&path).unwrap().config().unwrap();
    Some(ModelText::open(&path, &config).unwrap())
}

fn job(method: &str, data: Value) -> Job {
    let batch = if ["kto", "embed"].contains(&method) { 2 } else { 1 };
    let mut spec = json!({"method": method, "model": {"base": "m"}, "data": data, "optim": {"batch": batch}});
    if method == "grpo" {
        spec["grpo"] = json!({"rewards": ["r"]});
    }
    Job::from_json(&spec).unwrap()
}

fn prepared(job: &Job, text: &ModelText, folder: &Path) -> Result<Prepared, TrainError> {
    Ok(prepare(job, &Paths, text, folder, &Listener::default())?.expect("nobody stops it"))
}

/// All examples of a job over `rows`, in file order.
fn examples(text: &ModelText, method: &str, mut data: Value) -> Result<Vec<Example>, TrainError> {
    data["shuffle"] = json!(false);
    data["packing"] = json!(false);
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepared(&job(method, data), text, folder.path())?;
    let steps = (0..prepared.train.steps()).map(|step| prepared.train.step(step).unwrap());
    Ok(steps.flat_map(|step| step.micro_batches).flatten().flatten().collect())
}

fn refusal(text: &ModelText, method: &str, data: Value) -> String {
    examples(text, method, data).unwrap_err().to_string()
}

fn only_text(examples: &[Example]) -> &Sequence {
    match examples {
        [Example::Text(sequence)] => sequence,
        other => panic!("{other:?}"),
    }
}

/// The texts of runs of labelled tokens.
fn labelled_texts(text: &ModelText, sequence: &Sequence) -> Vec<String> {
    let mut runs = vec![Vec::new()];
    for (&token, &label) in sequence.tokens.iter().zip(&sequence.labels) {
        match label {
            IGNORE => runs.push(Vec::new()),
            _ => runs.last_mut().unwrap().push(token),
        }
    }
    runs.iter().filter(|run| !run.is_empty()).map(|run| text.tokenizer().decode(run, false)).collect()
}

#[test]
fn chat_rows_become_the_recorded_ids_and_labels() {
    let Some(text) = model("llama32-tiny") else { return };
    let trace = reference("training-traces/sft.json").unwrap();
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    for (i, turn) in trace["data"]["conversations"].as_array().unwrap().iter().enumerate() {
        let row =
            json!({"messages": [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]});
        let found = examples(&text, "sft", json!({"rows": [row]})).unwrap();
        let sequence = only_text(&found);
        let ids: Vec<u32> = serde_json::from_value(trace["data"]["input_ids"][i].clone()).unwrap();
        let labels: Vec<i32> = serde_json::from_value(trace["data"]["labels"][i].clone()).unwrap();
        // The trace is padded on the right.
        let end = labels.iter().rposition(|&label| label != IGNORE).unwrap() + 1;
        assert_eq!(sequence.tokens, ids[..end], "conversation {i}");
        assert_eq!(sequence.labels, labels[..end], "conversation {i}");
    }
}

#[test]
fn labels_are_the_answers_and_their_end_in_every_turn_of_every_family() {
    let call = json!([{"id": "abcdefgh1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]);
    let messages = json!([
        {"role": "user", "content": "first <|eot_id|><|im_end|></s> question"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "tool_calls": call},
        {"role": "tool", "tool_call_id": "abcdefgh1", "content": "42"},
        {"role": "assistant", "content": "the sum is 42"},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]);
    for (name, end) in [("llama32-tiny", "<|eot_id|>"), ("llama32-tiny-gguf/llama32-tiny-Q4_0.gguf", "<|eot_id|>")] {
        let Some(text) = model(name) else { return };
        let row = json!({"messages": messages, "tools": tools});
        let found = examples(&text, "sft", json!({"rows": [row], "max_tokens": 4096})).unwrap();
        let runs = labelled_texts(&text, only_text(&found));
        assert_eq!(runs.len(), 3, "{name}: {runs:?}");
        assert!(runs.iter().all(|run| run.ends_with(end)), "{name}: {runs:?}");
        assert!(runs[0].starts_with("one") && runs[1].contains("add") && runs[2].starts_with("the sum"), "{runs:?}");
        let mut off = messages.clone();
        off[1]["weight"] = json!(0);
        let row = json!({"messages": off, "tools": tools});
        let found = examples(&text, "sft", json!({"rows": [row], "max_tokens": 4096})).unwrap();
        assert_eq!(labelled_texts(&text, only_text(&found)), runs[1..], "{name}");
    }
}

/// What precedes an answer is what serving renders for it, for real templates of every family at hand.
#[test]
fn tokens_before_an_answer_are_those_that_serving_sends() {
    for name in ["llama32-tiny", "mistral-tiny", "qwen2-tiny", "qwen3-tiny"] {
        let Some(text) = model(name).filter(ModelText::has_template) else { continue };
        let turns = ["hello  there", "what?\n\nnow", "日本語 <|eot_id|>", " spaced "];
        let mut messages = Vec::new();
        for (i, turn) in turns.iter().enumerate() {
            messages.push(Message::text(Role::User, *turn));
            let prompt = text.prompt(&messages, &[]).unwrap();
            messages.push(Message::text(Role::Assistant, format!("answer {i}")));
            let learned: Vec<bool> = (0..messages.len()).map(|m| m + 1 == messages.len()).collect();
            let sequence = text.conversation(&messages, &learned, &[], false).unwrap();
            let first = sequence.labels.iter().position(|&label| label != IGNORE).unwrap();
            assert_eq!(sequence.tokens[..first], prompt, "{name}, turn {i}");
            assert!(text.ends().contains(sequence.tokens.last().unwrap()), "{name}");
        }
    }
}

#[test]
fn raw_texts_get_a_start_an_end_and_labels_behind_the_prompt() {
    let Some(text) = model("llama32-tiny") else { return };
    let id = |name: &str| text.tokenizer().added_id(name).unwrap();
    let (bos, eot, end_of_text) = (id("<|begin_of_text|>"), id("<|eot_id|>"), id("<|end_of_text|>"));
    let encode = |text_: &str| text.tokenizer().encode(text_, EncodeOptions::default()).unwrap();

    let found = examples(&text, "sft", json!({"rows": [{"prompt": "Say a name:", "completion": " Romeo"}]})).unwrap();
    let (prompt, completion) = (encode("Say a name:"), encode(" Romeo"));
    let sequence = only_text(&found);
    assert_eq!(sequence.tokens, [&[bos][..], &prompt, &completion, &[eot]].concat());
    assert_eq!(sequence.labelled(), completion.len() + 1);
    assert!(sequence.labels[..=prompt.len()].iter().all(|&label| label == IGNORE));

    let found = examples(&text, "pretrain", json!({"rows": [{"text": "a <|eot_id|> b"}]})).unwrap();
    let sequence = only_text(&found);
    assert_eq!((sequence.tokens[0], *sequence.tokens.last().unwrap()), (bos, end_of_text));
    assert!(!sequence.tokens.contains(&eot) && sequence.labels[0] == IGNORE);
    assert_eq!(sequence.labelled(), sequence.tokens.len() - 1);

    let row = json!({"prompt": "p", "chosen": " yes", "rejected": " no"});
    let found = examples(&text, "dpo", json!({"rows": [row]})).unwrap();
    let [Example::Pair { chosen, rejected, margin: None }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(chosen.tokens, [&[bos][..], &encode("p"), &encode(" yes")].concat());
    assert_eq!(labelled_texts(&text, rejected), [" no"]);

    // OpenAI's rows are ours under other names.
    let says = |role: &str, content: &str| json!([{"role": role, "content": content}]);
    let theirs = json!({"input": {"messages": says("user", "q")}, "preferred_output": says("assistant", "a"),
        "non_preferred_output": says("assistant", "b")});
    let ours =
        json!({"prompt": says("user", "q"), "chosen": says("assistant", "a"), "rejected": says("assistant", "b")});
    let read = |row: &Value| examples(&text, "dpo", json!({"rows": [row]})).unwrap();
    assert_eq!(read(&theirs), read(&ours));
    let lacking = json!({"input": {}, "preferred_output": says("assistant", "a")});
    assert!(refusal(&text, "dpo", json!({"rows": [lacking]})).contains("column `prompt` is missing"));
}

#[test]
fn every_method_reads_its_formats() {
    let Some(text) = model("llama32-tiny") else { return };
    let user = json!([{"role": "user", "content": "q"}]);
    let says = |text: &str| json!([{"role": "assistant", "content": text}]);
    let rows: &[(&str, Value, usize)] = &[
        ("sft", json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}), 1),
        ("sft", json!({"prompt": user, "completion": says("a")}), 1),
        ("sft", json!({"tokens": [1, 2, 3], "labels": [-100, -100, 3]}), 1),
        ("continue", json!({"tokens": [1, 2, 3]}), 1),
        ("dpo", json!({"prompt": user, "chosen": says("a"), "rejected": says("b")}), 1),
        (
            "dpo",
            json!({"input": {"messages": user, "tools": []}, "preferred_output": says("a"),
                "non_preferred_output": says("b")}),
            1,
        ),
        ("ipo", json!({"prompt": "q", "chosen": says("a"), "rejected": says("b")}), 1),
        ("reward", json!({"chosen": [user[0], says("a")[0]], "rejected": [user[0], says("b")[0]], "margin": 1}), 1),
        ("kto", json!({"prompt": "q", "completion": "a", "label": true}), 1),
        ("grpo", json!({"messages": user, "answer": 42}), 1),
        ("grpo", json!({"prompt": "q", "reference": "x"}), 1),
        ("classify", json!({"text": "t", "label": "good"}), 1),
        ("embed", json!({"anchor": "a", "positive": "b", "negative": null}), 1),
    ];
    for (method, row, count) in rows {
        let found = examples(&text, method, json!({"rows": [row]})).unwrap_or_else(|e| panic!("{method} {row}: {e}"));
        assert_eq!(found.len(), *count, "{method} {row}");
        match (&found[0], *method) {
            (Example::Pair { margin, .. }, "reward") => assert_eq!(*margin, Some(1.0)),
            (Example::Prompt { messages, reference, .. }, _) => {
                assert_eq!(messages.len(), 1);
                assert!(reference.is_some(), "{row}");
            }
            (Example::Labelled { label, .. }, _) => assert_eq!(*label, 0),
            _ => {}
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_named_by_file_and_row() {
    let Some(text) = model("llama32-tiny") else { return };
    let good = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    let rows: &[(&str, Value, Value, &str)] = &[
        ("sft", good.clone(), json!({"messages": "text"}), "row 2: `messages` is a text"),
        ("sft", good.clone(), json!({"messages": [{"role": "owl", "content": "q"}]}), "messages[0]: role `owl`"),
        ("sft", good.clone(), json!({"messages": [{"role": "user", "content": 1}]}), "`content` is a number"),
        ("sft", good.clone(), json!({"messages": []}), "has 0 messages"),
        ("sft", good, json!({"messages": [{"role": "user", "content": "q"}]}), "no message of the assistant"),
        ("pretrain", json!({"tokens": [1]}), json!({"tokens": [1, -1]}), "tokens[1] is -1"),
        ("pretrain", json!({"tokens": [1]}), json!({"tokens": [1, 1.5]}), "not a whole number"),
        ("pretrain", json!({"tokens": [1]}), json!({"tokens": [1, 99999]}), "not below the vocabulary"),
        ("pretrain", json!({"tokens": [1]}), json!({"tokens": []}), "`tokens` is empty"),
        ("pretrain", json!({"text": "a"}), json!({"other": "a"}), "column `text` is missing; it has other"),
        (
            "kto",
            json!({"prompt": "a", "completion": "b", "label": 0}),
            json!({"prompt": "a", "completion": "b", "label": 2}),
            "neither true nor false",
        ),
    ];
    for (method, first, second, reason) in rows {
        let error = refusal(&text, method, json!({"rows": [first, second]}));
        assert!(error.contains("row 2: ") && error.contains(reason), "{method}: {error}");
    }
    let error = refusal(&text, "sft", json!({"rows": [{"question": "a", "answer": "b"}]}));
    assert!(error.contains("row 1: has columns question, answer"), "{error}");
    let columns = json!({"prompt": "question", "completion": "answer"});
    let data = json!({"rows": [{"question": "a", "answer": "b"}], "columns": columns, "as_chat": true});
    let found = examples(&text, "sft", data).unwrap();
    assert_eq!(labelled_texts(&text, only_text(&found)), ["b<|eot_id|>"]);
}

#[test]
fn long_rows_are_split_cut_dropped_or_refused_and_counted() {
    let Some(text) = model("llama32-tiny") else { return };
    let tokens: Vec<u32> = (0..25).collect();
    let rows = json!([{"tokens": tokens}, {"tokens": [1, 2, 3]}]);
    let prepared = |on_long: &str| {
        let data = json!({"rows": rows, "on_long": on_long, "max_tokens": 10, "packing": false});
        let folder = tempfile::tempdir().unwrap();
        prepared(&job("sft", data.clone()), &text, folder.path()).map(|p| (p.notes, p.train.examples()))
    };
    for (on_long, count, note) in [
        ("split", 4, "1 rows split into pieces of 10 tokens"),
        ("cut", 2, "1 rows cut to 10 tokens"),
        ("drop", 1, "1 rows left out as longer than 10 tokens"),
    ] {
        let (notes, found) = prepared(on_long).unwrap();
        assert_eq!(found, count, "{on_long}");
        assert!(notes[0].contains(note), "{notes:?}");
    }
    let error = prepared("refuse").err().unwrap().to_string();
    assert!(error.contains("row 1: 25 tokens exceed data.max_tokens = 10"), "{error}");
    // Pieces overlap by one token: each labelled token of the row is learned once.
    let found = examples(&text, "sft", json!({"rows": rows, "on_long": "split", "max_tokens": 10})).unwrap();
    let learned = |example: &Example| match example {
        Example::Text(sequence) => sequence.labels.iter().copied().filter(|&l| l != IGNORE).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found[..3].iter().flat_map(learned).collect::<Vec<_>>(), (1..25).collect::<Vec<i32>>());
}

#[test]
fn held_out_rows_share_no_prompt_with_the_others() {
    let Some(text) = model("llama32-tiny") else { return };
    let row = |i: usize| json!({"prompt": format!("question {}", i / 3), "completion": format!("answer {i}")});
    let rows: Vec<Value> = (0..300).map(row).collect();
    let data = json!({"rows": rows, "eval_split": 0.2, "shuffle": true});
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepared(&job("sft", data), &text, folder.path()).unwrap();
    let prompts = |source: &Batches| -> HashSet<String> {
        let steps = (0..source.steps()).flat_map(|step| source.step(step).unwrap().micro_batches);
        let text_of = |example: Example| match example {
            Example::Text(sequence) => text.tokenizer().decode(&sequence.tokens, true),
            other => panic!("{other:?}"),
        };
        let number = |text: String| text.split("answer").next().unwrap().to_owned();
        steps.flatten().flatten().map(text_of).map(number).collect()
    };
    let eval = prepared.eval.as_ref().unwrap();
    let (train_prompts, eval_prompts) = (prompts(&prepared.train), prompts(eval));
    assert!(train_prompts.is_disjoint(&eval_prompts));
    assert_eq!(train_prompts.len() + eval_prompts.len(), 100);
    assert!((8..=35).contains(&eval_prompts.len()), "{}", eval_prompts.len());
    assert_eq!(prepared.train.examples() + eval.examples(), 300);
}

#[test]
fn answers_to_one_conversation_stay_on_one_side() {
    let chat = |i: usize, id: usize| {
        let turns = [
            json!({"role": "system", "content": "Be kind.", "id": id}),
            json!({"role": "user", "content": format!("question {i}")}),
            json!({"role": "assistant", "content": format!("answer {id}")}),
        ];
        json!({"messages": turns, "id": id})
    };
    let named = |i: usize, id: usize| json!({"conversations": [{"from": "human", "value": format!("question {i}")}, {"from": "gpt", "value": format!("{id}")}]});
    let judged = |i: usize, id: usize| {
        let answer = |text: String| json!([{"role": "user", "content": format!("question {i}")}, {"role": "assistant", "content": text}]);
        json!({"chosen": answer(format!("good {id}")), "rejected": answer(format!("bad {id}"))})
    };
    let spec = job("sft", json!({"train": "t", "eval_split": 0.3})).data;
    for (what, row) in [("chat", &chat as &dyn Fn(usize, usize) -> Value), ("named", &named), ("judged", &judged)] {
        let sides: Vec<bool> = (0..200).map(|i| split::held_out(&row(i, 0), &spec, 1)).collect();
        for id in 1..4 {
            assert!((0..200).all(|i| split::held_out(&row(i, id), &spec, 1) == sides[i]), "{what}");
        }
        let share = sides.iter().filter(|held| **held).count();
        assert!((35..85).contains(&share), "{what}: {share}");
    }
}

#[test]
fn a_run_that_goes_on_finds_its_tokens_and_changed_data_is_read_again() {
    let Some(text) = model("llama32-tiny") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.jsonl");
    std::fs::write(&file, "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n").unwrap();
    let job = job("pretrain", json!({"train": file}));
    let home = folder.path().join("job");
    let written = || std::fs::metadata(home.join("data/train.examples")).unwrap().modified().unwrap();
    let first = prepared(&job, &text, &home).unwrap().train;
    let at = written();
    let again = prepared(&job, &text, &home).unwrap().train;
    assert_eq!((again.digest(), written()), (first.digest(), at));
    std::fs::write(&file, "{\"text\": \"one\"}\n{\"text\": \"three\"}\n").unwrap();
    assert_ne!(prepared(&job, &text, &home).unwrap().train.digest(), first.digest());
}

#[test]
fn reading_ends_when_the_run_is_to_end_and_begins_anew() {
    let Some(text) = model("llama32-tiny") else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = job("pretrain", json!({"rows": [{"text": "one"}, {"text": "two"}]}));
    for command in [Command::Pause, Command::Cancel] {
        let listener = Listener { interrupt: Some((0, command)), ..Listener::default() };
        assert!(prepare(&job, &Paths, &text, folder.path(), &listener).unwrap().is_none());
        assert!(!folder.path().join("data").exists());
    }
    assert_eq!(prepared(&job, &text, folder.path()).unwrap().train.examples(), 2);
}

#[test]
fn plain_text_has_documents_of_paragraphs_lines_or_one() {
    let Some(text) = model("llama32-tiny") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prose.txt");
    std::fs::write(&file, "\u{feff}one\ntwo\r\n\n \nthree\n").unwrap();
    for (documents, want) in [
        ("paragraph", vec!["one\ntwo", "three"]),
        ("line", vec!["one", "two", "three"]),
        ("file", vec!["one\ntwo\n\n \nthree"]),
    ] {
        let found = examples(&text, "pretrain", json!({"train": file, "documents": documents})).unwrap();
        let texts: Vec<String> = found
            .iter()
            .map(|example| match example {
                Example::Text(sequence) => text.tokenizer().decode(&sequence.tokens, true),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, want, "{documents}");
    }
}

#[test]
fn hostile_files_are_typed_refusals() {
    let Some(text) = model("llama32-tiny") else { return };
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        refusal(&text, "pretrain", json!({"train": file}))
    };
    let long = [&b"{\"text\": \""[..], &vec![b'a'; MAX_ROW_BYTES], b"\"}"].concat();
    let deep = [&b"{\"text\": "[..], &vec![b'['; 100_000]].concat();
    for (name, bytes, reason) in [
        ("long.jsonl", &long[..], "row 1: the line exceeds"),
        ("deep.jsonl", &deep, "row 1: no JSON: recursion limit"),
        ("cut.jsonl", b"{\"text\": \"a\"}\n{\"text\": ", "row 2: no JSON"),
        ("bytes.jsonl", b"{\"text\": \"\xff\xfe\"}", "row 1: no JSON"),
        ("nan.jsonl", b"{\"tokens\": [NaN]}", "row 1: no JSON"),
        ("number.jsonl", b"7\n", "row 1: a row is a JSON object"),
        ("list.json", b"[{\"text\": \"a\"}]", "is one JSON list"),
        ("bytes.txt", b"caf\xe9", "row 1: not UTF-8 at byte 3"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n\n", "leaves no example to train on"),
        ("false.parquet", b"{\"text\": \"a\"}", "is no parquet file"),
        ("damaged.parquet", b"PAR1 and then nothing PAR1", "data "),
    ] {
        let error = refused(name, bytes);
        assert!(error.contains(reason), "{name}: {error}");
    }
    let error = refusal(&text, "pretrain", json!({"train": folder.path()}));
    assert!(error.contains("is not a regular file"), "{error}");
    let error = refusal(&text, "pretrain", json!({"train": folder.path().join("none.jsonl")}));
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn parquet_rows_are_read_with_lists_of_groups() {
    let Some(text) = model("llama32-tiny") else { return };
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat.parquet");
    let found = examples(&text, "sft", json!({"train": file, "max_tokens": 4096})).unwrap();
    let answers: Vec<Vec<String>> = found
        .iter()
        .map(|example| match example {
            Example::Text(sequence) => labelled_texts(&text, sequence),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, [vec!["four<|eot_id|>", "five<|eot_id|>"], vec!["hello<|eot_id|>"]]);
    let bytes = std::fs::read(&file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.parquet");
    // Whatever byte is wrong: rows or a typed refusal.
    for at in (0..bytes.len()).step_by(5) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&broken, bytes).unwrap();
        match examples(&text, "sft", json!({"train": broken, "max_tokens": 4096})) {
            Ok(_) | Err(TrainError::Row { .. } | TrainError::Data { .. }) => {}
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
}

/// Reading takes memory for a row and four bytes for each example, whatever the file's size.
#[test]
fn many_rows_pass_through() {
    let Some(text) = model("llama32-tiny") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.jsonl");
    let rows = 200_000;
    std::fs::write(&file, "{\"tokens\": [5, 6, 7]}\n".repeat(rows)).unwrap();
    let job = job("pretrain", json!({"train": file, "max_tokens": 512}));
    let prepared = prepared(&job, &text, folder.path()).unwrap();
    assert_eq!(prepared.train.examples(), rows);
    // 170 documents of 3 tokens a row.
    assert_eq!(prepared.train.steps(), rows.div_ceil(170) as u64);
    let step = prepared.train.step(prepared.train.steps() - 1).unwrap();
    assert_eq!(step.micro_batches[0][0].len(), rows % 170);
}

/// The tokenizer of a folder and of a GGUF file agree on what training sees.
#[test]
fn a_gguf_base_gives_the_same_examples() {
    let (Some(folder), Some(gguf)) = (model("llama32-tiny"), model("llama32-tiny-gguf/llama32-tiny-Q4_0.gguf")) else {
        return;
    };
    let row = json!({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Romeo."}]});
    let read = |text: &ModelText| examples(text, "sft", json!({"rows": [row]})).unwrap();
    assert_eq!(read(&folder), read(&gguf));
    assert!(Tokenizer::from_folder(&reference("llama32-tiny").unwrap()).is_ok());
}

/// Small JSON values with the keys and texts that rows are made of.
fn a_value() -> impl Strategy<Value = Value> {
    let texts = ["", "a", "user", "assistant", "system", "tool", "<|eot_id|>", "\u{fdd0}", "{}"];
    let keys = [
        "messages",
        "role",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "weight",
        "tools",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "text",
        "anchor",
        "positive",
        "negative",
        "tokens",
        "labels",
        "from",
        "value",
        "margin",
        "reference",
        "tool_call_id",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..2000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(texts.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        let fields = proptest::collection::vec((proptest::sample::select(keys.to_vec()), inner.clone()), 0..6);
        let object = |fields: Vec<(&str, Value)>| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        prop_oneof![
            proptest::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(move |fields| Value::Object(object(fields))),
        ]
    })
}

proptest! {
    /// Whatever a row holds: examples within the bounds, or a reason.
    #[test]
    fn no_row_panics(row in a_value(), label_prompt in any::<bool>(), as_chat in any::<bool>()) {
        use std::sync::LazyLock;
        static TEXT: LazyLock<Option<ModelText>> = LazyLock::new(|| model("llama32-tiny"));
        let Some(text) = &*TEXT else { return Ok(()) };
        for method in Method::ALL {
            let data = json!({"rows": [{}], "max_tokens": 40, "label_prompt": label_prompt, "as_chat": as_chat});
            let job = job(method.name(), data);
            let labels = ["a".to_owned(), "7".to_owned()];
            let encoder = Encoder { text, spec: &job.data, labels: &labels };
            for &format in method.formats() {
                let Ok(typed) = schema::read(&row, &job.data, format) else { continue };
                let Ok(examples) = encoder.examples(typed, &mut Counts::default()) else { continue };
                for example in examples {
                    let sequences = match &example {
                        Example::Text(sequence) | Example::Unpaired { sequence, .. } => vec![sequence],
                        Example::Pair { chosen, rejected, .. } => vec![chosen, rejected],
                        _ => vec![],
                    };
                    for sequence in sequences {
                        prop_assert_eq!(sequence.tokens.len(), sequence.labels.len());
                        prop_assert_eq!(sequence.labels[0], IGNORE);
                        prop_assert!(sequence.labelled() > 0 && sequence.tokens.len() <= 40);
                    }
                }
            }
        }
    }
}

/// An engine that serves the fixture as `m`.
fn served() -> Option<stockade_infer::Engine> {
    let path = reference("llama32-tiny")?;
    let engine = stockade_infer::Engine::new(stockade_infer::Settings::default());
    let id = ModelId::new("m").unwrap();
    engine.load_model(id, &path, &stockade_infer::ModelOptions::default(), &|_, _| ()).unwrap();
    Some(engine)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What training renders is what the engine sends as the prompt, and the answer, and its end: for any words, control
    /// tokens that they spell, calls and tools.
    #[test]
    fn a_conversation_is_the_served_prompt_and_its_answer(
        turns in proptest::collection::vec("[a-c \n<|>_]{0,12}|<[|]eot_id[|]>|\u{e9}[\u{65e5} ]{1,3}", 1..5),
        answer in "[a-c \n<|>_{]{0,16}|x<[|]eot_id[|]>y",
        has_tools in any::<bool>(),
        calls in any::<bool>(),
    ) {
        use std::sync::LazyLock;
        static MODEL: LazyLock<Option<(ModelText, stockade_infer::Engine)>> =
            LazyLock::new(|| Some((model("llama32-tiny")?, served()?)));
        let Some((text, engine)) = &*MODEL else { return Ok(()) };
        let tool = ToolSpec { name: "f".into(), description: "does it".into(), parameters: json!({"type": "object"}) };
        let tools = if has_tools { vec![tool] } else { vec![] };
        let mut messages = Vec::new();
        for (i, turn) in turns.iter().enumerate() {
            messages.push(Message::text(Role::User, turn.as_str()));
            if calls && i == 0 {
                let id = "c1".to_owned();
                let call = ToolCall { id: id.clone(), name: "f".into(), arguments: "{\"a\": 1}".into() };
                messages.push(Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)], name: None });
                let result = ToolResult { call_id: id, content: turn.clone(), is_error: false };
                messages.push(Message { role: Role::Tool, parts: vec![Part::ToolResult(result)], name: None });
            }
            if i + 1 < turns.len() {
                messages.push(Message::text(Role::Assistant, "ok"));
            }
        }
        let prompt = ChatPrompt {
            messages: messages.clone(),
            tools: tools.clone(),
            tool_choice: ToolChoice::Auto,
            template_args: serde_json::Map::new(),
        };
        let served = engine.render(&ModelId::new("m").unwrap(), &prompt).unwrap().tokens;
        messages.push(Message::text(Role::Assistant, answer.as_str()));
        let learned: Vec<bool> = (0..messages.len()).map(|i| i + 1 == messages.len()).collect();
        let sequence = text.conversation(&messages, &learned, &tools, false).unwrap();
        prop_assert_eq!(&sequence.tokens[..served.len()], &served[..]);
        prop_assert!(sequence.labels[..served.len()].iter().all(|&label| label == IGNORE));
        let rest = &sequence.tokens[served.len()..];
        prop_assert_eq!(sequence.labelled(), rest.len());
        let want = format!("{}<|eot_id|>", answer.trim());
        prop_assert_eq!(text.tokenizer().decode(rest, false), want);
        prop_assert!(rest[..rest.len() - 1].iter().all(|&token| !text.tokenizer().is_control(token)));
    }
}
