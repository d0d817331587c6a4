//! Gradients against finite differences of the f64 reference, by tensor, for everything that can be trained.

use stockade_model::config::{Architecture, Head, Rope, RopeScaling};
use stockade_model::{Checkpoint, ModelConfig};

use super::super::*;
use super::fixtures::*;
use super::reference::Reference;
use crate::random::{Purpose, normal};

/// Grouped heads, an odd feed-forward width, documents of one token and off every block size.
pub fn config(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        head: Head::CausalLm,
        layers: 2,
        hidden_size: 24,
        intermediate_size: 37,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        vocab_size: 51,
        context_tokens: 256,
        norm_eps: 1e-5,
        rope: Some(Rope { theta: 1e4, scaling: RopeScaling::None }),
        windows: vec![if architecture == Architecture::Mistral { Some(9) } else { None }, None],
        tied_embeddings: architecture != Architecture::Mistral,
        qkv_bias: architecture == Architecture::Qwen2,
        output_bias: architecture == Architecture::Qwen2,
        mlp_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        bos_id: None,
        eos_ids: Vec::new(),
        pad_id: None,
        dtype: None,
        encoder: None,
    }
}

pub fn documents() -> Packed {
    let lengths = [1usize, 3, 131];
    let rows = lengths.map(|n| (0..n).map(|t| ((t * 29 + n * 7 + t * t) % 51) as u32).collect());
    let mut packed = packed(&rows);
    // A third carries no label, and one document none at all.
    packed.targets.retain(|t| t % 3 != 0 && !(1..4).contains(t));
    packed
}

/// Moves every value away from what it starts as: gains off 1, B and biases off 0.
pub fn shake(network: &mut Network) {
    for i in 0..network.parameters().len() {
        let by = if network.parameters()[i].kind == Kind::Matrix { 0.2 } else { 0.1 };
        for (j, x) in network.values_mut(i).iter_mut().enumerate() {
            *x += by * normal(5, Purpose::Split, i as u64, j as u64) as f32;
        }
    }
    network.updated().unwrap();
}

/// A derivative's weights, as a loss would give them.
pub fn weights(n: usize, salt: u64) -> Vec<f32> {
    (0..n as u64).map(|i| normal(9, Purpose::Split, salt, i) as f32).collect()
}

