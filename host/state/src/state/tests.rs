//! What a failing or slow disk does to the store. The disk is made to misbehave by marker files beside the segments.

use super::*;
use crate::folder::{Listing, Tail, replay};
use crate::journal::SegmentFile;
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::task::Poll;
use stockade_core::store::{Blobs, Expect};

const FULL: &str = "full.fault";
const WRITE_FAILS: &str = "write.fault";
const SYNC_FAILS: &str = "sync.fault";
const SYNC_WAITS: &str = "wait.fault";

/// A segment on a disk with the faults that marker files in its folder ask for.
struct Faulty {
    file: File,
    folder: PathBuf,
}

fn faulty(file: File, path: &Path) -> Box<dyn SegmentFile> {
    let folder = path.parent().unwrap().to_owned();
    Box::new(Faulty { file, folder })
}

impl Faulty {
    fn has(&self, fault: &str) -> bool {
        self.folder.join(fault).exists()
    }
}

impl SegmentFile for Faulty {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        for (fault, kind) in [(FULL, io::ErrorKind::StorageFull), (WRITE_FAILS, io::ErrorKind::Other)] {
            if self.has(fault) {
                // As the kernel does, half of it goes through first.
                self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(kind.into());
            }
        }
        self.file.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        while self.has(SYNC_WAITS) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if self.has(SYNC_FAILS) {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.sync_data()
    }
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

struct Setup {
    folder: tempfile::TempDir,
    state: State,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open_through(folder.path(), Config::default(), faulty).unwrap();
        Self { folder, state }
    }
    fn fault(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join("journal").join(name);
        std::fs::write(&path, "").unwrap();
        path
    }
    fn put(&self, key: &str) -> Result<Revision, StoreError> {
        block_on(self.state.commit(Batch::new().put(key.to_owned(), "v")))
    }
    fn reopen(self) -> Self {
        let Self { folder, state } = self;
        drop(state);
        for name in [FULL, WRITE_FAILS, SYNC_FAILS, SYNC_WAITS] {
            let _ = std::fs::remove_file(folder.path().join("journal").join(name));
        }
        let state = State::open_through(folder.path(), Config::default(), faulty).unwrap();
        Self { folder, state }
    }
    fn keys(&self) -> Vec<Bytes> {
        let rows = self.state.scan(b"", None, 100).unwrap();
        rows.into_iter().map(|row| row.key).collect()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Puts a commit into the queue; `true` if it was answered at once.
async fn is_answered<T>(commit: &mut BoxFuture<'_, T>) -> bool {
    poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx).is_ready())).await
}

#[test]
fn a_full_disk_refuses_and_the_store_goes_on_when_there_is_room_again() {
    let setup = Setup::new();
    setup.put("a").unwrap();
    let full = setup.fault(FULL);
    for _ in 0..2 {
        assert!(matches!(setup.put("b"), Err(StoreError::Full)));
    }
    assert_eq!(setup.keys(), ["a"]);
    std::fs::remove_file(full).unwrap();
    assert_eq!(setup.put("c").unwrap(), 2);
    let setup = setup.reopen();
    assert_eq!(setup.keys(), ["a", "c"]);
}

#[test]
fn after_a_failed_write_or_fsync_nothing_is_written_until_reopened() {
    for (fault, may_survive) in [(WRITE_FAILS, false), (SYNC_FAILS, true)] {
        let setup = Setup::new();
        setup.put("a").unwrap();
        let path = setup.fault(fault);
        assert!(matches!(setup.put("b"), Err(StoreError::Io { .. })), "{fault}");
        std::fs::remove_file(path).unwrap();
        // The disk works again, but nobody knows what it holds.
        assert!(matches!(setup.put("c"), Err(StoreError::Io { .. })), "{fault}");
        assert!(block_on(setup.state.compact()).is_err());
        assert_eq!(setup.keys(), ["a"], "reads go on");
        let setup = setup.reopen();
        let after: &[&str] = if may_survive { &["a", "b"] } else { &["a"] };
        assert_eq!(setup.keys(), after, "{fault}: an error leaves the outcome open");
        let next = setup.put("d").unwrap();
        assert_eq!(next, after.len() as u64 + 1);
    }
}

