//! First steps of the recorded training runs: loss and gradient norm.

use super::super::*;
use super::fixtures::*;

fn trace(name: &str) -> serde_json::Value {
    json(&fixture("training-traces").join(format!("{name}.json")))
}

fn check(name: &str, network: &Network, packed: &Packed) {
    let first = &trace(name)["steps"][0];
    let (loss, gradients) = step(network, packed, TRAIN);
    assert_relative(&format!("{name} loss"), loss, first["loss_f64"].as_f64().unwrap(), 1e-5);
    assert_relative(&format!("{name} norm"), gradients.norm(), first["grad_norm_f64"].as_f64().unwrap(), 2e-5);
    for (i, parameter) in network.parameters().iter().enumerate() {
        assert!(gradients.get(i).iter().all(|x| x.is_finite()), "{}", parameter.name);
    }
}

fn rows(value: &serde_json::Value) -> Vec<Vec<u32>> {
    value.as_array().unwrap().iter().map(ids).collect()
}

#[test]
fn full_step_is_the_recorded_one() {
    check("full", &open("llama32-tiny", &options()), &packed(&rows(&trace("full")["data"]["input_ids"][0])));
}

#[test]
fn pretraining_step_is_the_recorded_one() {
    check("pretrain", &open("llama-micro", &options()), &packed(&rows(&trace("pretrain")["data"]["input_ids"][0])));
}

#[test]
fn sft_step_is_the_recorded_one() {
    check("sft", &open("llama32-tiny", &options()), &labelled(&trace("sft")["data"]));
}

#[test]
fn packing_step_is_the_recorded_one() {
    check("packing", &open("llama32-tiny", &options()), &labelled(&trace("packing")["data"]));
}

#[test]
fn lora_step_is_the_recorded_one() {
    let train = Trained::Adapter(adapter(AdapterKind::Lora));
    let mut network = open("llama32-tiny", &NetworkOptions { train, ..options() });
    let start = recorded(&fixture("training-traces").join("expected.safetensors"));
    let mut found = 0;
    for i in 0..network.parameters().len() {
        let name = network.parameters()[i].name.replace("base_model.model.", "lora.init.");
        if let Some(values) = start.get(&name) {
            network.values_mut(i).copy_from_slice(values);
            found += 1;
        }
    }
    assert_eq!(found, network.parameters().len() / 2, "{:?}", start.keys().collect::<Vec<_>>());
    network.updated().unwrap();
    check("lora", &network, &packed(&rows(&trace("full")["data"]["input_ids"][0])));
}
