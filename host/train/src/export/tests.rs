use super::*;
use crate::job::{AdapterKind, AdapterSpec, Dtype, Named};
use crate::network::{self, Network, NetworkOptions, Packed, Trained};
use crate::reference::reference_file;
use std::collections::BTreeMap;
use std::path::PathBuf;
use stockade_model::tokenizer::EncodeOptions;
use stockade_model::{Checkpoint, Tokenizer};

fn fixture(name: &str) -> Option<PathBuf> {
    reference_file(&format!("fixtures/{name}"))
}

fn open(path: &Path) -> Network {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap();
    Network::open(&checkpoint, &config, &NetworkOptions { threads: 1, ..NetworkOptions::default() }).unwrap()
}

/// Logits of the last eight positions of the ids that the fixtures record.
fn logits(network: &Network, tokens: &[u32]) -> Vec<f32> {
    let packed = Packed { tokens: tokens.to_vec(), ends: vec![tokens.len()], targets: vec![] };
    network.logits(&packed, &(tokens.len() - 8..tokens.len()).collect::<Vec<_>>()).unwrap()
}

fn some_tokens(network: &Network) -> Vec<u32> {
    (0..24).map(|i| (i * 37 + 11) % network.config().vocab_size as u32).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn bits(checkpoint: &Checkpoint) -> BTreeMap<String, (String, Vec<u8>)> {
    let read = |t: &stockade_model::Tensor| (t.name.clone(), (t.ty.to_string(), checkpoint.read(t).unwrap()));
    checkpoint.tensors().map(read).collect()
}

#[test]
fn a_model_is_written_in_its_own_type_and_reads_back_bit_for_bit() {
    for name in ["llama32-tiny", "llama32-tiny-bf16", "mistral-tiny", "qwen2-tiny", "qwen3-tiny"] {
        let Some(base) = fixture(name) else { return };
        let checkpoint = Checkpoint::open(&base).unwrap();
        let config = checkpoint.config().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = write_model(folder.path(), Origin::of(&base), &config, &checkpoint, None).unwrap();
        let again = Checkpoint::open(&written).unwrap();
        assert_eq!(again.config().unwrap(), config, "{name}");
        assert_eq!(bits(&again), bits(&checkpoint), "{name}");
        if base.join("tokenizer.json").exists() {
            let text = "Where is 1234 and the king's café?\n\n  日本";
            let ids =
                |folder: &Path| Tokenizer::from_folder(folder).unwrap().encode(text, EncodeOptions::default()).unwrap();
            assert_eq!(ids(&written), ids(&base));
        }
        let settings = write_model(folder.path(), Origin::of(&base), &config, &checkpoint, Some(Dtype::F16)).unwrap();
        assert_eq!(Checkpoint::open(&settings).unwrap().config().unwrap().dtype, Some(WeightType::F16), "{name}");
    }
}

#[test]
fn a_gguf_base_becomes_a_folder_with_tokenizer_and_template() {
    let (Some(base), Some(original)) = (fixture("llama32-tiny-gguf/llama32-tiny-Q8_0.gguf"), fixture("llama32-tiny"))
    else {
        return;
    };
    let checkpoint = Checkpoint::open(&base).unwrap();
    let config = checkpoint.config().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let written = write_model(folder.path(), Origin::of(&base), &config, &checkpoint, Some(Dtype::F32)).unwrap();
    let network = open(&written);
    let tokens = some_tokens(&network);
    // The frequencies are computed again from the setting that fits their divisors.
    let difference = distance(&logits(&network, &tokens), &logits(&open(&base), &tokens));
    assert!(difference < 1e-3, "{difference}");
    let (ours, theirs) = (Tokenizer::from_folder(&written).unwrap(), Tokenizer::from_folder(&original).unwrap());
    for text in ["Where is 1234 and the king's café?\n\n  日本 \u{1f600}", "<|eot_id|>", "", " a  b"] {
        for (add_special, parse_special) in [(false, false), (true, true)] {
            let options = EncodeOptions { add_special, parse_special };
            assert_eq!(ours.encode(text, options).unwrap(), theirs.encode(text, options).unwrap(), "{text}");
        }
    }
    assert_eq!(ours.special(), theirs.special());
    let template = stockade_model::template::ChatTemplate::from_folder(&written, &ours).unwrap();
    assert!(template.unwrap().source().contains("start_header_id"));
}

#[test]
fn merged_adapters_answer_as_recorded() {
    let Some(base) = fixture("llama32-tiny") else { return };
    for name in ["llama32-tiny-lora-a", "llama32-tiny-lora-b"] {
        let adapter = fixture(name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let merged = open(&merge(&base, &adapter, folder.path(), None).unwrap());
        let expected = std::fs::read(adapter.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let ids: Vec<u32> = serde_json::from_value(expected["input_ids"].clone()).unwrap();
        let want = {
            let only = tempfile::tempdir().unwrap();
            std::fs::copy(adapter.join("expected.safetensors"), only.path().join("model.safetensors")).unwrap();
            let checkpoint = Checkpoint::open(only.path()).unwrap();
            checkpoint.read_f32(checkpoint.tensor("logits").unwrap()).unwrap()
        };
        let difference = distance(&logits(&merged, &ids), &want);
        assert!(difference < 5e-4, "{name}: {difference}");
    }
}

#[test]
fn what_an_adapter_of_ours_computes_its_folder_merged_computes() {
    let Some(base) = fixture("llama32-tiny") else { return };
    let checkpoint = Checkpoint::open(&base).unwrap();
    let config = checkpoint.config().unwrap();
    for (kind, own, rank_stabilised) in [
        (AdapterKind::Lora, network::AdapterKind::Lora, false),
        (AdapterKind::Lora, network::AdapterKind::Lora, true),
        (AdapterKind::Dora, network::AdapterKind::Dora, false),
    ] {
        let targets: Vec<String> = ["q_proj", "k_proj", "down_proj"].map(String::from).to_vec();
        let spec = AdapterSpec { kind, rank: 4, alpha: 8.0, dropout: 0.0, targets: targets.clone(), rank_stabilised };
        let adapter = network::Adapter { kind: own, rank: 4, alpha: 8.0, rank_stabilised, dropout: 0.0, targets };
        let options = NetworkOptions { train: Trained::Adapter(adapter), threads: 1, seed: 3, ..Default::default() };
        let mut network = Network::open(&checkpoint, &config, &options).unwrap();
        for i in 0..network.parameters().len() {
            for (j, value) in network.values_mut(i).iter_mut().enumerate() {
                *value += 0.01 * ((i * 31 + j * 7) % 13) as f32 - 0.06;
            }
        }
        network.updated().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = write_adapter(folder.path(), "base", &spec, &AdapterTensors(&network)).unwrap();
        let out = tempfile::tempdir().unwrap();
        let merged = open(&merge(&base, &written, out.path(), None).unwrap());
        let tokens = some_tokens(&network);
        let (want, found) = (logits(&network, &tokens), logits(&merged, &tokens));
        let largest = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(distance(&want, &found) < 1e-5 * largest.max(1.0) * 10.0, "{kind}: {}", distance(&want, &found));
        assert!(distance(&want, &logits(&open(&base), &tokens)) > 0.1, "{kind} changes nothing");
    }
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let (Some(adapter), Some(base)) = (fixture("llama32-tiny-lora-a"), fixture("qwen2-tiny")) else { return };
    let out = tempfile::tempdir().unwrap();
    let error = merge(&base, &adapter, out.path(), None).unwrap_err();
    assert!(matches!(error, TrainError::Model { .. }), "{error}");
}

/// Of every type: what reads back is the model, as far as the type can say it; its tokenizer gives the same ids.
#[test]
fn gguf_files_of_every_type_are_the_model() {
    for name in ["llama32-tiny", "mistral-tiny", "qwen2-tiny", "qwen3-tiny"] {
        let Some(base) = fixture(name).filter(|base| base.join("tokenizer.json").exists()) else { continue };
        let network = open(&base);
        let tokens = some_tokens(&network);
        let want = logits(&network, &tokens);
        let original = Checkpoint::open(&base).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Relative errors that a type may cause in a matrix.
        for (ty, tolerance) in [
            (GgufType::F32, 0.0),
            (GgufType::F16, 3e-4),
            (GgufType::Bf16, 3e-3),
            (GgufType::Q8_0, 7e-3),
            (GgufType::Q4KM, 0.09),
            (GgufType::Q4_0, 0.1),
        ] {
            let file = folder.path().join(format!("{}.gguf", ty.name()));
            if let Err(error) = to_gguf(&base, &file, ty) {
                // A tokenizer of another kind has no place in GGUF, and that is said.
                assert!(error.to_string().contains("tokenizer"), "{name}: {error}");
                break;
            }
            let checkpoint = Checkpoint::open(&file).unwrap();
            for (tensor, _) in TensorSet::tensors(&original) {
                let [a, b] = [&original, &checkpoint].map(|set| TensorSet::read(set, &tensor).unwrap());
                let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let difference = squares(&mut a.iter().zip(&b).map(|(a, b)| a - b));
                let relative = difference / squares(&mut a.iter().copied());
                assert!(relative <= tolerance, "{name} as {ty}: {tensor} is {relative} off");
            }
            let difference = distance(&want, &logits(&open(&file), &tokens));
            assert!(ty != GgufType::F32 || difference < 1e-4, "{name}: logits are {difference} off");
            assert_eq!(checkpoint.find("lm_head.weight").is_none(), network.config().tied_embeddings);
            let (ours, theirs) = (Tokenizer::open(&checkpoint).unwrap(), Tokenizer::from_folder(&base).unwrap());
            for text in ["Where is 1234 and the king's café?\n\n  日本", " a  b"] {
                let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, EncodeOptions::default()).unwrap();
                assert_eq!(ids(&ours), ids(&theirs), "{name}: {text}");
            }
            assert_eq!((ours.special().eos, ours.special().bos), (theirs.special().eos, theirs.special().bos));
        }
    }
}

/// The file that llama.cpp's tools made of the same model has the same metadata, types and bytes.
#[test]
fn gguf_files_are_those_of_the_format_s_own_tools() {
    let (Some(base), Some(theirs)) = (fixture("llama-micro"), fixture("llama-micro/llama-micro-F16.gguf")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ours.gguf");
    to_gguf(&base, &file, GgufType::F16).unwrap();
    assert_eq!(bits(&Checkpoint::open(&file).unwrap()), bits(&Checkpoint::open(&theirs).unwrap()));

    let (Some(base), Some(theirs)) = (fixture("llama32-tiny"), fixture("llama32-tiny-gguf/llama32-tiny-Q4_K_M.gguf"))
    else {
        return;
    };
    to_gguf(&base, &file, GgufType::Q4KM).unwrap();
    let types = |path: &Path| -> BTreeMap<String, String> {
        Checkpoint::open(path).unwrap().tensors().map(|t| (t.name.clone(), t.ty.to_string())).collect()
    };
    assert_eq!(types(&file), types(&theirs));
    let (ours, theirs) = (Checkpoint::open(&file).unwrap(), Checkpoint::open(&theirs).unwrap());
    let (ours, theirs) = (ours.metadata().unwrap(), theirs.metadata().unwrap());
    for key in theirs.keys().filter(|key| key.starts_with("llama.") || key.starts_with("tokenizer.ggml.")) {
        assert_eq!(ours.get(key), theirs.get(key), "{key}");
    }
}

/// From a file to another of another type: metadata and row order stay.
#[test]
fn gguf_files_are_quantized_again() {
    let Some(base) = fixture("llama32-tiny-gguf/llama32-tiny-Q8_0.gguf") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("again.gguf");
    to_gguf(&base, &file, GgufType::F32).unwrap();
    let network = open(&base);
    let tokens = some_tokens(&network);
    assert!(distance(&logits(&open(&file), &tokens), &logits(&network, &tokens)) < 1e-4);
    to_gguf(&base, &file, GgufType::Q8_0).unwrap();
    assert_eq!(bits(&Checkpoint::open(&file).unwrap()).len(), bits(&Checkpoint::open(&base).unwrap()).len());
}

#[test]
fn weights_that_are_not_finite_are_not_written() {
    struct Broken(f32);
    impl TensorSet for Broken {
        fn tensors(&self) -> Vec<(String, Vec<usize>)> {
            vec![("model.norm.weight".into(), vec![2])]
        }
        fn read(&self, _: &str) -> Result<Vec<f32>, TrainError> {
            Ok(vec![1.0, self.0])
        }
    }
    let Some(base) = fixture("llama32-tiny") else { return };
    let config = Checkpoint::open(&base).unwrap().config().unwrap();
    for (value, dtype) in [(f32::NAN, Dtype::F32), (f32::INFINITY, Dtype::Bf16), (70_000.0, Dtype::F16)] {
        let folder = tempfile::tempdir().unwrap();
        let error = write_model(folder.path(), Origin::of(&base), &config, &Broken(value), Some(dtype)).unwrap_err();
        assert!(matches!(&error, TrainError::Model { .. }), "{error}");
        assert!(!folder.path().join("model.safetensors").exists());
    }
}
