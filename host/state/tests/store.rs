//! The store seam: compare-and-set, scans, limits, blobs, reopening; against a `BTreeMap` as oracle.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use stockade_core::registry::MemoryStore;
use stockade_core::store::{
    Batch, Blobs, Expect, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision, Store, StoreError,
};
use stockade_state::{IndexOrigin, OpenError, State};
use support::{Rows, at_once, block_on, config, fill, open, rows};

/// What a test does to the store; keys are drawn from a few so that they meet again.
#[derive(Debug, Clone)]
enum Step {
    Commit {
        expects: Vec<(u8, Guess)>,
        writes: Vec<(u8, Option<u16>)>,
    },
    /// Batches queued at once, which share an fsync.
    Concurrent(Vec<(u8, Option<u16>)>),
    Reopen,
    LoseIndex,
    Compact,
}

#[derive(Debug, Clone, Copy)]
enum Guess {
    Absent,
    Present,
    /// The key's revision as it is, or wrong by this much.
    Off(u64),
}

fn key(k: u8) -> Bytes {
    // Prefixes of each other, an empty key, bytes that sort around separators.
    const KEYS: [&[u8]; 10] = [b"", b"a", b"a/", b"a/b", b"a/b/c", b"a0", b"b", b"b\xff", b"b\xff\xff", b"\xff"];
    Bytes::from_static(KEYS[usize::from(k) % KEYS.len()])
}

fn value(v: u16) -> Bytes {
    vec![v as u8; usize::from(v % 97)].into()
}

fn step() -> impl Strategy<Value = Step> {
    let guess = prop_oneof![Just(Guess::Absent), Just(Guess::Present), (0u64..2).prop_map(Guess::Off)];
    let write = (0u8..10, prop::option::weighted(0.7, any::<u16>()));
    prop_oneof![
        8 => (
            prop::collection::vec((0u8..10, guess), 0..3),
            prop::collection::vec(write.clone(), 0..4)
        )
            .prop_map(|(expects, writes)| Step::Commit { expects, writes }),
        2 => prop::collection::vec(write, 1..6).prop_map(Step::Concurrent),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::Compact),
    ]
}

#[derive(Default)]
struct Oracle {
    rows: Rows,
    last: Revision,
}

impl Oracle {
    fn apply(&mut self, writes: &[(u8, Option<u16>)]) {
        self.last += 1;
        for (k, v) in writes {
            match v {
                Some(v) => self.rows.insert(key(*k).to_vec(), (self.last, value(*v).to_vec())),
                None => self.rows.remove(&key(*k)[..]),
            };
        }
    }
    fn revision(&self, k: u8) -> Option<Revision> {
        self.rows.get(&key(k)[..]).map(|(revision, _)| *revision)
    }
}

