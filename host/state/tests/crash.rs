//! Crashes: a process killed at random moments, and power cuts simulated on copies of the folder.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use stockade_core::store::{Batch, Blobs, Expect, Revision, Store};
use stockade_state::{Config, IndexOrigin, OpenError, State};
use support::{
    Draw, Rows, Since, at_once, block_on, config, copy_folder, files, fill, kill_after, killed_in, open, rows,
};

const ROUNDS: u64 = 25;
const COMMITTERS: u64 = 4;

/// Segments and compactions come often, so that kills hit them too.
fn crash_config() -> Config {
    Config { compact_after_bytes: 48 << 10, ..config() }
}

/// Commits until killed. Each batch writes the same number under two keys and counts its committer up by
/// compare-and-set; the acknowledged ones are printed.
fn commit_until_killed(folder: &Path) {
    let state = Arc::new(State::open(folder, crash_config()).unwrap());
    println!("open");
    block_on(async {
        let mut committers = tokio::task::JoinSet::new();
        for c in 0..COMMITTERS {
            let state = state.clone();
            committers.spawn(async move {
                let counter = format!("counter/{c}");
                let blobs = state.blobs();
                loop {
                    let (count, expect) = read_counter(&*state, &counter);
                    let n = count + 1;
                    let value = vec![n as u8; 100 + (n % 900) as usize];
                    let mut batch = Batch::new()
                        .expect(counter.clone(), expect)
                        .put(counter.clone(), n.to_string())
                        .put(format!("left/{c}/{}", n % 50), value.clone())
                        .put(format!("right/{c}/{}", n % 50), value);
                    if n.is_multiple_of(10) {
                        let digest = blobs.put(format!("{c} {n}").into()).await.unwrap();
                        batch = batch.put(format!("blob/{c}"), digest.to_string());
                    }
                    state.commit(batch).await.unwrap();
                    println!("{c} {n}");
                }
            });
        }
        // They only end by a panic.
        committers.join_next().await.unwrap().unwrap()
    });
}

