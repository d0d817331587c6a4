//! Damage on disk: of the truth it is refused with file and offset, of the index it is mended.

mod support;

use std::path::{Path, PathBuf};
use stockade_core::store::{Batch, Store};
use stockade_state::{IndexOrigin, OpenError};
use support::{Draw, Rows, block_on, copy_folder, files, fill, open, rows};

/// A closed state with a snapshot and several segments.
fn sample(folder: &Path) -> Rows {
    let state = open(folder).unwrap();
    fill(&state, 40, 100);
    block_on(state.compact()).unwrap();
    fill(&state, 120, 300);
    block_on(state.commit(Batch::new().put("last", "v"))).unwrap();
    let want = rows(&state);
    block_on(state.close());
    want
}

fn with_fresh_copy(sample: &Path, check: impl FnOnce(&Path)) {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("state");
    copy_folder(sample, &folder);
    check(&folder);
}

#[test]
fn a_flipped_bit_anywhere_in_the_journal_is_refused_with_its_place() {
    let original = tempfile::tempdir().unwrap();
    let want = sample(original.path());
    let segments = files(original.path(), "journal");
    assert!(segments.len() >= 3);
    let mut draw = Draw(11);
    for (i, segment) in segments.iter().enumerate() {
        let name = segment.file_name().unwrap();
        let bytes = std::fs::read(segment).unwrap();
        for round in 0..12 {
            let bit = match round {
                // Header, first record's length, checksum and sequence, the very last byte.
                0 => 3,
                1 => 8 * 24 + 1,
                2 => 8 * 28,
                3 => 8 * 33,
                4 => 8 * bytes.len() as u64 - 1,
                _ => draw.below(8 * bytes.len() as u64),
            };
            with_fresh_copy(original.path(), |folder| {
                let mut damaged = bytes.clone();
                damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
                std::fs::write(folder.join("journal").join(name), damaged).unwrap();
                match open(folder) {
                    Err(OpenError::Corrupt { file, offset, .. }) => {
                        assert_eq!(file.file_name().unwrap(), name);
                        assert!(offset <= bit / 8, "{offset} is behind the damage at {}", bit / 8);
                    }
                    // The last record alone: the journal cannot tell damage from a torn write, the index can.
                    Err(OpenError::JournalBehind { .. }) => {
                        assert_eq!(i + 1, segments.len());
                        assert!(bit / 8 > bytes.len() as u64 - 40, "bit {bit}");
                    }
                    other => panic!("segment {i} bit {bit}: {:?}", other.err()),
                }
                // What is refused is not changed: with the bit set right it opens again.
                std::fs::write(folder.join("journal").join(name), &bytes).unwrap();
                assert_eq!(rows(&open(folder).unwrap()), want);
            });
        }
    }
}

#[test]
fn a_missing_shortened_or_foreign_file_of_the_truth_is_refused() {
    let original = tempfile::tempdir().unwrap();
    sample(original.path());
    let segments = files(original.path(), "journal");
    let snapshot = files(original.path(), "snapshot").pop().unwrap();
    let cases: Vec<(&str, PathBuf, bool)> = vec![
        ("first segment gone", segments[0].clone(), true),
        ("middle segment gone", segments[1].clone(), true),
        ("snapshot gone", snapshot.clone(), true),
        ("first segment shortened", segments[0].clone(), false),
        ("layout gone", original.path().join("layout"), true),
    ];
    for (name, path, remove) in cases {
        for with_index in [true, false] {
            with_fresh_copy(original.path(), |folder| {
                let path = folder.join(path.strip_prefix(original.path()).unwrap());
                if remove {
                    std::fs::remove_file(&path).unwrap();
                } else {
                    let file = std::fs::File::options().write(true).open(&path).unwrap();
                    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
                }
                if !with_index {
                    std::fs::remove_dir_all(folder.join("index")).unwrap();
                }
                let got = open(folder);
                assert!(matches!(got, Err(OpenError::Corrupt { .. })), "{name}: {:?}", got.err());
            });
        }
    }
    with_fresh_copy(original.path(), |folder| {
        std::fs::remove_file(files(folder, "journal").pop().unwrap()).unwrap();
        assert!(matches!(open(folder), Err(OpenError::JournalBehind { .. })));
    });
    with_fresh_copy(original.path(), |folder| {
        for segment in files(folder, "journal") {
            std::fs::remove_file(segment).unwrap();
        }
        assert!(matches!(open(folder), Err(OpenError::Corrupt { .. })));
    });
}

