//! The encoders against bytes that ggml's own made of the same weights, and against the decoder.

use proptest::prelude::*;
use std::path::Path;
use stockade_kernels::{KernelError, WeightType, dequantize, quantize};

fn encoded(ty: WeightType, values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    quantize(ty, values, &mut bytes).unwrap();
    bytes
}

fn decoded(ty: WeightType, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; count];
    dequantize(ty, bytes, &mut values).unwrap();
    values
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// `weights.f32`: rows of 512, normal and heavy-tailed, some with outliers, zeros and tiny values; made with the
/// script `make.py` beside them.
#[test]
fn encoders_are_no_worse_than_ggmls_and_choose_nearly_the_same_bytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf-encoded");
    let weights = std::fs::read(folder.join("weights.f32")).unwrap();
    let weights: Vec<f32> = weights.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    for ty in WeightType::ALL.into_iter().filter(|ty| !ty.is_float()) {
        let theirs = std::fs::read(folder.join(format!("{ty}.bin"))).unwrap();
        let ours = encoded(ty, &weights);
        assert_eq!(ours.len(), theirs.len(), "{ty}");
        let error = |bytes: &[u8]| squared_error(&decoded(ty, bytes, weights.len()), &weights);
        let (our_error, their_error) = (error(&ours), error(&theirs));
        assert!(our_error <= their_error * 1.0001, "{ty}: {our_error} against {their_error}");
        let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        assert!(same * 1000 >= ours.len() * 995, "{ty}: {same} of {} bytes are the same", ours.len());
    }
}

#[test]
fn zeros_stay_zeros_and_broken_rows_are_refused() {
    for ty in WeightType::ALL {
        let values = decoded(ty, &encoded(ty, &[0.0; 512]), 512);
        assert!(values.iter().all(|&value| value == 0.0), "{ty}");
        if !ty.is_float() {
            let refused = quantize(ty, &[1.0; 33], &mut Vec::new());
            assert!(matches!(refused, Err(KernelError::RowLength { .. })), "{ty}");
        }
    }
}

proptest! {
    /// Every value is off by no more than its block's step.
    #[test]
    fn values_come_back_within_a_step(values in proptest::collection::vec(-3.0f32..3.0, 256), scale in -6i32..10) {
        let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(scale)).collect();
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (ty, steps) in [
            (WeightType::Q4_0, 8.0), (WeightType::Q4_1, 7.5), (WeightType::Q5_0, 16.0), (WeightType::Q5_1, 15.5),
            (WeightType::Q8_0, 127.0), (WeightType::Q4_K, 7.0), (WeightType::Q5_K, 14.0), (WeightType::Q6_K, 30.0),
        ] {
            let found = decoded(ty, &encoded(ty, &values), values.len());
            // Scales are rounded to half precision and, of the K formats, to six or eight bits before.
            let bound = 1.1 * largest / steps + 1e-6;
            for (found, value) in found.iter().zip(&values) {
                prop_assert!((found - value).abs() <= bound, "{}: {} for {} of {}", ty, found, value, largest);
            }
        }
    }
}
