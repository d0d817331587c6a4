//! Logits and scores of recorded checkpoints.

use super::super::*;
use super::fixtures::*;

#[test]
fn logits_are_those_of_the_reference_for_every_architecture() {
    for (name, tolerance) in
        [("llama32-tiny", 3e-4), ("mistral-tiny", 1e-4), ("qwen2-tiny", 1e-4), ("qwen3-tiny", 1e-4)]
    {
        let network = open(name, &options());
        let want = recorded(&fixture(name).join("expected.safetensors"));
        let expected = json(&fixture(name).join("expected.json"));
        let prompts = expected.get("prompts").unwrap_or(&expected);
        for (prompt, case) in prompts.as_object().unwrap() {
            let tokens = ids(&case["input_ids"]);
            let want = &want[&format!("{prompt}.logits")];
            let rows = want.len() / network.config().vocab_size;
            let positions: Vec<usize> = (tokens.len() - rows..tokens.len()).collect();
            let got = network.logits(&packed(&[tokens]), &positions).unwrap();
            assert_close(&format!("{name} {prompt}"), &got, want, tolerance);
        }
    }
}

#[test]
fn packed_documents_do_not_see_each_other() {
    let network = open("mistral-tiny", &options());
    let rows: Vec<Vec<u32>> = [70, 1, 3, 129].iter().map(|&n| (0..n).map(|i| (i * 7 + n) % 200).collect()).collect();
    let together = packed(&rows);
    let all = network.logits(&together, &(0..together.tokens.len()).collect::<Vec<_>>()).unwrap();
    let mut at = 0;
    for row in &rows {
        let alone = network.logits(&packed(std::slice::from_ref(row)), &(0..row.len()).collect::<Vec<_>>()).unwrap();
        assert_close("document", &all[at..at + alone.len()], &alone, 1e-5);
        at += alone.len();
    }
}

#[test]
fn scores_are_those_of_the_reference() {
    let options = NetworkOptions { output: Output::Scores(1), ..options() };
    let network = open("reward-tiny", &options);
    let expected = json(&fixture("reward-tiny").join("expected.json"));
    let rows: Vec<Vec<u32>> =
        expected["cases"].as_array().unwrap().iter().map(|case| ids(&case["input_ids"])).collect();
    let packed = packed(&rows);
    let pass = network.forward(&packed, Mode::Eval, true).unwrap();
    let last: Vec<usize> = packed.ends.iter().map(|end| end - 1).collect();
    let want = &recorded(&fixture("reward-tiny").join("expected.safetensors"))["scores"];
    assert_close("scores", &network.scores(&pass, &last).unwrap(), want, 1e-4);
}

#[test]
fn bf16_shards_and_gguf_give_the_logits_of_their_dequantized_weights() {
    let quantized = ["Q4_K_M", "Q8_0", "Q4_0"].map(|ty| format!("llama32-tiny-gguf/llama32-tiny-{ty}.gguf"));
    for file in quantized.iter().map(String::as_str).chain(["llama32-tiny-bf16"]) {
        let (folder, gguf) = file.split_once('/').map_or((file, None), |(folder, gguf)| (folder, Some(gguf)));
        let (expected, recorded) =
            (json(&fixture(folder).join("expected.json")), recorded(&fixture(folder).join("expected.safetensors")));
        let network = open(file, &options());
        let prompts = gguf.map_or(&expected["prompts"], |gguf| &expected[gguf]["prompts"]);
        for (prompt, case) in prompts.as_object().unwrap() {
            let name = gguf.map_or(format!("{prompt}.logits_f32_compute"), |gguf| format!("{gguf}.{prompt}.logits"));
            let (tokens, want) = (ids(&case["input_ids"]), &recorded[&name]);
            let rows = want.len() / network.config().vocab_size;
            let positions: Vec<usize> = (tokens.len() - rows..tokens.len()).collect();
            assert_close(&name, &network.logits(&packed(&[tokens]), &positions).unwrap(), want, 5e-4);
        }
    }
}