fn batch(writes: &[(u8, Option<u16>)]) -> Batch {
    writes.iter().fold(Batch::new(), |batch, (k, v)| match v {
        Some(v) => batch.put(key(*k), value(*v)),
        None => batch.delete(key(*k)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_an_ordered_map(steps in prop::collection::vec(step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path()).unwrap();
        let mut oracle = Oracle::default();
        // The fake that other crates test with must tell the same story.
        let memory = MemoryStore::new();
        for step in steps {
            match step {
                Step::Commit { expects, writes } => {
                    let mut asked = batch(&writes);
                    let mut conflict = None;
                    for (k, guess) in expects {
                        let found = oracle.revision(k);
                        let (expect, holds) = match guess {
                            Guess::Absent => (Expect::Absent, found.is_none()),
                            Guess::Present => (Expect::Present, found.is_some()),
                            Guess::Off(n) => (
                                Expect::Revision(found.unwrap_or(0) + n),
                                found.is_some() && n == 0,
                            ),
                        };
                        asked = asked.expect(key(k), expect);
                        if !holds && conflict.is_none() {
                            conflict = Some((key(k), found));
                        }
                    }
                    let fake = block_on(memory.commit(asked.clone()));
                    let got = block_on(state.commit(asked));
                    prop_assert_eq!(format!("{:?}", fake), format!("{:?}", got));
                    match conflict {
                        None => {
                            oracle.apply(&writes);
                            prop_assert_eq!(got.unwrap(), oracle.last);
                        }
                        Some(want) => match got {
                            Err(StoreError::Conflict { key, found }) =>
                                prop_assert_eq!((key, found), want),
                            other => prop_assert!(false, "{:?}", other),
                        },
                    }
                }
                Step::Concurrent(writes) => {
                    let got: Vec<_> = block_on(at_once(
                        writes.iter().map(|w| state.commit(batch(&[*w]))),
                    ))
                    .into_iter()
                    .map(Result::unwrap)
                    .collect();
                    let first = oracle.last + 1;
                    for write in &writes {
                        oracle.apply(&[*write]);
                        block_on(memory.commit(batch(&[*write]))).unwrap();
                    }
                    prop_assert_eq!(got, (first..=oracle.last).collect::<Vec<_>>());
                }
                Step::Reopen => {
                    block_on(state.close());
                    state = open(folder.path()).unwrap();
                    if oracle.last > 0 {
                        prop_assert_eq!(state.status().index, IndexOrigin::Kept { replayed: 0 });
                    }
                }
                Step::LoseIndex => {
                    drop(state);
                    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
                    state = open(folder.path()).unwrap();
                    prop_assert_eq!(state.status().index, IndexOrigin::Rebuilt);
                }
                Step::Compact => {
                    let done = block_on(state.compact()).unwrap();
                    prop_assert_eq!(done.last_commit, oracle.last);
                    prop_assert_eq!(done.rows, oracle.rows.len() as u64);
                }
            }
            prop_assert_eq!(&rows(&state), &oracle.rows);
            prop_assert_eq!(&rows(&memory), &oracle.rows);
            prop_assert_eq!(state.status().rows, oracle.rows.len() as u64);
            prop_assert_eq!(state.status().last_commit, oracle.last);
            for k in 0..10 {
                let row = state.get(&key(k)).unwrap();
                prop_assert_eq!(row.map(|r| r.revision), oracle.revision(k));
            }
        }
        let found = block_on(state.verify()).unwrap();
        prop_assert_eq!(found.damage, Vec::<String>::new());
        prop_assert_eq!(found.rows, oracle.rows.len() as u64);
    }

    #[test]
    fn scans_page_through_a_prefix_in_order(
        keys in prop::collection::btree_set("[ab/]{0,5}", 0..40),
        prefix in "[ab/]{0,2}",
        limit in 1usize..7,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path()).unwrap();
        let all = keys.iter().fold(Batch::new(), |b, k| b.put(k.clone(), k.clone()));
        let memory = MemoryStore::new();
        block_on(memory.commit(all.clone())).unwrap();
        block_on(state.commit(all)).unwrap();
        let want: Vec<&String> = keys.iter().filter(|k| k.starts_with(&prefix)).collect();
        let mut got = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = state
                .scan(prefix.as_bytes(), after.as_deref(), limit)
                .unwrap();
            let fake = memory.scan(prefix.as_bytes(), after.as_deref(), limit);
            prop_assert_eq!(&page, &fake.unwrap());
            prop_assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            got.extend(page.into_iter().map(|r| String::from_utf8(r.key.to_vec()).unwrap()));
        }
        prop_assert_eq!(got.iter().collect::<Vec<_>>(), want);
    }
}

#[test]
fn a_later_batch_of_a_group_sees_the_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).unwrap();
    let claim = |who: &'static str| state.commit(Batch::new().expect("lease", Expect::Absent).put("lease", who));
    let outcomes = block_on(at_once(["a", "b", "c", "d"].map(claim)));
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 3));
    for outcome in lost {
        assert!(matches!(outcome, Err(StoreError::Conflict { found: Some(1), .. })));
    }
}

