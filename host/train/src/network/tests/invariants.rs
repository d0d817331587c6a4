//! What must not change a single bit, and what is refused.

use stockade_core::train::TrainError;
use stockade_model::Checkpoint;

use super::super::*;
use super::fixtures::*;

/// Loss, gradients, and the gradients of a second pass added to them.
fn bits(options: &NetworkOptions) -> Vec<u32> {
    let network = open("qwen3-tiny", options);
    let rows: Vec<Vec<u32>> = [130, 1, 65].map(|n| (0..n).map(|t| (t * 31 + n) % 1000).collect()).into();
    let packed = packed(&rows);
    let (loss, mut gradients) = step(&network, &packed, Mode::Train { seed: 3, step: 4, row: 5 });
    let mut pass = network.forward(&packed, Mode::Train { seed: 3, step: 4, row: 6 }, true).unwrap();
    let n = network.log_probs(&mut pass).unwrap().log_probs.len();
    network.backward(pass, &vec![0.01; n], Some(&vec![0.002; n]), &mut gradients).unwrap();
    let all = (0..network.parameters().len()).flat_map(|i| gradients.get(i).iter().map(|x| x.to_bits()));
    all.chain([(loss as f32).to_bits(), (gradients.norm() as f32).to_bits()]).collect()
}

fn variants() -> Vec<NetworkOptions> {
    let adapters = [AdapterKind::Lora, AdapterKind::Dora, AdapterKind::Qlora]
        .map(|kind| Trained::Adapter(Adapter { dropout: 0.2, ..adapter(kind) }));
    let mut all = Vec::new();
    for train in [Trained::All].into_iter().chain(adapters) {
        for precision in [Precision::F32, Precision::Bf16] {
            all.push(NetworkOptions { train: train.clone(), precision, threads: 1, ..options() });
        }
    }
    all
}

#[test]
fn threads_and_checkpointing_change_no_bit() {
    for options in variants() {
        let want = bits(&options);
        for (threads, checkpointing) in [(1, false), (2, false), (3, true), (1, true)] {
            let got = bits(&NetworkOptions { threads, checkpointing, ..options.clone() });
            assert!(got == want, "{:?} with {threads} threads, checkpointing {checkpointing}", options.train);
        }
    }
}

#[test]
fn every_parameter_of_every_variant_has_a_gradient() {
    for options in variants() {
        let mut network = open("qwen2-tiny", &options);
        // B starts as 0, and then A has no gradient in the first step: as in every LoRA.
        for i in 0..network.parameters().len() {
            if network.parameters()[i].name.ends_with("lora_B.weight") {
                network.values_mut(i).fill(0.01);
            }
        }
        network.updated().unwrap();
        let (_, gradients) = step(&network, &packed(&[(0..40).collect()]), TRAIN);
        for (i, parameter) in network.parameters().iter().enumerate() {
            let gradient = gradients.get(i);
            let good = gradient.iter().all(|x| x.is_finite()) && gradient.iter().any(|&x| x != 0.0);
            assert!(good, "{:?}: {}", options.train, parameter.name);
        }
    }
}

#[test]
fn adapters_start_as_their_base_and_can_be_switched_off() {
    let rows = [(0..40).collect::<Vec<u32>>()];
    let packed = packed(&rows);
    let plain = open("qwen2-tiny", &options());
    let want = plain.log_probs(&mut plain.forward(&packed, Mode::Eval, true).unwrap()).unwrap().log_probs;
    for kind in [AdapterKind::Lora, AdapterKind::Dora] {
        let train = Trained::Adapter(adapter(kind));
        let mut network = open("qwen2-tiny", &NetworkOptions { train, ..options() });
        let start = network.log_probs(&mut network.forward(&packed, Mode::Eval, true).unwrap()).unwrap().log_probs;
        assert_close("start", &start, &want, 1e-5);
        for i in 0..network.parameters().len() {
            network.values_mut(i).iter_mut().for_each(|x| *x += 0.02);
        }
        network.updated().unwrap();
        let on = network.log_probs(&mut network.forward(&packed, Mode::Eval, true).unwrap()).unwrap().log_probs;
        let off = network.log_probs(&mut network.forward(&packed, Mode::Eval, false).unwrap()).unwrap().log_probs;
        assert_eq!(off, want, "{kind:?} off");
        assert!(on.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-3), "{kind:?} on");
    }
}