#[test]
fn no_answer_and_no_reader_comes_before_the_fsync() {
    let setup = Setup::new();
    setup.put("a").unwrap();
    let wait = setup.fault(SYNC_WAITS);
    let before = journal_bytes(&setup);
    let put = Batch::new().put("b", "v");
    let clash = Batch::new().expect("b", Expect::Absent).put("c", "v");
    block_on(async {
        let mut first = setup.state.commit(put.clone());
        assert!(!is_answered(&mut first).await);
        while journal_bytes(&setup) == before {
            std::thread::yield_now();
        }
        // Written, but not durable. The refusal of a batch that clashes with it has to wait as well.
        let mut second = setup.state.commit(clash);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!is_answered(&mut first).await);
        assert!(!is_answered(&mut second).await);
        assert_eq!(setup.state.get(b"b").unwrap(), None);
        std::fs::remove_file(wait).unwrap();
        assert_eq!(first.await.unwrap(), 2);
        assert!(setup.state.get(b"b").unwrap().is_some());
        assert!(matches!(second.await, Err(StoreError::Conflict { found: Some(2), .. })));
    });
}

fn journal_bytes(setup: &Setup) -> u64 {
    let listing = Listing::read(&setup.folder.path().join("journal")).unwrap();
    std::fs::metadata(&listing.segments[0].1).unwrap().len()
}

#[test]
fn commits_that_wait_for_an_fsync_share_the_next_one() {
    let setup = Setup::new();
    let wait = setup.fault(SYNC_WAITS);
    block_on(async {
        let mut commits: Vec<_> = (0..64).map(|i| setup.state.commit(Batch::new().put(format!("{i}"), "v"))).collect();
        assert!(!is_answered(&mut commits[0]).await);
        std::thread::sleep(std::time::Duration::from_millis(20));
        for commit in &mut commits[1..] {
            assert!(!is_answered(commit).await);
        }
        std::fs::remove_file(wait).unwrap();
        for (i, commit) in commits.into_iter().enumerate() {
            assert_eq!(commit.await.unwrap(), i as u64 + 1);
        }
    });
    let listing = Listing::read(&setup.folder.path().join("journal")).unwrap();
    let mut groups = Vec::new();
    replay(&listing.segments, 0, Tail::Sealed, &mut |record| {
        groups.push(record.commits.len());
        Ok(())
    })
    .unwrap();
    assert_eq!(groups, [1, 63]);
}

#[test]
fn a_conflict_does_not_hold_up_the_rest_of_its_group() {
    let setup = Setup::new();
    let wait = setup.fault(SYNC_WAITS);
    block_on(async {
        let mut commits: Vec<_> = ["x", "a", "a", "b"]
            .map(|key| Batch::new().expect(key, Expect::Absent).put(key, "v"))
            .map(|batch| setup.state.commit(batch))
            .into();
        for commit in &mut commits {
            assert!(!is_answered(commit).await);
        }
        std::fs::remove_file(wait).unwrap();
        let mut outcomes = Vec::new();
        for commit in commits {
            outcomes.push(commit.await.ok());
        }
        assert_eq!(outcomes, [Some(1), Some(2), None, Some(3)]);
    });
    assert_eq!(setup.reopen().keys(), ["a", "b", "x"]);
}

#[test]
fn the_folder_stays_locked_while_a_blob_handle_lives() {
    let setup = Setup::new();
    let blobs = setup.state.blobs();
    let digest = block_on(blobs.put("bytes".into())).unwrap();
    let Setup { folder, state } = setup;
    drop(state);
    let again = || State::open(folder.path(), Config::default());
    assert!(matches!(again(), Err(OpenError::Locked { .. })));
    drop(blobs);
    assert_eq!(block_on(again().unwrap().blobs().get(digest)).unwrap(), "bytes");
}