#[test]
fn every_limit_holds_just_inside_and_refuses_just_outside() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).unwrap();
    let many = |n| (0..n).fold(Batch::new(), |b, i| b.put(format!("{i:04}"), "v"));
    let checks = |n| (0..n).fold(many(1), |b, _| b.expect("none", Expect::Absent));
    for (name, inside, outside, limit) in [
        (
            "key",
            Batch::new().put(vec![1; MAX_KEY_BYTES], "v"),
            Batch::new().put(vec![1; MAX_KEY_BYTES + 1], "v"),
            MAX_KEY_BYTES,
        ),
        (
            "key",
            Batch::new().expect(vec![2; MAX_KEY_BYTES], Expect::Absent),
            Batch::new().expect(vec![2; MAX_KEY_BYTES + 1], Expect::Absent),
            MAX_KEY_BYTES,
        ),
        (
            "value",
            Batch::new().put("k", vec![1; MAX_VALUE_BYTES]),
            Batch::new().put("k", vec![1; MAX_VALUE_BYTES + 1]),
            MAX_VALUE_BYTES,
        ),
        ("batch", many(MAX_BATCH_OPS), many(MAX_BATCH_OPS + 1), MAX_BATCH_OPS),
        ("batch", checks(MAX_BATCH_OPS), checks(MAX_BATCH_OPS + 1), MAX_BATCH_OPS),
    ] {
        block_on(state.commit(inside)).unwrap_or_else(|e| panic!("{name}: {e}"));
        match block_on(state.commit(outside)) {
            Err(StoreError::TooLarge { what, size, limit: got }) => {
                assert_eq!((what, size, got), (name, limit + 1, limit));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn the_largest_batches_commit_even_with_a_queue_smaller_than_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path(), stockade_state::Config { queue_bytes: 1000, ..config() }).unwrap();
    let batch = |n: usize| {
        (0..MAX_BATCH_OPS).fold(Batch::new(), |b, i| b.put(format!("{i:0512}"), vec![n as u8; MAX_VALUE_BYTES]))
    };
    block_on(async {
        let (a, b, c) = tokio::join!(state.commit(batch(1)), state.commit(batch(2)), state.commit(batch(3)));
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (1, 2, 3));
    });
    drop(state);
    let state = open(folder.path()).unwrap();
    assert_eq!(state.status().rows, MAX_BATCH_OPS as u64);
    assert!(rows(&state).values().all(|(revision, v)| *revision == 3 && v[0] == 3));
}

#[test]
fn the_journal_is_compacted_by_itself_while_commits_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = stockade_state::Config { compact_after_bytes: 64 << 10, ..config() };
    let state = State::open(folder.path(), config.clone()).unwrap();
    // 40 keys written over and over: about 1.2 MB of journal for 12 KB of rows.
    block_on(async {
        for i in 0..4000u32 {
            let batch = Batch::new().put(format!("key-{}", i % 40), vec![i as u8; 300]);
            state.commit(batch).await.unwrap();
        }
    });
    let want = rows(&state);
    block_on(state.close());
    let journal: u64 =
        std::fs::read_dir(folder.path().join("journal")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(journal < 400 << 10, "{journal} bytes are left");
    assert_eq!(support::files(folder.path(), "snapshot").len(), 1);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    assert_eq!(rows(&State::open(folder.path(), config).unwrap()), want);
}

#[test]
fn a_second_open_names_the_folder_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).unwrap();
    match open(folder.path()) {
        Err(OpenError::Locked { folder: named }) => assert_eq!(named, folder.path()),
        other => panic!("{:?}", other.err()),
    }
    drop(state);
    open(folder.path()).unwrap();
}

#[test]
fn a_newer_layout_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    std::fs::write(folder.path().join("layout"), "stockade state 2\n").unwrap();
    match open(folder.path()) {
        Err(OpenError::NewerLayout { found: 2, supported: 1, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
    std::fs::write(folder.path().join("layout"), "something else").unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn blobs_come_back_whole_or_as_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).unwrap();
    let blobs = state.blobs();
    let bytes = Bytes::from(vec![7; 1 << 20]);
    block_on(async {
        let digest = blobs.put(bytes.clone()).await.unwrap();
        assert_eq!(blobs.put(bytes.clone()).await.unwrap(), digest);
        assert_eq!(blobs.get(digest).await.unwrap(), bytes);
        let path = blobs.path(digest).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        let empty = blobs.put(Bytes::new()).await.unwrap();
        assert_eq!(blobs.get(empty).await.unwrap(), Bytes::new());

        let outside = Bytes::from(vec![7; (1 << 20) + 1]);
        assert!(matches!(blobs.put(outside).await, Err(StoreError::TooLarge { what: "blob", .. })));

        let mut damaged = bytes.to_vec();
        damaged[1000] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(blobs.get(digest).await, Err(StoreError::Corrupt { .. })));
        let found = state.verify().await.unwrap();
        assert_eq!(found.damage, [format!("blob {digest} is damaged")]);
        std::fs::write(&path, b"short").unwrap();
        blobs.put(bytes.clone()).await.unwrap();
        assert_eq!(blobs.get(digest).await.unwrap(), bytes);

        blobs.delete(digest).await.unwrap();
        blobs.delete(digest).await.unwrap();
        assert!(matches!(blobs.get(digest).await, Err(StoreError::NoBlob(d)) if d == digest));
        assert_eq!(blobs.path(digest), None);
    });
}

