//! What the tests of this crate share: a runtime, row listing, folders.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::task::Poll;
use std::time::Duration;
use stockade_core::error::BoxFuture;
use stockade_core::store::{Batch, Revision, Store};
use stockade_state::{Config, OpenError, State};

#[allow(dead_code, reason = "not every test program lists rows")]
pub type Rows = BTreeMap<Vec<u8>, (Revision, Vec<u8>)>;

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Small segments and no compaction of its own, so that a test decides.
pub fn config() -> Config {
    Config {
        segment_bytes: 16 << 10,
        compact_after_bytes: u64::MAX,
        cache_bytes: 8 << 20,
        max_blob_bytes: 1 << 20,
        ..Config::default()
    }
}

pub fn open(folder: &Path) -> Result<State, OpenError> {
    State::open(folder, config())
}

#[allow(dead_code, reason = "not every test program lists rows")]
pub fn rows(state: &dyn Store) -> Rows {
    state
        .scan(b"", None, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|row| (row.key.to_vec(), (row.revision, row.value.to_vec())))
        .collect()
}

/// Commits `key-0` .. with values of about `bytes` bytes, one batch each.
#[allow(dead_code, reason = "not every test program fills")]
pub fn fill(state: &State, n: usize, bytes: usize) {
    block_on(async {
        for i in 0..n {
            let value = vec![(i % 251) as u8; bytes + i % 7];
            let batch = Batch::new().put(format!("key-{i}"), value);
            state.commit(batch).await.unwrap();
        }
    });
}

/// Puts all commits into the queue in this order before waiting for any of them.
#[allow(dead_code, reason = "not every test program has concurrent commits")]
pub async fn at_once<T>(commits: impl IntoIterator<Item = BoxFuture<'_, T>>) -> Vec<T> {
    let mut commits: Vec<_> = commits.into_iter().map(|c| (c, None)).collect();
    poll_fn(|cx| {
        for (commit, outcome) in &mut commits {
            if let Poll::Ready(done) = commit.as_mut().poll(cx) {
                *outcome = Some(done);
            }
        }
        Poll::Ready(())
    })
    .await;
    let mut outcomes = Vec::new();
    for (commit, outcome) in commits {
        outcomes.push(match outcome {
            Some(done) => done,
            None => commit.await,
        });
    }
    outcomes
}

/// The journal's files with this extension, in order.
#[allow(dead_code, reason = "not every test program looks at files")]
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder.join("journal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

#[allow(dead_code, reason = "not every test program copies folders")]
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

const CHILD_FOLDER: &str = "STOCKADE_STATE_CRASH_FOLDER";

/// The folder that this process is to work in until it is killed; `None` in the test itself.
#[allow(dead_code, reason = "not every test program kills")]
pub fn killed_in() -> Option<PathBuf> {
    std::env::var_os(CHILD_FOLDER).map(PathBuf::from)
}

/// Since when a child's time runs.
#[allow(dead_code, reason = "not every test program kills")]
#[derive(Clone, Copy, PartialEq)]
pub enum Since {
    Spawned,
    /// Since it printed `open`: what it does then is what is to be killed, also on a slow machine.
    Open,
}

/// Runs a test of this program as a child of its own in `folder`, kills it, and answers what it printed. The last line may
/// have been cut off, so it is left out.
#[allow(dead_code, reason = "not every test program kills")]
pub fn kill_after(test: &str, folder: &Path, since: Since, milliseconds: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (opened, open) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let note = |line: &String| {
            if line == "open" {
                let _ = opened.send(());
            }
        };
        lines.map_while(Result::ok).inspect(note).collect::<Vec<_>>()
    });
    if since == Since::Open {
        open.recv_timeout(Duration::from_secs(60)).expect("the child opens its folder");
    }
    std::thread::sleep(Duration::from_millis(milliseconds));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut lines = reader.join().unwrap();
    lines.pop();
    lines
}

#[allow(dead_code, reason = "not every test program hashes")]
pub fn sha256(bytes: &[u8]) -> stockade_core::Digest {
    use sha2::Digest as _;
    stockade_core::Digest(sha2::Sha256::digest(bytes).into())
}

/// Numbers that look random and are the same in each run.
#[allow(dead_code, reason = "not every test program draws")]
pub struct Draw(pub u64);

#[allow(dead_code, reason = "not every test program draws")]
impl Draw {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
