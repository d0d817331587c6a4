//! Secrets of a registry over a state folder: what is on disk, and what happens to keys.

mod support;

use std::path::Path;
use std::sync::Arc;
use stockade_core::id::TenantId;
use stockade_core::registry::{Registry, RegistryError, Sealing};
use stockade_core::store::{Batch, Store};
use stockade_core::vault::VaultError;
use stockade_state::{KeyVault, State};
use support::{block_on, open};

const TEXT: &str = "correct horse battery staple";

fn registry(state: &Arc<State>, vault: KeyVault) -> Registry {
    Registry::with_vault(state.clone(), state.blobs(), Arc::new(vault))
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Whether the text stands anywhere in a file below the folder.
fn stands_in(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).any(|path| match path.is_dir() {
        true => stands_in(&path, text),
        false => std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes()),
    })
}

#[test]
fn a_secret_reads_back_and_stands_in_no_file_and_no_backup_has_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let long = TEXT.repeat(1000);
    block_on(async {
        let state = Arc::new(open(folder.path()).unwrap());
        let registry = registry(&state, KeyVault::open(folder.path()).unwrap());
        registry.ensure_default_tenant().await.unwrap();
        registry.set_secret(&tenant(), "short", TEXT).await.unwrap();
        registry.set_secret(&tenant(), "long", &long).await.unwrap();
        registry.set_secret(&tenant(), "empty", "").await.unwrap();
        assert_eq!(registry.seal_secrets().await.unwrap(), Sealing::default());
        state.backup(copy.path()).await.unwrap();
    });
    assert!(!stands_in(folder.path(), TEXT));
    assert!(KeyVault::file(folder.path()).is_file() && !KeyVault::file(copy.path()).exists());
    let key = std::fs::read_to_string(KeyVault::file(folder.path())).unwrap();
    assert!(!stands_in(copy.path(), key.trim()));

    let state = Arc::new(open(folder.path()).unwrap());
    let registry = registry(&state, KeyVault::open(folder.path()).unwrap());
    let read = |name| registry.secret(&tenant(), name).unwrap();
    assert_eq!((read("short").as_deref(), read("long"), read("none")), (Some(TEXT), Some(long), None));
    assert_eq!(read("empty").as_deref(), Some(""));
}

#[test]
fn secrets_of_an_older_host_are_sealed_and_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(open(folder.path()).unwrap());
    block_on(async {
        let plain = Registry::new(state.clone(), state.blobs());
        plain.ensure_default_tenant().await.unwrap();
        plain.set_secret(&tenant(), "a", TEXT).await.unwrap();
        plain.set_secret(&tenant(), "b", &TEXT.repeat(500)).await.unwrap();
        assert!(stands_in(&folder.path().join("journal"), TEXT));

        let registry = registry(&state, KeyVault::open(folder.path()).unwrap());
        assert_eq!(registry.secret(&tenant(), "a").unwrap().unwrap(), TEXT, "also before they are sealed");
        assert_eq!(registry.seal_secrets().await.unwrap(), Sealing { sealed: 2, lost: 0 });
        assert_eq!(registry.seal_secrets().await.unwrap(), Sealing::default());
        assert_eq!(registry.secret(&tenant(), "a").unwrap().unwrap(), TEXT);
        assert_eq!(registry.secret(&tenant(), "b").unwrap().unwrap(), TEXT.repeat(500));
        let rows = state.scan(b"", None, usize::MAX).unwrap();
        assert!(!rows.iter().any(|row| row.value.windows(TEXT.len()).any(|w| w == TEXT.as_bytes())));
        state.compact().await.unwrap();
        assert!(!stands_in(&folder.path().join("journal"), TEXT), "compaction forgets the plain rows");
    });
}

#[test]
fn a_row_under_a_strange_key_is_refused_and_a_new_key_takes_over_what_the_old_one_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(open(folder.path()).unwrap());
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let with = |keys: &str| registry(&state, keys.parse().unwrap());
    block_on(async {
        with(&one).ensure_default_tenant().await.unwrap();
        with(&one).set_secret(&tenant(), "a", TEXT).await.unwrap();
        let strange = with(&two);
        match strange.secret(&tenant(), "a") {
            Err(RegistryError::Sealed { source: VaultError::UnknownKey(_), .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(strange.seal_secrets().await.unwrap(), Sealing { sealed: 0, lost: 1 });
        assert!(Registry::new(state.clone(), state.blobs()).secret(&tenant(), "a").is_err());

        let both = with(&format!("{two} {one}"));
        assert_eq!(both.secret(&tenant(), "a").unwrap().unwrap(), TEXT);
        assert_eq!(both.seal_secrets().await.unwrap(), Sealing { sealed: 1, lost: 0 });
        assert_eq!(with(&two).secret(&tenant(), "a").unwrap().unwrap(), TEXT);

        // A row that is moved to another name does not open there.
        let row = state.get(b"t/default/secret/a").unwrap().unwrap();
        state.commit(Batch::new().put("t/default/secret/b", row.value)).await.unwrap();
        match with(&two).secret(&tenant(), "b") {
            Err(RegistryError::Sealed { source: VaultError::Damaged, .. }) => {}
            other => panic!("{other:?}"),
        }
        // And one that is cut off is damaged, not a panic.
        state.commit(Batch::new().put("t/default/secret/b", vec![0, 0xff, 1, 2])).await.unwrap();
        assert!(with(&two).secret(&tenant(), "b").is_err());
    });
}
