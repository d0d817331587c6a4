//! Writes a model in every form that is exported, for `tests/clients/exported_forms.py` to load elsewhere:
//! `export_forms BASE OUT` makes `OUT/model`, `OUT/{lora,dora}` with `OUT/{lora,dora}-merged`, and `OUT/TYPE.gguf`.
//! The adapters are random, so that they change every answer.

use std::path::PathBuf;
use stockade_core::BoxError;
use stockade_model::Checkpoint;
use stockade_train::export::{AdapterTensors, GgufType, Origin, merge, to_gguf, write_adapter, write_model};
use stockade_train::job::{AdapterKind, AdapterSpec, Named, TARGETS};
use stockade_train::network::{self, Network, NetworkOptions, Trained};
use stockade_train::random::{Purpose, normal};

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(base), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: export_forms BASE OUT".into());
    };
    let checkpoint = Checkpoint::open(&base)?;
    let config = checkpoint.config()?;
    let model = write_model(&out.join("model"), Origin::of(&base), &config, &checkpoint, None)?;
    for (name, kind, own) in [
        ("lora", AdapterKind::Lora, network::AdapterKind::Lora),
        ("dora", AdapterKind::Dora, network::AdapterKind::Dora),
    ] {
        let targets: Vec<String> = TARGETS.map(String::from).to_vec();
        let (rank, rank_stabilised, dropout) = (8, kind == AdapterKind::Dora, 0.0);
        let spec = AdapterSpec { kind, rank, alpha: 16.0, dropout, targets: targets.clone(), rank_stabilised };
        let adapter = network::Adapter { kind: own, rank, alpha: 16.0, rank_stabilised, dropout: 0.0, targets };
        let options = NetworkOptions { train: Trained::Adapter(adapter), seed: 1, ..NetworkOptions::default() };
        let mut network = Network::open(&checkpoint, &config, &options)?;
        for i in 0..network.parameters().len() {
            for (j, value) in network.values_mut(i).iter_mut().enumerate() {
                *value += 0.02 * normal(1, Purpose::Initialisation, i as u64, j as u64) as f32;
            }
        }
        network.updated().unwrap();
        let folder = out.join(name);
        write_adapter(&folder, &model.display().to_string(), &spec, &AdapterTensors(&network))?;
        merge(&model, &folder, &out.join(format!("{name}-merged")), Some(stockade_train::job::Dtype::F32))?;
    }
    for ty in GgufType::ALL {
        to_gguf(&base, &out.join(format!("{}.gguf", ty.name())), *ty)?;
    }
    Ok(())
}