#[test]
fn a_damaged_snapshot_is_refused_when_needed_and_found_when_verified() {
    let original = tempfile::tempdir().unwrap();
    let want = sample(original.path());
    let snapshot = files(original.path(), "snapshot").pop().unwrap();
    let bytes = std::fs::read(&snapshot).unwrap();
    let mut draw = Draw(13);
    for round in 0..12 {
        with_fresh_copy(original.path(), |folder| {
            let mut damaged = bytes.clone();
            if round % 3 == 0 {
                damaged.truncate(draw.below(bytes.len() as u64) as usize);
            } else {
                let bit = draw.below(8 * bytes.len() as u64);
                damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            let path = files(folder, "snapshot").pop().unwrap();
            std::fs::write(&path, damaged).unwrap();
            // The index has it all, so the state serves, and says what is wrong when asked.
            let state = open(folder).unwrap();
            assert_eq!(rows(&state), want);
            assert_eq!(block_on(state.verify()).unwrap().damage.len(), 1);
            assert!(block_on(state.compact()).is_err(), "damage must not be compacted into truth");
            drop(state);
            std::fs::remove_dir_all(folder.join("index")).unwrap();
            match open(folder) {
                Err(OpenError::Corrupt { file, .. }) => assert_eq!(file, path),
                other => panic!("{:?}", other.err()),
            }
        });
    }
}

#[test]
fn a_damaged_index_is_noticed_and_rebuilt() {
    let original = tempfile::tempdir().unwrap();
    let want = sample(original.path());
    let mut index_files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![original.path().join("index")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::metadata(&path).unwrap().len() > 0 {
                index_files.push(path);
            }
        }
    }
    index_files.sort();
    assert!(!index_files.is_empty());
    let mut draw = Draw(17);
    let mut rebuilt = 0;
    for round in 0..48 {
        with_fresh_copy(original.path(), |folder| {
            let victim = &index_files[draw.below(index_files.len() as u64) as usize];
            let victim = folder.join(victim.strip_prefix(original.path()).unwrap());
            let mut bytes = std::fs::read(&victim).unwrap();
            let n = bytes.len() as u64;
            let what = match round % 6 {
                0 => {
                    std::fs::remove_file(&victim).unwrap();
                    "removed"
                }
                1 => {
                    bytes.truncate(draw.below(n) as usize);
                    "truncated"
                }
                2 => {
                    let bit = draw.below(8 * n);
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                    "one bit flipped"
                }
                3 => {
                    let start = draw.below(n) as usize;
                    let end = (start + 4096).min(n as usize);
                    bytes[start..end].fill(0);
                    "a page zeroed"
                }
                4 => {
                    for _ in 0..64 {
                        let at = draw.below(n) as usize;
                        bytes[at] = draw.below(256) as u8;
                    }
                    "64 bytes scribbled"
                }
                _ => {
                    bytes.fill(0xa5);
                    "filled with noise"
                }
            };
            if victim.exists() {
                std::fs::write(&victim, bytes).unwrap();
            }
            let state = open(folder).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(rows(&state), want, "round {round}: {} {what}", victim.display());
            rebuilt += u32::from(state.status().index == IndexOrigin::Rebuilt);
            assert_eq!(block_on(state.verify()).unwrap().damage, Vec::<String>::new());
            block_on(state.commit(Batch::new().put("after", "v"))).unwrap();
            block_on(state.close());
            let state = open(folder).unwrap();
            assert_eq!(rows(&state).len(), want.len() + 1, "round {round}: {what}");
        });
    }
    assert!(rebuilt > 12, "hardly any damage was noticed: {rebuilt} of 48");
    println!("{rebuilt} of 48 rebuilt, the others hit bytes that sled does not use");
}

#[test]
fn an_index_of_another_journal_is_not_believed() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let want = sample(a.path());
    let state = open(b.path()).unwrap();
    for i in 0..161u32 {
        block_on(state.commit(Batch::new().put(format!("other-{i}"), "v"))).unwrap();
    }
    block_on(state.close());
    std::fs::remove_dir_all(a.path().join("index")).unwrap();
    copy_folder(&b.path().join("index"), &a.path().join("index"));
    let state = open(a.path()).unwrap();
    assert_eq!(state.status().index, IndexOrigin::Rebuilt);
    assert_eq!(rows(&state), want);
}

#[test]
fn an_index_that_is_a_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let want = sample(folder.path());
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    std::fs::write(folder.path().join("index"), "no folder").unwrap();
    assert_eq!(rows(&open(folder.path()).unwrap()), want);
}
