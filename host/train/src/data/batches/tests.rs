use super::*;
use crate::data::cache::CacheWriter;
use crate::data::{Example, Sequence};
use proptest::prelude::*;

/// Example i holds the token i as often as its length says.
fn batches(lengths: &[usize], arrangement: Arrangement) -> Batches {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CacheWriter::create(folder.path(), "train").unwrap();
    for (i, &length) in lengths.iter().enumerate() {
        let sequence = Sequence { tokens: vec![i as u32; length], labels: vec![crate::data::IGNORE; length] };
        writer.push(&Example::Text(sequence)).unwrap();
    }
    let digest = writer.finish().unwrap();
    Batches::new(Cache::open(folder.path(), "train").unwrap(), arrangement, &digest)
}

fn arrangement() -> Arrangement {
    Arrangement {
        seed: 1,
        shuffle: false,
        packing: None,
        batch: 2,
        batch_tokens: None,
        accumulate: 2,
        length: Length::Epochs(1.0),
    }
}

/// Which examples a step has: micro-batches of rows of examples.
fn ids(data: &StepData) -> Vec<Vec<Vec<u32>>> {
    let id = |example: &Example| match example {
        Example::Text(sequence) => sequence.tokens[0],
        other => panic!("{other:?}"),
    };
    data.micro_batches.iter().map(|rows| rows.iter().map(|row| row.iter().map(id).collect()).collect()).collect()
}

#[test]
fn file_order_is_kept_and_an_epochs_last_step_is_smaller() {
    let source = batches(&[3; 7], Arrangement { length: Length::Steps(4), ..arrangement() });
    assert_eq!(source.steps(), 4);
    let want = [vec![vec![vec![0], vec![1]], vec![vec![2], vec![3]]], vec![vec![vec![4], vec![5]], vec![vec![6]]]];
    for step in 0..4 {
        let data = source.step(step).unwrap();
        assert_eq!(ids(&data), want[step as usize % 2], "step {step}");
        assert_eq!(data.epoch, step / 2);
    }
}

#[test]
fn packing_is_first_fit_and_never_exceeds_the_row() {
    let arrangement = Arrangement { packing: Some(10), batch: 1, accumulate: 1, ..arrangement() };
    let source = batches(&[6, 5, 4, 5, 10], arrangement);
    let rows: Vec<_> = (0..source.steps()).map(|step| ids(&source.step(step).unwrap())).collect();
    assert_eq!(rows, [vec![vec![vec![0, 2]]], vec![vec![vec![1, 3]]], vec![vec![vec![4]]]]);
}

#[test]
fn micro_batches_of_tokens_take_rows_while_they_fit() {
    let arrangement = Arrangement { batch_tokens: Some(10), accumulate: 1, ..arrangement() };
    let source = batches(&[4, 4, 4, 20, 1, 9], arrangement);
    let rows: Vec<_> = (0..source.steps()).flat_map(|step| ids(&source.step(step).unwrap())).collect();
    assert_eq!(rows, [vec![vec![0], vec![1]], vec![vec![2]], vec![vec![3]], vec![vec![4], vec![5]]]);
}

#[test]
fn epochs_may_be_broken_and_a_batch_larger_than_the_data_takes_all_of_it() {
    for (epochs, batch, steps) in [(1.0, 2, 2), (2.5, 2, 5), (0.1, 2, 1), (3.0, 100, 3)] {
        let arrangement = Arrangement { length: Length::Epochs(epochs), batch, ..arrangement() };
        assert_eq!(batches(&[1; 7], arrangement).steps(), steps, "{epochs} epochs of batches of {batch}");
    }
}

proptest! {
    /// Asked in any order, of a fresh source or a used one, a step is the same; each epoch sees each example once.
    #[test]
    fn steps_are_a_pure_function_and_cover_each_epoch(
        lengths in proptest::collection::vec(1usize..12, 1..200),
        packed in any::<bool>(),
        by_tokens in any::<bool>(),
        accumulate in 1usize..4,
        seed in 0u64..100,
    ) {
        let arrangement = Arrangement {
            seed,
            shuffle: true,
            packing: packed.then_some(12),
            batch: 3,
            batch_tokens: by_tokens.then_some(30),
            accumulate,
            length: Length::Epochs(3.0),
        };
        let source = batches(&lengths, arrangement.clone());
        let all: Vec<StepData> = (0..source.steps()).map(|step| source.step(step).unwrap()).collect();
        let again = batches(&lengths, arrangement);
        for step in (0..again.steps()).rev() {
            prop_assert_eq!(&again.step(step).unwrap(), &all[step as usize]);
        }
        prop_assert_eq!(source.digest(), again.digest());
        for epoch in 0..3 {
            let of_epoch = all.iter().filter(|data| data.epoch == epoch);
            let mut seen: Vec<u32> = of_epoch.flat_map(ids).flatten().flatten().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
        }
        for row in all.iter().flat_map(|data| &data.micro_batches).flatten().filter(|_| packed) {
            let tokens: u32 = row.iter().map(crate::data::examples::length).sum();
            prop_assert!(tokens <= 12);
        }
    }
}