/// Compares gradients with central differences of `loss` along a direction for each tensor.
fn compare(what: &str, network: &Network, mode: Mode, gradients: &Gradients, loss: &dyn Fn(&Reference<'_>) -> f64) {
    let mut reference = Reference::new(network, mode);
    let h = 1e-5;
    for (i, parameter) in network.parameters().iter().enumerate() {
        let gradient: Vec<f64> = gradients.get(i).iter().map(|&x| f64::from(x)).collect();
        let length = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(length.is_finite() && length > 1e-6, "{what}: {} has a gradient of length {length}", parameter.name);
        // Half along the gradient, so that the derivative is large; half at random, so that nothing hides.
        let n = (gradient.len() as f64).sqrt();
        let direction: Vec<f64> =
            gradient.iter().zip(0..).map(|(g, j)| g / length + normal(3, Purpose::Split, i as u64, j) / n).collect();
        let start = reference.values[&parameter.name].clone();
        let mut at = |by: f64| {
            let moved = start.iter().zip(&direction).map(|(x, d)| x + by * d).collect();
            reference.values.insert(parameter.name.clone(), moved);
            loss(&reference)
        };
        let want = (at(h) - at(-h)) / (2.0 * h);
        at(0.0);
        let got: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let error = (got - want).abs() / length;
        assert!(error < 2e-5, "{what}: {}: {got} where differences say {want}, {error:.1e} off", parameter.name);
    }
}

fn check_language(what: &str, network: &Network, mode: Mode, temperature: f32) {
    let packed = documents();
    packed.check(network.config()).unwrap();
    let (d_log_probs, d_sums) = (weights(packed.targets.len(), 1), weights(packed.targets.len(), 2));
    let mut gradients = network.gradients();
    let mut pass = network.forward(&packed, mode, true).unwrap().at_temperature(temperature);
    let got = network.log_probs(&mut pass).unwrap();
    let want = Reference::new(network, mode).log_probs(&packed, temperature.into());
    for (i, (log_prob, sum)) in want.iter().enumerate() {
        assert!((f64::from(got.log_probs[i]) - log_prob).abs() < 2e-5, "{what}: target {i}");
        assert!((f64::from(got.log_sum_exp[i]) - sum).abs() < 2e-5, "{what}: target {i}");
    }
    network.backward(pass, &d_log_probs, Some(&d_sums), &mut gradients).unwrap();
    compare(what, network, mode, &gradients, &|reference| {
        let rows = reference.log_probs(&packed, temperature.into()).into_iter().zip(d_log_probs.iter().zip(&d_sums));
        rows.map(|((log_prob, sum), (d, d_sum))| log_prob * f64::from(*d) + sum * f64::from(*d_sum)).sum()
    });
}

#[test]
fn every_architecture_has_the_gradients_of_finite_differences() {
    for architecture in [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3] {
        let mut network = Network::fresh(&config(architecture), &options()).unwrap();
        shake(&mut network);
        check_language(architecture.model_type(), &network, TRAIN, 1.0);
    }
    let mut network = Network::fresh(&config(Architecture::Llama), &options()).unwrap();
    shake(&mut network);
    check_language("at a temperature", &network, TRAIN, 0.7);
}

/// A network over a checkpoint of the fixtures, cut to what finite differences can bear by its adapters' number.
fn adapted(kind: AdapterKind, dropout: f32, output: Output) -> Network {
    let adapter = Adapter { dropout, rank: 2, ..adapter(kind) };
    let mut network = open("qwen2-tiny", &NetworkOptions { train: Trained::Adapter(adapter), output, ..options() });
    shake(&mut network);
    network
}

fn short() -> Packed {
    packed(&[vec![5, 9, 700, 3, 88, 41, 2], vec![17], vec![1, 2, 3, 4, 5]])
}

#[test]
fn every_adapter_has_the_gradients_of_finite_differences() {
    for (kind, dropout) in
        [(AdapterKind::Lora, 0.0), (AdapterKind::Lora, 0.3), (AdapterKind::Dora, 0.1), (AdapterKind::Qlora, 0.0)]
    {
        let network = adapted(kind, dropout, Output::Language);
        let packed = short();
        let weights = weights(packed.targets.len(), 3);
        let mut gradients = network.gradients();
        let mut pass = network.forward(&packed, TRAIN, true).unwrap();
        network.log_probs(&mut pass).unwrap();
        network.backward(pass, &weights, None, &mut gradients).unwrap();
        compare(&format!("{kind:?} {dropout}"), &network, TRAIN, &gradients, &|reference| {
            let rows = reference.log_probs(&packed, 1.0).into_iter().zip(&weights);
            rows.map(|((log_prob, _), weight)| log_prob * f64::from(*weight)).sum()
        });
    }
}

#[test]
fn heads_have_the_gradients_of_finite_differences() {
    let packed = short();
    let positions = [6usize, 7, 12, 3];
    for train in [Trained::All, Trained::Adapter(Adapter { rank: 2, ..adapter(AdapterKind::Lora) }), Trained::Head] {
        let what = format!("{train:?}");
        let mut network = match train {
            Trained::All => {
                Network::fresh(&config(Architecture::Llama), &NetworkOptions { output: Output::Scores(3), ..options() })
                    .unwrap()
            }
            train => open("qwen3-tiny", &NetworkOptions { train, output: Output::Scores(3), ..options() }),
        };
        shake(&mut network);
        let packed = Packed {
            tokens: packed.tokens.iter().map(|t| t % network.config().vocab_size as u32).collect(),
            ..packed.clone()
        };
        let weights = weights(positions.len() * 3, 4);
        let mut gradients = network.gradients();
        let pass = network.forward(&packed, TRAIN, true).unwrap();
        let scores = network.scores(&pass, &positions).unwrap();
        let head = network.parameters().last().unwrap().name.clone();
        let want = Reference::new(&network, TRAIN).scores(&packed, &positions, &head);
        assert!(scores.iter().zip(want.iter().flatten()).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-5), "{what}");
        network.backward_scores(pass, &positions, &weights, &mut gradients).unwrap();
        compare(&what, &network, TRAIN, &gradients, &|reference| {
            let scores = reference.scores(&packed, &positions, &head).into_iter().flatten();
            scores.zip(&weights).map(|(score, weight)| score * f64::from(*weight)).sum()
        });
    }
}

