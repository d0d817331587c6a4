//! Every kernel against sums in f64, over shapes on, below and above every block size.

use super::super::simd::{Level, level};
use super::*;
use crate::random::{Purpose, normal};

fn values(n: usize, salt: u64) -> Vec<f32> {
    (0..n as u64).map(|i| normal(11, Purpose::Split, salt, i) as f32).collect()
}

/// All kernels of this machine by name, with the largest error relative to the sum of magnitudes.
fn kernels() -> Vec<(Products, f64)> {
    let pool = Arc::new(Pool::new(2));
    let new = |precision| Products::new(Arc::clone(&pool), Buffers::default(), precision);
    let (f32, half) = (new(Precision::F32), new(Precision::Bf16));
    let plain = |products: &Products| Products { kernel: None, ..products.clone() };
    let mut all = vec![(plain(&f32), 1e-6), (plain(&half), 5e-3)];
    #[cfg(target_arch = "x86_64")]
    if bf16::available() {
        all.push((Products { kernel: Some(&bf16::BF16), ..half.clone() }, 5e-3));
    }
    all.extend([(f32, 1e-6), (half, 5e-3)]);
    all
}

#[test]
fn products_are_those_of_f64_for_every_kernel_shape_and_orientation() {
    let shapes = [
        (1, 1, 1),
        (11, 31, 15),
        (12, 32, 16),
        (13, 33, 17),
        (32, 64, 32),
        (70, 50, 600),
        (200, 8, 40),
        (8, 200, 1100),
        (513, 97, 65),
        (33, 1, 2),
    ];
    for (products, tolerance) in kernels() {
        for (m, n, k) in shapes {
            for (left_turned, right_turned) in [(false, false), (false, true), (true, false), (true, true)] {
                for into in [Into::Set, Into::Add] {
                    let what = format!("{products:?} {m}x{n}x{k} {left_turned} {right_turned} {into:?}");
                    let (a, b) = (values(m * k, 1), values(k * n, 2));
                    let lhs = if left_turned { View::new(&a, k, m).t() } else { View::new(&a, m, k) };
                    let rhs = if right_turned { View::new(&b, n, k).t() } else { View::new(&b, k, n) };
                    // Rows are further apart than they are wide, and what lies between stays as it is.
                    let stride = n + 3;
                    let start = values(m * stride + 1, 3);
                    let (mut out, mut here) = (start.clone(), start.clone());
                    products.multiply(lhs, rhs, 0.5, into, Target::columns(&mut out, m, 1, n, stride));
                    let (ready, target) = (products.ready(rhs), Target::columns(&mut here, m, 1, n, stride));
                    products.multiply_ready(lhs, &ready, (0..k, 0..n), 0.5, into, target);
                    let at = |view: View<'_>, i: usize, j: usize| {
                        f64::from(view.values[i * view.row_stride + j * view.col_stride])
                    };
                    for (place, (&got, &old)) in out.iter().zip(&start).enumerate() {
                        let (i, j) = ((place.max(1) - 1) / stride, (place.max(1) - 1) % stride);
                        if place == 0 || i >= m || j >= n {
                            assert!(got == old, "{what} at {place}");
                            continue;
                        }
                        let terms = || (0..k).map(|p| 0.5 * at(lhs, i, p) * at(rhs, p, j));
                        let old = if into == Into::Add { f64::from(old) } else { 0.0 };
                        let (want, size) = (old + terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>() + old.abs());
                        let error = (f64::from(got) - want).abs() / (size + 1e-30);
                        assert!(error <= tolerance, "{what} at {i}, {j}: {got} for {want}");
                    }
                    let same = out.iter().zip(&here).all(|(a, b)| (a - b).abs() <= 1e-3 * (1.0 + a.abs()));
                    assert!(same, "{what} on one thread");
                }
            }
        }
    }
}

#[test]
fn kernels_are_those_that_the_processor_has() {
    for (products, _) in kernels() {
        eprintln!("{products:?}");
    }
    if level() == Level::Avx512 {
        assert_eq!(find(Precision::F32).map(|kernel| kernel.name), Some("avx512"));
    }
}

#[test]
fn a_product_does_not_depend_on_threads() {
    let (a, b) = (values(300 * 1500, 4), values(1500 * 90, 5));
    for precision in [Precision::F32, Precision::Bf16] {
        let run = |workers: usize| {
            let products = Products::new(Arc::new(Pool::new(workers)), Buffers::default(), precision);
            let mut out = vec![0.0f32; 300 * 90];
            let (lhs, rhs) = (View::new(&a, 300, 1500), View::new(&b, 1500, 90));
            products.multiply(lhs, rhs, 1.0, Into::Set, Target::new(&mut out, 300, 90));
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert!(run(1) == run(2) && run(1) == run(5), "{precision:?}");
    }
}
