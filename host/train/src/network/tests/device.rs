//! The network on a device beside the one on the host's kernels.

use stockade_model::config::Architecture;

use super::super::*;
use super::fixtures::*;
use super::gradients::{config, documents, shake, weights};

/// Largest difference of two lists, as a share of the second one's length.
fn apart(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let difference = length(&mut got.iter().zip(want).map(|(a, b)| a - b));
    difference / length(&mut want.iter().copied()).max(1e-12)
}

/// A network twice: on the host, and on a device that takes small pieces at once.
fn both(options: &NetworkOptions, make: &dyn Fn(&NetworkOptions) -> Network) -> [Network; 2] {
    [Device::Cpu, device()].map(|device| {
        let mut network = make(&NetworkOptions { device, ..options.clone() });
        shake(&mut network);
        if let Some(device) = &mut network.device {
            device.piece = 1 << 12;
        }
        network
    })
}

fn compare_gradients(what: &str, [host, device]: &[Network; 2], gradients: &[Gradients; 2], tolerance: f64) {
    for (i, parameter) in host.parameters().iter().enumerate() {
        let apart = apart(gradients[1].get(i), gradients[0].get(i));
        assert!(apart < tolerance, "{what} on {}: {} is {apart:.1e} off", device.kernel(), parameter.name);
    }
}

/// Log-probabilities and their gradients, of which the parts of a temperature and of the log-sum-exp.
fn compare(what: &str, networks: &[Network; 2], packed: &Packed, tolerance: f64) {
    let (d, d_sums) = (weights(packed.targets.len(), 1), weights(packed.targets.len(), 2));
    let [host, device] = [&networks[0], &networks[1]].map(|network| {
        let mut gradients = network.gradients();
        let mode = Mode::Train { seed: 3, step: 4, row: 5 };
        let mut pass = network.forward(packed, mode, true).unwrap().at_temperature(0.8);
        let seen = network.log_probs(&mut pass).unwrap();
        network.backward(pass, &d, Some(&d_sums), &mut gradients).unwrap();
        (seen, gradients)
    });
    for (name, got, want) in [
        ("log-probabilities", &device.0.log_probs, &host.0.log_probs),
        ("log-sum-exps", &device.0.log_sum_exp, &host.0.log_sum_exp),
        ("entropies", &device.0.entropy, &host.0.entropy),
    ] {
        let apart = apart(got, want);
        assert!(apart < tolerance, "{what}: {name} are {apart:.1e} off");
    }
    compare_gradients(what, networks, &[host.1, device.1], 10.0 * tolerance);
}

#[test]
fn every_architecture_agrees() {
    for architecture in [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3] {
        for (precision, tolerance) in [(Precision::F32, 1e-6), (Precision::Bf16, 1e-2)] {
            for checkpointing in [false, true] {
                let options = NetworkOptions { precision, checkpointing, ..options() };
                let networks = both(&options, &|options| Network::fresh(&config(architecture), options).unwrap());
                let what = format!("{} {precision:?} {checkpointing}", architecture.model_type());
                compare(&what, &networks, &documents(), tolerance);
            }
        }
    }
}

#[test]
fn every_adapter_agrees_and_follows_an_update() {
    let rows: Vec<Vec<u32>> = [130, 1, 65].map(|n| (0..n).map(|t| (t * 31 + n) % 1000).collect()).into();
    let rows = packed(&rows);
    for (kind, dropout) in
        [(AdapterKind::Lora, 0.0), (AdapterKind::Lora, 0.3), (AdapterKind::Dora, 0.2), (AdapterKind::Qlora, 0.0)]
    {
        for targets in [7, 2] {
            let mut adapter = Adapter { dropout, ..adapter(kind) };
            adapter.targets.truncate(targets);
            let options = NetworkOptions { train: Trained::Adapter(adapter), ..options() };
            let mut networks = both(&options, &|options| open("qwen2-tiny", options));
            let what = format!("{kind:?} {dropout} {targets}");
            compare(&what, &networks, &rows, 1e-5);
            let off = networks.each_ref().map(|network| {
                let mut pass = network.forward(&rows, Mode::Eval, false).unwrap();
                network.log_probs(&mut pass).unwrap().log_probs
            });
            assert!(apart(&off[1], &off[0]) < 1e-5, "{what} off");
            networks.iter_mut().for_each(shake);
            compare(&format!("{what}, updated"), &networks, &rows, 1e-5);
        }
    }
}

#[test]
fn heads_and_states_agree() {
    let (packed, positions) = (documents(), [6usize, 7, 100, 6]);
    for train in [Trained::All, Trained::Head] {
        let options = NetworkOptions { train: train.clone(), output: Output::Scores(3), ..options() };
        let make = |options: &NetworkOptions| match options.train {
            Trained::All => Network::fresh(&config(Architecture::Llama), options).unwrap(),
            _ => open("qwen3-tiny", options),
        };
        let networks = both(&options, &make);
        let weights = weights(positions.len() * 3, 4);
        let results = networks.each_ref().map(|network| {
            let mut gradients = network.gradients();
            let pass = network.forward(&packed, TRAIN, true).unwrap();
            let scores = network.scores(&pass, &positions).unwrap();
            network.backward_scores(pass, &positions, &weights, &mut gradients).unwrap();
            (scores, gradients)
        });
        assert!(apart(&results[1].0, &results[0].0) < 1e-5, "{train:?}");
        compare_gradients("scores", &networks, &results.map(|(_, gradients)| gradients), 1e-5);
    }
    let options = NetworkOptions { output: Output::States, ..options() };
    let networks = both(&options, &|options| Network::fresh(&config(Architecture::Llama), options).unwrap());
    let weights = weights(packed.tokens.len() * 24, 5);
    let results = networks.each_ref().map(|network| {
        let mut gradients = network.gradients();
        let pass = network.forward(&packed, TRAIN, true).unwrap();
        let states = network.states(&pass).unwrap().into_owned();
        network.backward_states(pass, &weights, &mut gradients).unwrap();
        (states, gradients)
    });
    assert!(apart(&results[1].0, &results[0].0) < 1e-5);
    compare_gradients("states", &networks, &results.map(|(_, gradients)| gradients), 1e-5);
}

#[test]
fn two_passes_are_equal_bit_by_bit() {
    let adapter = Adapter { dropout: 0.2, ..adapter(AdapterKind::Dora) };
    for (train, checkpointing) in [(Trained::All, false), (Trained::All, true), (Trained::Adapter(adapter), false)] {
        let options = NetworkOptions { train, checkpointing, device: device(), ..options() };
        let bits = || {
            let network = open("qwen3-tiny", &options);
            let (loss, gradients) = step(&network, &packed(&[(0..70).collect(), vec![5, 6]]), TRAIN);
            let all = (0..network.parameters().len()).flat_map(|i| gradients.get(i).iter().map(|x| x.to_bits()));
            all.chain([(loss as f32).to_bits()]).collect::<Vec<u32>>()
        };
        assert_eq!(bits(), bits());
    }
}

#[test]
fn a_device_that_the_program_was_built_without_is_refused() {
    if candle_core::utils::cuda_is_available() {
        return;
    }
    let options = NetworkOptions { device: Device::Cuda(0), ..options() };
    match Network::fresh(&config(Architecture::Llama), &options) {
        Err(stockade_core::train::TrainError::Spec { field, reason }) => {
            assert_eq!(field, "optim.device");
            assert!(reason.contains("feature `cuda`"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