#[test]
fn fresh_networks_follow_their_seed() {
    let config = open("llama-micro", &options()).config().clone();
    let make = |seed| Network::fresh(&config, &NetworkOptions { seed, ..options() }).unwrap();
    let (a, b, c) = (make(1), make(1), make(2));
    let deviation = |network: &Network, name: &str| {
        let values = network.tensor(name).unwrap();
        (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt()
    };
    for i in 0..a.parameters().len() {
        assert_eq!(a.values(i), b.values(i));
    }
    assert_ne!(a.values(0), c.values(0));
    assert_relative("embedding", deviation(&a, "model.embed_tokens.weight"), 0.02, 0.02);
    assert_relative("to the residual stream", deviation(&a, "model.layers.0.mlp.down_proj.weight"), 0.01, 0.03);
}

#[test]
fn options_that_make_no_network_are_refused_by_name() {
    let checkpoint = Checkpoint::open(&fixture("qwen2-tiny")).unwrap();
    let config = checkpoint.config().unwrap();
    let adapted = |change: &dyn Fn(&mut Adapter)| {
        let mut adapter = adapter(AdapterKind::Lora);
        change(&mut adapter);
        NetworkOptions { train: Trained::Adapter(adapter), ..options() }
    };
    let cases = [
        ("adapter.rank", adapted(&|a| a.rank = 0)),
        ("adapter.alpha", adapted(&|a| a.alpha = f32::NAN)),
        ("adapter.dropout", adapted(&|a| a.dropout = 1.0)),
        ("adapter.targets", adapted(&|a| a.targets = vec!["embed_tokens".into()])),
        ("adapter.targets", adapted(&|a| a.targets.clear())),
        ("labels", NetworkOptions { output: Output::Scores(0), ..options() }),
        ("train", NetworkOptions { train: Trained::Head, ..options() }),
    ];
    for (want, options) in cases {
        match Network::open(&checkpoint, &config, &options) {
            Err(TrainError::Spec { field, .. }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    let huge = ModelConfig { vocab_size: 1 << 24, hidden_size: 1 << 20, head_dim: 1 << 18, ..config.clone() };
    assert!(matches!(Network::fresh(&huge, &options()), Err(TrainError::Memory { .. })));
    let foreign = ModelConfig { layers: 1, windows: vec![None], ..config };
    assert!(matches!(Network::open(&checkpoint, &foreign, &options()), Err(TrainError::Model { .. })));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let config = open("qwen2-tiny", &options()).config().clone();
    let good = packed(&[vec![1, 2, 3], vec![4, 5]]);
    good.check(&config).unwrap();
    let changed = |change: &dyn Fn(&mut Packed)| {
        let mut packed = good.clone();
        change(&mut packed);
        packed
    };
    for (name, bad) in [
        ("empty", Packed::default()),
        ("token", changed(&|p| p.tokens[1] = 1008)),
        ("last end", changed(&|p| p.ends = vec![3])),
        ("order of ends", changed(&|p| p.ends = vec![3, 3, 5])),
        ("a document's first token", changed(&|p| p.targets = vec![3])),
        ("the first token", changed(&|p| p.targets = vec![0])),
        ("order of targets", changed(&|p| p.targets = vec![2, 1])),
        ("outside", changed(&|p| p.targets = vec![5])),
        ("context", packed(&[vec![1; config.context_tokens + 1]])),
    ] {
        assert!(matches!(bad.check(&config), Err(TrainError::Data { .. })), "{name}");
    }
}

#[test]
fn what_a_pass_takes_is_known_before_and_grows_with_depth_by_inputs_alone_when_checkpointing() {
    let rows = [(0..200).map(|t| t % 300).collect::<Vec<u32>>(), (0..56).collect()];
    let packed = packed(&rows);
    let base = open("llama-micro", &options()).config().clone();
    let taken = |layers: usize, checkpointing: bool| {
        let config = ModelConfig { layers, windows: vec![None; layers], ..base.clone() };
        let network = Network::fresh(&config, &NetworkOptions { checkpointing, threads: 1, ..options() }).unwrap();
        step(&network, &packed, TRAIN);
        let held = 12 * network.masters.len() as u64 + 4 * super::super::head::LOGITS as u64;
        let expected = network.training_bytes(packed.tokens.len() as u64) - held;
        // Logits of a small vocabulary are there too; the estimate has them apart.
        let logits = 4 * (packed.targets.len() * config.vocab_size) as u64;
        let taken = network.buffers.idle_bytes().saturating_sub(logits);
        assert!(
            taken <= expected + expected / 10 && 2 * taken > expected,
            "{layers} {checkpointing}: {taken} {expected}"
        );
        taken
    };
    let input = 4 * packed.tokens.len() as u64 * base.hidden_size as u64;
    let grows = |checkpointing| (taken(12, checkpointing) - taken(4, checkpointing)) / 8;
    let (with, without) = (grows(true), grows(false));
    assert!(with <= input + input / 2 && without > 5 * input, "{with} and {without} for an input of {input}");
}
