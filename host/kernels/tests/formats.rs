//! The block formats against recorded values, and packed matrices against the plain decoder.

use std::path::Path;

use stockade_kernels::{KernelError, PackedMatrix, Pool, WeightType, dequantize};

fn recorded(ty: WeightType) -> (Vec<u8>, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf-blocks");
    let bytes = std::fs::read(folder.join(format!("{ty}.bin"))).unwrap();
    let values = std::fs::read(folder.join(format!("{ty}.f32"))).unwrap();
    let values = values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (bytes, values)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn recorded_blocks_decode_bit_for_bit() {
    for ty in WeightType::ALL.into_iter().filter(|ty| !ty.is_float()) {
        let (bytes, want) = recorded(ty);
        let mut got = vec![f32::NAN; want.len()];
        dequantize(ty, &bytes, &mut got).unwrap();
        assert_eq!(bits(&got), bits(&want), "{ty}");
    }
}

#[test]
fn packed_rows_decode_bit_for_bit() {
    let pool = Pool::new(2);
    for ty in WeightType::ALL.into_iter().filter(|ty| !ty.is_float()) {
        let (bytes, want) = recorded(ty);
        for cols in [256, 512] {
            let matrix = PackedMatrix::pack(&pool, ty, 2048 / cols, cols, &bytes).unwrap();
            for (i, want) in want.chunks_exact(cols).enumerate() {
                let mut got = vec![f32::NAN; cols];
                matrix.row(i, &mut got);
                assert_eq!(bits(&got), bits(want), "{ty} row {i} of {cols} columns");
            }
        }
    }
}

#[test]
fn float_rows_of_any_length_decode_bit_for_bit() {
    let pool = Pool::new(2);
    for ty in [WeightType::F32, WeightType::F16, WeightType::BF16] {
        for (rows, cols) in [(1, 1), (3, 5), (8, 31), (9, 32), (17, 33), (2, 100)] {
            let bytes: Vec<u8> = (0..rows * ty.row_bytes(cols).unwrap()).map(|i| (i * 37 % 61 + 2) as u8).collect();
            let mut want = vec![0.0; rows * cols];
            dequantize(ty, &bytes, &mut want).unwrap();
            let matrix = PackedMatrix::pack(&pool, ty, rows, cols, &bytes).unwrap();
            for (i, want) in want.chunks_exact(cols).enumerate() {
                let mut got = vec![f32::NAN; cols];
                matrix.row(i, &mut got);
                assert_eq!(bits(&got), bits(want), "{ty} [{rows}, {cols}] row {i}");
            }
        }
    }
}

#[test]
fn packing_keeps_the_size_of_the_file() {
    let pool = Pool::new(1);
    for ty in WeightType::ALL {
        let file = 64 * ty.row_bytes(1024).unwrap();
        let matrix = PackedMatrix::pack(&pool, ty, 64, 1024, &vec![0; file]).unwrap();
        assert_eq!(Some(matrix.size_bytes()), PackedMatrix::packed_bytes(ty, 64, 1024));
        assert!(matrix.size_bytes() * 100 <= file * 103, "{ty}: {} of {file}", matrix.size_bytes());
    }
}

#[test]
fn types_without_a_kernel_are_refused() {
    for (name, id) in [("Q2_K", 10), ("Q3_K", 11), ("Q8_1", 9), ("IQ4_NL", 20), ("unknown", 1000)] {
        assert_eq!(WeightType::from_gguf(id), None, "{name}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let pool = Pool::new(1);
    let pack = |ty, rows, cols, len| PackedMatrix::pack(&pool, ty, rows, cols, &vec![0; len]);
    assert!(matches!(pack(WeightType::Q4_0, 1, 33, 18), Err(KernelError::RowLength { block: 32, .. })));
    assert!(matches!(pack(WeightType::Q4_K, 1, 128, 72), Err(KernelError::RowLength { block: 256, .. })));
    assert!(matches!(pack(WeightType::F32, 1, 0, 0), Err(KernelError::RowLength { .. })));
    assert!(matches!(pack(WeightType::F32, 0, 4, 0), Err(KernelError::Shape { .. })));
    assert!(matches!(pack(WeightType::Q8_0, 2, 32, 67), Err(KernelError::Length { have: 67, want: 68 })));
    assert!(matches!(pack(WeightType::F32, usize::MAX / 8, 8, 0), Err(KernelError::Shape { .. })));
    assert!(matches!(
        dequantize(WeightType::Q4_0, &[0; 17], &mut [0.0; 32]),
        Err(KernelError::Length { have: 17, want: 18 })
    ));
}

#[test]
fn failing_source_names_its_row() {
    let read = |row: usize, out: &mut [u8]| {
        out.fill(0);
        if row >= 300 { Err("cut off".into()) } else { Ok(()) }
    };
    let error = PackedMatrix::pack_rows(&Pool::new(1), WeightType::F32, 400, 4, &read).unwrap_err();
    assert!(matches!(error, KernelError::Source { row: 300, .. }), "{error}");
}
