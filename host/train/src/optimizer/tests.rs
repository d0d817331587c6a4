//! Golden float64 values of optimizers and schedules, and equality over thread counts.

use super::muon::orthogonalise;
use super::*;
use crate::reference::reference_file;
use serde_json::Value;

fn golden() -> Option<Value> {
    let path = reference_file("data/train-golden/golden.json")?;
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn assert_close(name: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{name} {i}: {got}, expected {want}");
    }
}

fn parameter(kind: Kind, shape: &[usize]) -> Parameter {
    Parameter { name: "w".into(), shape: shape.to_vec(), kind }
}

const ADAMW: OptimizerSettings =
    OptimizerSettings { rate: 1.0, betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, muon: None };
const MUON: Muon = Muon {
    momentum: 0.95,
    orthogonalisation: Orthogonalisation::NewtonSchulz,
    scale: MuonScale::Aspect,
    rate: 1.0,
    weight_decay: 0.1,
};

#[test]
fn adamw_and_adam_have_their_golden_values() {
    let Some(golden) = golden() else { return };
    let adam = OptimizerSettings { betas: (0.9, 0.999), weight_decay: 0.0, ..ADAMW };
    for (name, settings) in [("adamw", ADAMW), ("adam", adam)] {
        let pool = Pool::new(1);
        let mut optimizer = Optimizer::new(&[parameter(Kind::Matrix, &[3, 4])], settings);
        let mut p: Vec<f32> = (0..12).map(|i| (-1.0 + 2.0 * f64::from(i) / 11.0) as f32).collect();
        for step in 0..4 {
            let g: Vec<f32> = (0..12).map(|i| ((i * (step + 1)) as f64).sin() as f32 + 0.3 * p[i]).collect();
            optimizer.begin(0.05);
            optimizer.update(0, &mut p, &g, 1.0, &pool);
            assert_close(name, &p, &flat(&golden["optimizers"][name][step]), 1e-6);
        }
        assert_eq!(optimizer.applied(), 4);
    }
}

#[test]
fn decay_leaves_gains_biases_and_magnitudes_alone() {
    for (kind, decays) in [
        (Kind::Matrix, true),
        (Kind::Embedding, true),
        (Kind::Adapter, true),
        (Kind::Head, true),
        (Kind::Norm, false),
        (Kind::Bias, false),
        (Kind::Magnitude, false),
    ] {
        let mut optimizer = Optimizer::new(&[parameter(kind, &[4])], ADAMW);
        let mut p = [1.0f32; 4];
        optimizer.begin(0.5);
        optimizer.update(0, &mut p, &[0.0; 4], 1.0, &Pool::new(1));
        assert_eq!(p != [1.0; 4], decays, "{kind:?}");
    }
}

#[test]
fn orthogonalisation_has_its_golden_values() {
    let Some(golden) = golden() else { return };
    let golden = &golden["muon"];
    for shape in ["wide", "tall"] {
        let x: Vec<f32> = flat(&golden[shape]).iter().map(|&x| x as f32).collect();
        let rows = golden[shape].as_array().unwrap().len();
        for (name, method) in
            [("newton_schulz5", Orthogonalisation::NewtonSchulz), ("polar_express", Orthogonalisation::PolarExpress)]
        {
            let got = orthogonalise(x.clone(), rows, x.len() / rows, method, &Pool::new(1));
            assert_close(name, &got, &flat(&golden[format!("{name}_{shape}")]), 2e-4);
        }
    }
}

#[test]
fn muon_moves_hidden_matrices_as_its_formula_says() {
    let settings = OptimizerSettings { muon: Some(MUON), ..ADAMW };
    let pool = Pool::new(1);
    let (rows, cols) = (6, 3);
    let g: Vec<f32> = (0..18).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut optimizer = Optimizer::new(&[parameter(Kind::Matrix, &[rows, cols])], settings);
    let mut p = vec![0.5f32; 18];
    optimizer.begin(0.02);
    optimizer.update(0, &mut p, &g, 0.5, &pool);
    // From zero momentum u is a multiple of g, and orthogonalisation does not see its length.
    let orthogonal = orthogonalise(g.clone(), rows, cols, MUON.orthogonalisation, &pool);
    let want: Vec<f64> =
        orthogonal.iter().map(|&u| 0.5 * (1.0 - 0.02 * 0.1) - 0.02 * (2.0f64).sqrt() * f64::from(u)).collect();
    assert_close("muon", &p, &want, 1e-5);
    assert_eq!(optimizer.moments().map(|(name, _)| name).collect::<Vec<_>>(), ["momentum.w"]);
    let embedding = Optimizer::new(&[parameter(Kind::Embedding, &[rows, cols])], settings);
    assert_eq!(embedding.moments().count(), 2, "embeddings are AdamW's");
}

