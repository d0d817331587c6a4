//! Damaged state: opening answers with what is whole or with a typed error, and the same the second time.

use super::scratch;
use crate::Target;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use stockade_core::store::{Batch, Store};
use stockade_state::{Config, State};

pub const SEGMENT: Target = Target {
    name: "journal-segment",
    run: |bytes| open_with(".journal", bytes),
    seeds: || vec![whole(".journal")],
    words: &["\0\0\0\0", "\x7f\x7f\x7f\x7f"],
};

pub const SNAPSHOT: Target = Target {
    name: "journal-snapshot",
    run: |bytes| open_with(".snapshot", bytes),
    seeds: || vec![whole(".snapshot")],
    words: &["\0\0\0\0", "\x7f\x7f\x7f\x7f"],
};

/// The files of a small state's journal folder: a snapshot and a segment after it.
static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let folder = scratch();
    let state = State::open(folder.path(), config()).expect("an empty folder opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let fill = async |from: u32, to: u32| {
            for i in from..to {
                let batch = Batch::new().put(format!("key-{i}"), vec![i as u8; 20]).delete(format!("key-{}", i / 2));
                state.commit(batch).await.expect("commits");
            }
        };
        fill(0, 20).await;
        state.compact().await.expect("compacts");
        fill(20, 40).await;
    });
    drop(state);
    let entries = fs::read_dir(folder.path().join("journal")).expect("the journal");
    let file = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a journal file"))
    };
    entries.map(|entry| file(entry.expect("an entry"))).collect()
});

fn config() -> Config {
    Config { cache_bytes: 4 << 20, ..Config::default() }
}

fn whole(extension: &str) -> Vec<u8> {
    FILES.iter().find(|(name, _)| name.ends_with(extension)).map(|(_, bytes)| bytes.clone()).expect("made above")
}

/// Opens the state with these bytes in place of one of its files.
fn open_with(extension: &str, bytes: &[u8]) {
    let folder = scratch();
    let journal = folder.path().join("journal");
    fs::create_dir_all(&journal).expect("scratch");
    fs::create_dir_all(folder.path().join("blobs")).expect("scratch");
    fs::write(folder.path().join("layout"), "stockade state 1\n").expect("scratch");
    for (name, sound) in FILES.iter() {
        let bytes = if name.ends_with(extension) { bytes } else { sound };
        fs::write(journal.join(name), bytes).expect("scratch");
    }
    let _ = stockade_state::verify(folder.path());
    let Some(first) = rows(folder.path()) else { return };
    assert_eq!(rows(folder.path()), Some(first), "what opened once opens again with the same rows");
}

fn rows(folder: &Path) -> Option<Vec<stockade_core::store::Row>> {
    let state = State::open(folder, config()).ok()?;
    Some(state.scan(b"", None, usize::MAX).expect("an open state is read"))
}