#[test]
fn a_backup_under_load_and_its_restore_equal_one_moment_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let (backup, restored) = (work.path().join("deep/backup"), work.path().join("restored"));
    let state = open(folder.path()).unwrap();
    fill(&state, 300, 200);
    block_on(state.compact()).unwrap();
    fill(&state, 200, 100);
    let blob = block_on(state.blobs().put("a blob".into())).unwrap();
    let copied = block_on(async {
        let writing = async {
            for i in 0..500u32 {
                let batch = Batch::new().put("a", i.to_string()).put("b", i.to_string());
                state.commit(batch).await.unwrap();
            }
        };
        let (copied, ()) = tokio::join!(state.backup(&backup), writing);
        copied.unwrap()
    });
    assert_eq!((copied.blobs, copied.blob_bytes), (1, 6));
    assert!(matches!(block_on(state.backup(&backup)), Err(StoreError::Io { stage: "folder", .. })));
    // The original as of the backup's moment, by the journal's own account.
    let last = rows(&state);
    drop(state);

    let found = stockade_state::verify(&backup).unwrap();
    assert_eq!(found.damage, Vec::<String>::new());
    assert_eq!(found.last_commit, copied.last_commit);
    let again = stockade_state::restore(&backup, &restored).unwrap();
    assert_eq!(again.last_commit, copied.last_commit);

    let state = open(&restored).unwrap();
    let got = rows(&state);
    let i = copied.last_commit - 500;
    let mut want = last;
    for key in [&b"a"[..], b"b"] {
        match i.checked_sub(1) {
            Some(i) => want.insert(key.to_vec(), (copied.last_commit, i.to_string().into())),
            None => want.remove(key),
        };
    }
    assert_eq!(got, want);
    assert_eq!(block_on(state.blobs().get(blob)).unwrap(), "a blob");
    // And it goes on from there.
    assert_eq!(block_on(state.commit(Batch::new())).unwrap(), copied.last_commit + 1);
}

#[test]
fn an_unfinished_or_damaged_copy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let (backup, to) = (work.path().join("backup"), work.path().join("to"));
    let state = open(folder.path()).unwrap();
    fill(&state, 100, 300);
    let blob = block_on(state.blobs().put("a blob".into())).unwrap();
    block_on(state.backup(&backup)).unwrap();
    assert!(matches!(stockade_state::restore(folder.path(), &to), Err(OpenError::Locked { .. })));

    let text = blob.to_string();
    let path = backup.join("blobs").join(&text[..2]).join(&text[2..]);
    std::fs::write(&path, "a blot").unwrap();
    assert_eq!(stockade_state::verify(&backup).unwrap().damage, [format!("blob {blob} is damaged")]);
    assert!(matches!(stockade_state::restore(&backup, &to), Err(OpenError::CopyDamaged { .. })));
    assert!(matches!(open(&to), Err(OpenError::Corrupt { .. })), "no layout file, no state");

    std::fs::remove_file(backup.join("layout")).unwrap();
    assert!(matches!(stockade_state::restore(&backup, &work.path().join("other")), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_dropped_future_does_not_undo_a_queued_commit() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).unwrap();
    block_on(async {
        let mut commit = state.commit(Batch::new().put("k", "v"));
        std::future::poll_fn(|cx| {
            let _ = commit.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        drop(commit);
    });
    block_on(state.close());
    let state = open(folder.path()).unwrap();
    let want: Rows = BTreeMap::from([(b"k".to_vec(), (1, b"v".to_vec()))]);
    assert_eq!(rows(&state), want);
}