#[test]
fn updates_are_the_same_for_any_number_of_threads() {
    let (rows, cols) = (300, 500);
    let g: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    for muon in [None, Some(MUON)] {
        let run = |threads| {
            let pool = Pool::new(threads);
            let mut optimizer =
                Optimizer::new(&[parameter(Kind::Matrix, &[rows, cols])], OptimizerSettings { muon, ..ADAMW });
            let mut p = vec![0.25f32; rows * cols];
            for _ in 0..2 {
                optimizer.begin(0.01);
                optimizer.update(0, &mut p, &g, 0.5, &pool);
            }
            (p, optimizer)
        };
        assert!(run(1) == run(3), "{muon:?}");
    }
}

#[test]
fn moments_go_through_a_checkpoint() {
    let pool = Pool::new(1);
    let parameters = [parameter(Kind::Matrix, &[2, 2])];
    let mut optimizer = Optimizer::new(&parameters, ADAMW);
    let mut p = [1.0f32; 4];
    optimizer.begin(0.1);
    optimizer.update(0, &mut p, &[1.0, -2.0, 0.5, 0.0], 1.0, &pool);
    let kept: Vec<(String, Vec<f32>)> = optimizer.moments().map(|(name, m)| (name, m.to_vec())).collect();
    let mut other = Optimizer::new(&parameters, ADAMW);
    for ((name, to), (kept_name, from)) in other.restore(optimizer.applied()).zip(&kept) {
        assert_eq!(&name, kept_name);
        to.copy_from_slice(from);
    }
    let step = |mut optimizer: Optimizer| {
        let mut p = p;
        optimizer.begin(0.1);
        optimizer.update(0, &mut p, &[0.5; 4], 1.0, &pool);
        p
    };
    assert_eq!(step(optimizer), step(other));
}

#[test]
fn schedules_have_their_golden_values() {
    let Some(golden) = golden() else { return };
    let golden = &golden["schedules"];
    let floor = golden["floor"].as_f64().unwrap();
    for (name, shape) in [("cosine", Shape::Cosine), ("linear", Shape::Linear), ("wsd_linear", Shape::Wsd { decay: 8 })]
    {
        let schedule = Schedule { shape, warmup: 4, steps: 20, floor };
        for (step, want) in flat(&golden[name]).into_iter().enumerate() {
            let got = schedule.factor(step as u64);
            assert!((got - want).abs() < 1e-12, "{name} {step}: {got}, expected {want}");
        }
    }
}

#[test]
fn odd_schedules_stay_within_their_bounds() {
    for shape in [Shape::Constant, Shape::Cosine, Shape::Linear, Shape::Wsd { decay: 0 }, Shape::Wsd { decay: 99 }] {
        for (warmup, steps) in [(0, 0), (0, 1), (5, 5), (9, 3)] {
            let schedule = Schedule { shape, warmup, steps, floor: 0.1 };
            for step in 0..12 {
                let factor = schedule.factor(step);
                assert!(factor > 0.0 && factor <= 1.0, "{shape:?} {warmup} {steps} {step}: {factor}");
            }
        }
    }
}

#[test]
fn clipping_has_its_golden_values() {
    let Some(golden) = golden() else { return };
    let golden = &golden["clip"];
    let norm = flat(&golden["a"]).iter().chain(&flat(&golden["b"])).map(|x| x * x).sum::<f64>().sqrt();
    assert!((norm - golden["norm"].as_f64().unwrap()).abs() < 1e-12);
    let scale = clip_scale(norm, golden["max_norm"].as_f64().unwrap());
    assert!((f64::from(scale) - golden["scale"].as_f64().unwrap()).abs() < 1e-7);
    assert_eq!((clip_scale(0.5, 1.0), clip_scale(1e9, 0.0)), (1.0, 1.0));
}