#[test]
fn states_have_the_gradients_of_finite_differences() {
    let options = NetworkOptions { output: Output::States, ..options() };
    let mut network = Network::fresh(&config(Architecture::Llama), &options).unwrap();
    shake(&mut network);
    let packed = documents();
    let weights = weights(packed.tokens.len() * 24, 5);
    let mut gradients = network.gradients();
    let pass = network.forward(&packed, TRAIN, true).unwrap();
    assert_eq!(network.states(&pass).unwrap().len(), weights.len());
    network.backward_states(pass, &weights, &mut gradients).unwrap();
    compare("states", &network, TRAIN, &gradients, &|reference| {
        let states = reference.states(&packed).into_iter().flatten();
        states.zip(&weights).map(|(x, weight)| x * f64::from(*weight)).sum()
    });
}

#[test]
fn large_vocabularies_are_taken_in_pieces() {
    // 600 targets of 32768 logits do not fit at once.
    let config = ModelConfig { vocab_size: 1 << 15, layers: 1, windows: vec![None], ..config(Architecture::Llama) };
    let mut network = Network::fresh(&config, &options()).unwrap();
    shake(&mut network);
    let rows: Vec<Vec<u32>> = (0..3).map(|r| (0..201).map(|t| (t * 157 + r * 11) % (1 << 15)).collect()).collect();
    let packed = packed(&rows);
    let weights = weights(packed.targets.len(), 6);
    let mut gradients = network.gradients();
    let mut pass = network.forward(&packed, TRAIN, true).unwrap();
    let got = network.log_probs(&mut pass).unwrap();
    let reference = Reference::new(&network, TRAIN);
    for ((got, entropy), (want, sum)) in got.log_probs.iter().zip(&got.entropy).zip(reference.log_probs(&packed, 1.0)) {
        assert!((f64::from(*got) - want).abs() < 2e-5);
        assert!(*entropy > 0.0 && f64::from(*entropy) <= (f64::from(1 << 15)).ln() + 1e-4 && sum.is_finite());
    }
    network.backward(pass, &weights, None, &mut gradients).unwrap();
    // Only the tensor that the pieces are cut from is compared: each difference is two passes of the slow reference.
    let (embedding, d) = (network.values(0), gradients.get(0));
    let length = d.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let loss = |by: f64| {
        let mut reference = Reference::new(&network, TRAIN);
        let moved = embedding.iter().zip(d).map(|(x, d)| f64::from(*x) + by * f64::from(*d) / length).collect();
        reference.values.insert("model.embed_tokens.weight".into(), moved);
        reference.log_probs(&packed, 1.0).iter().zip(&weights).map(|((x, _), w)| x * f64::from(*w)).sum::<f64>()
    };
    let want = (loss(1e-5) - loss(-1e-5)) / 2e-5;
    assert!((want - length).abs() / length < 1e-4, "{want} where the gradient says {length}");
}

#[test]
fn no_labels_give_no_gradient() {
    let network = Network::fresh(&config(Architecture::Llama), &options()).unwrap();
    let packed = Packed { targets: Vec::new(), ..documents() };
    let mut gradients = network.gradients();
    let mut pass = network.forward(&packed, TRAIN, true).unwrap();
    assert_eq!(network.log_probs(&mut pass).unwrap(), LogProbs::default());
    network.backward(pass, &[], None, &mut gradients).unwrap();
    assert_eq!(gradients.norm(), 0.0);
}

#[test]
fn quantized_base_keeps_nothing_in_f32_but_is_read_as_computed_with() {
    let quantized = adapted(AdapterKind::Qlora, 0.0, Output::Language);
    let name = "model.layers.0.mlp.down_proj.weight";
    let checkpoint = Checkpoint::open(&fixture("qwen2-tiny")).unwrap();
    let whole = checkpoint.read_f32(checkpoint.tensor(name).unwrap()).unwrap();
    let read = quantized.tensor(name).unwrap();
    let error = whole.iter().zip(&read).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    let length = whole.iter().map(|a| a * a).sum::<f32>().sqrt();
    assert!(error > 0.0 && error / length < 0.12, "{}", error / length);
    assert!(quantized.tensor("model.layers.9.mlp.down_proj.weight").is_err());
}