/// A committer's count, and what to expect of its row when it is counted up.
fn read_counter(state: &dyn Store, key: &str) -> (u64, Expect) {
    match state.get(key.as_bytes()).unwrap() {
        None => (0, Expect::Absent),
        Some(row) => {
            let text = String::from_utf8(row.value.to_vec()).unwrap();
            (text.parse().unwrap(), Expect::Revision(row.revision))
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    if let Some(folder) = killed_in() {
        return commit_until_killed(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut draw = Draw(0x5eed);
    let mut acknowledged = BTreeMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let name = "nothing_acknowledged_is_lost_when_the_process_is_killed";
        let lines = kill_after(name, folder.path(), Since::Spawned, 20 + draw.below(500));
        for line in lines {
            let Some((c, n)) = line.split_once(' ') else {
                continue;
            };
            if let (Ok(c), Ok(n)) = (c.parse::<u64>(), n.parse::<u64>()) {
                acknowledged.insert(c, n);
                total += 1;
            }
        }

        if round % 5 == 4 {
            // The journal alone must hold it all as well.
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let state = State::open(folder.path(), crash_config()).unwrap();
        let blobs = state.blobs();
        for c in 0..COMMITTERS {
            let (n, _) = read_counter(&state, &format!("counter/{c}"));
            let heard = acknowledged.get(&c).copied().unwrap_or(0);
            assert!(n >= heard, "round {round}: committer {c} is at {n}, {heard} was acknowledged");
            for i in n.saturating_sub(49).max(1)..=n {
                let want = vec![i as u8; 100 + (i % 900) as usize];
                for side in ["left", "right"] {
                    let row = state.get(format!("{side}/{c}/{}", i % 50).as_bytes());
                    assert_eq!(row.unwrap().expect("whole batches").value, want, "{side} {i}");
                }
            }
            if let Some(row) = state.get(format!("blob/{c}").as_bytes()).unwrap() {
                let digest = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
                assert!(block_on(blobs.get(digest)).is_ok(), "a row names a blob that is not there");
            }
        }
        drop(blobs);
        let found = block_on(state.verify()).unwrap();
        assert_eq!(found.damage, Vec::<String>::new(), "round {round}");
        block_on(state.close());
    }
    assert!(total > ROUNDS, "the child hardly committed: {total}");
    println!("{total} acknowledged commits in {ROUNDS} rounds");
}

/// A folder whose last segment ends with the records of several acknowledged groups; answers how long the segment was
/// and what the rows were after each.
fn folder_with_known_ends(folder: &Path) -> Vec<(u64, Rows)> {
    let state = open(folder).unwrap();
    fill(&state, 60, 200);
    block_on(state.compact()).unwrap();
    let length = || {
        let active = files(folder, "journal").pop().unwrap();
        std::fs::metadata(active).unwrap().len()
    };
    let mut ends = vec![(length(), rows(&state))];
    for i in 0..4u8 {
        // Groups of one and of several batches.
        let group = (0..=i % 3).map(|j| {
            let batch = Batch::new()
                .put(format!("tail-{i}-{j}"), vec![i; 9])
                .put(format!("twin-{i}-{j}"), vec![i; 9])
                .delete(format!("key-{i}"));
            state.commit(batch)
        });
        for outcome in block_on(at_once(group)) {
            outcome.unwrap();
        }
        ends.push((length(), rows(&state)));
    }
    block_on(state.close());
    ends
}

#[test]
fn a_journal_cut_at_any_byte_of_its_tail_opens_with_the_whole_records_before() {
    let original = tempfile::tempdir().unwrap();
    let ends = folder_with_known_ends(original.path());
    let active = files(original.path(), "journal").pop().unwrap();
    let (first, last) = (ends[0].0, ends.last().unwrap().0);
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("cut");
    copy_folder(original.path(), &folder);
    let bytes = std::fs::read(&active).unwrap();
    assert_eq!(bytes.len() as u64, last);
    let active = folder.join("journal").join(active.file_name().unwrap());
    for cut in first..=last {
        let _ = std::fs::remove_dir_all(folder.join("index"));
        std::fs::write(&active, &bytes[..cut as usize]).unwrap();
        let state = open(&folder).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let (end, want) = ends.iter().rev().find(|(end, _)| *end <= cut).unwrap();
        // A group of several batches may have been written as several records: all that is asked is that the rows
        // are those of some whole number of them, no older than the last acknowledged moment.
        let got = rows(&state);
        if *end == cut {
            assert_eq!(got, *want, "cut at {cut}");
        }
        assert!(want.keys().filter(|k| !k.starts_with(b"key-")).all(|k| got.contains_key(k)), "cut at {cut}");
        for (key, value) in &got {
            if let Some(rest) = key.strip_prefix(b"tail-") {
                let twin = [b"twin-", rest].concat();
                assert_eq!(got.get(&twin), Some(value), "cut at {cut}: half a batch");
            }
        }
        // The torn bytes are gone, and the next commit takes the next number.
        let next = block_on(state.commit(Batch::new().put("next", "v"))).unwrap();
        assert_eq!(next, got.values().map(|(r, _)| *r).max().unwrap() + 1);
        drop(state);
        if cut % 16 == 0 {
            assert_eq!(open(&folder).unwrap().status().last_commit, next);
        }
    }
}

#[test]
fn unsynced_pages_of_the_last_record_may_be_lost_in_any_order() {
    let original = tempfile::tempdir().unwrap();
    let state = open(original.path()).unwrap();
    fill(&state, 20, 100);
    let before = rows(&state);
    let active = files(original.path(), "journal").pop().unwrap();
    let synced = std::fs::metadata(&active).unwrap().len() as usize;
    // The first commit of these forms a group of its own; the rest share the second record.
    let commits = (0..40u8).map(|i| state.commit(Batch::new().put(vec![i], vec![i; 1000])));
    block_on(at_once(commits));
    block_on(state.close());
    let bytes = std::fs::read(files(original.path(), "journal").pop().unwrap()).unwrap();
    let records = record_starts(&bytes);
    let last = *records.last().unwrap();
    assert!(last >= synced && bytes.len() - last > 8192, "the last record is large");

    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("torn");
    let mut draw = Draw(7);
    for round in 0..16 {
        let _ = std::fs::remove_dir_all(&folder);
        copy_folder(original.path(), &folder);
        std::fs::remove_dir_all(folder.join("index")).unwrap();
        let mut torn = bytes.clone();
        // Each 512-byte sector of the unsynced record is there or zero; one at least is lost.
        let sectors = (bytes.len() - last).div_ceil(512) as u64;
        let sure = draw.below(sectors);
        for sector in 0..sectors {
            if sector == sure || draw.below(3) == 0 {
                let start = last + 512 * sector as usize;
                let end = (start + 512).min(torn.len());
                torn[start..end].fill(0);
            }
        }
        std::fs::write(files(&folder, "journal").pop().unwrap(), &torn).unwrap();
        let state = open(&folder).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let got = rows(&state);
        assert!(before.iter().all(|(key, value)| got.get(key) == Some(value)));
        let rest = 60 - state.status().last_commit;
        assert!(rest > 0 && got.len() as u64 == 60 - rest, "the torn group is gone as a whole");
    }
}

/// Where the records of a segment start, by the format's own lengths.
fn record_starts(segment: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 24;
    while at < segment.len() {
        starts.push(at);
        at += 16 + u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    }
    assert_eq!(at, segment.len());
    starts
}

#[test]
fn a_journal_that_lost_what_the_index_has_is_refused_until_the_index_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let ends = folder_with_known_ends(folder.path());
    let (end, want) = &ends[ends.len() - 2];
    let last: Revision = 60 + 1 + 2 + 3 + 1;
    let active = files(folder.path(), "journal").pop().unwrap();
    let file = std::fs::File::options().write(true).open(active).unwrap();
    file.set_len(*end).unwrap();
    match open(folder.path()) {
        Err(OpenError::JournalBehind { journal, index, .. }) => {
            assert!(journal < last);
            assert_eq!(index, last);
        }
        other => panic!("{:?}", other.err()),
    }
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    assert_eq!(rows(&open(folder.path()).unwrap()), *want);
}

#[test]
fn a_crash_between_any_two_steps_of_a_compaction_loses_nothing() {
    let original = tempfile::tempdir().unwrap();
    let state = open(original.path()).unwrap();
    fill(&state, 100, 300);
    block_on(state.compact()).unwrap();
    fill(&state, 150, 310);
    let want = rows(&state);
    drop(state);
    let before = tempfile::tempdir().unwrap();
    copy_folder(original.path(), &before.path().join("s"));
    let state = open(original.path()).unwrap();
    block_on(state.compact()).unwrap();
    drop(state);

    let names = |folder: &Path| -> Vec<_> {
        let mut all = files(folder, "journal");
        all.extend(files(folder, "snapshot"));
        all.into_iter().map(|p| p.file_name().unwrap().to_owned()).collect()
    };
    let new: Vec<_> =
        names(original.path()).into_iter().filter(|n| !names(&before.path().join("s")).contains(n)).collect();
    let stale: Vec<_> =
        names(&before.path().join("s")).into_iter().filter(|n| !names(original.path()).contains(n)).collect();
    assert!(new.len() == 2 && stale.len() >= 3, "{new:?} {stale:?}");
    let is = |name: &std::ffi::OsStr, e: &str| Path::new(name).extension().is_some_and(|x| x == e);

    // The steps in their order: new segment, half a snapshot, the snapshot, then each removal.
    let work = tempfile::tempdir().unwrap();
    for (i, with_index) in (0..3 + stale.len()).flat_map(|i| [(i, true), (i, false)]) {
        let folder = work.path().join(format!("{i}-{with_index}"));
        copy_folder(&before.path().join("s"), &folder);
        if !with_index {
            std::fs::remove_dir_all(folder.join("index")).unwrap();
        }
        let journal = folder.join("journal");
        for name in new.iter().filter(|n| is(n, "journal") || i >= 2) {
            std::fs::copy(original.path().join("journal").join(name), journal.join(name)).unwrap();
        }
        if i == 1 {
            std::fs::write(journal.join("00000000000000000250.0.tmp"), "STKSNAP1 and no more").unwrap();
        }
        for name in stale.iter().take(i.saturating_sub(2)) {
            std::fs::remove_file(journal.join(name)).unwrap();
        }
        let state = open(&folder).unwrap_or_else(|e| panic!("step {i}: {e}"));
        assert_eq!(rows(&state), want, "step {i}");
        assert_eq!(state.status().index == IndexOrigin::Rebuilt, !with_index, "step {i}");
        assert_eq!(block_on(state.verify()).unwrap().damage, Vec::<String>::new());
        block_on(state.compact()).unwrap();
        drop(state);
        assert_eq!(files(&folder, "snapshot").len(), 1, "step {i}");
        assert_eq!(files(&folder, "tmp").len(), 0, "step {i}");
        assert_eq!(rows(&open(&folder).unwrap()), want, "step {i}");
    }
}
