//! Blobs under a registry that is killed at random moments: what a row names is there, and the next sweep takes the rest.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use stockade_core::id::{ComponentName, Digest, TenantId, Version};
use stockade_core::plugin::{Admitted, Grants, PluginKind};
use stockade_core::registry::{FileLabel, Registry, new_document_id};
use stockade_core::store::Blobs;
use stockade_state::State;
use support::{Draw, Since, block_on, kill_after, killed_in, open};

const ROUNDS: u64 = 20;
const UPLOADERS: u64 = 3;

fn admitted(digest: Digest, size_bytes: u64) -> Admitted {
    Admitted {
        digest,
        size_bytes,
        roles: vec![PluginKind::Tool],
        imports: vec![],
        exports: vec![],
        grants_wanted: Grants::default(),
        compile_ms: 1,
        warnings: vec![],
        manifest: serde_json::Value::Null,
    }
}

fn registry(state: &Arc<State>) -> Registry {
    Registry::new(state.clone(), state.blobs())
}

/// Puts and deletes versions and files until killed. All uploaders share a few contents, so that they meet in blobs.
fn upload_until_killed(folder: &Path) {
    let state = Arc::new(open(folder).unwrap());
    println!("open");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let registry = registry(&state);
        registry.ensure_default_tenant().await.unwrap();
        let mut uploaders = tokio::task::JoinSet::new();
        for uploader in 0..UPLOADERS {
            let registry = registry.clone();
            uploaders.spawn(async move {
                let tenant = TenantId::default_tenant();
                let name = ComponentName::new(&format!("c{uploader}")).unwrap();
                let version = Version::new("1").unwrap();
                // What an earlier kill has left.
                let _ = registry.delete_version(&tenant, &name, &version).await;
                for n in 0u64.. {
                    let bytes = bytes::Bytes::from(format!("content {}", n % 3));
                    let digest = support::sha256(&bytes);
                    let admitted = admitted(digest, bytes.len() as u64);
                    registry.put_version(&tenant, &name, &version, admitted, bytes).await.unwrap();
                    let file = new_document_id("file", n as u32);
                    registry.put_file(&tenant, &file, FileLabel::default(), b"a file").await.unwrap();
                    println!("{n}");
                    registry.delete_file(&tenant, &file).await.unwrap();
                    if !n.is_multiple_of(4) {
                        registry.delete_version(&tenant, &name, &version).await.unwrap();
                        continue;
                    }
                    registry.sweep_blobs().await.unwrap();
                    registry.delete_version(&tenant, &name, &version).await.unwrap();
                }
            });
        }
        // They only end by a panic.
        uploaders.join_next().await.unwrap().unwrap()
    });
}

/// The blobs that rows name. Every one must be whole.
async fn named(registry: &Registry) -> BTreeSet<Digest> {
    let tenant = TenantId::default_tenant();
    let mut named = BTreeSet::new();
    for summary in registry.components(&tenant, None, 100).unwrap() {
        for version in registry.versions(&tenant, &summary.name, None, 100).unwrap() {
            named.insert(version.admitted.digest);
        }
    }
    for digest in &named {
        registry.blobs().get(*digest).await.expect("a row names a blob that is not there");
    }
    for file in registry.files(&tenant).list::<serde_json::Value>(None, 1000).unwrap() {
        let record = registry.file(&tenant, &file.id).unwrap().unwrap();
        registry.file_bytes(&file.id, &record).await.expect("a file without its bytes");
        named.insert(file.value["digest"].as_str().unwrap().parse().unwrap());
    }
    named
}

#[test]
fn a_kill_leaves_no_row_without_its_blob_and_the_next_sweep_no_blob_without_its_row() {
    if let Some(folder) = killed_in() {
        return upload_until_killed(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut draw = Draw(0xb10b);
    let (mut uploads, mut swept) = (0, 0);
    for round in 0..ROUNDS {
        let name = "a_kill_leaves_no_row_without_its_blob_and_the_next_sweep_no_blob_without_its_row";
        let lines = kill_after(name, folder.path(), Since::Open, 20 + draw.below(300));
        uploads += lines.iter().filter(|line| line.parse::<u64>().is_ok()).count();
        let state = Arc::new(open(folder.path()).unwrap());
        let registry = registry(&state);
        block_on(async {
            let named = named(&registry).await;
            let before = state.blobs().list().await.unwrap().len() as u64;
            let done = registry.sweep_blobs().await.unwrap();
            swept += done.blobs;
            let left: BTreeSet<Digest> =
                state.blobs().list().await.unwrap().into_iter().map(|(digest, _)| digest).collect();
            assert_eq!(left, named, "round {round}");
            assert_eq!(before, left.len() as u64 + done.blobs, "round {round}");
        });
    }
    assert!(uploads > ROUNDS as usize, "the child hardly uploaded: {uploads}");
    println!("{uploads} uploads in {ROUNDS} rounds, {swept} blobs swept");
    // The window that kills seldom hit: the row is gone, the blob is not, or the blob is there before its row.
    let state = Arc::new(open(folder.path()).unwrap());
    let registry = registry(&state);
    block_on(async {
        let orphan = state.blobs().put("nobody's".into()).await.unwrap();
        assert_eq!(registry.sweep_blobs().await.unwrap().blobs, 1);
        assert!(state.blobs().get(orphan).await.is_err());
    });
}
