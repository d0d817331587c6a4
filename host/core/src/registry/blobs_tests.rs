//! Blobs live as long as something names them, and no longer.

use super::super::tests::{admitted, block_on, name, put, version, with_tenant};
use super::super::{FileLabel, Quotas, new_document_id};
use super::*;
use crate::store::{Batch, StoreError};
use bytes::Bytes;

fn digest(bytes: &[u8]) -> Digest {
    admitted(bytes).digest
}

#[test]
fn bytes_of_a_component_go_with_the_last_version_of_any_tenant_that_is_made_of_them() {
    block_on(async {
        let (r, a) = with_tenant("a").await;
        let b = TenantId::new("b").unwrap();
        r.create_tenant(b.clone(), Quotas::default()).await.unwrap();
        put(&r, &a, "s", "1", b"shared").await;
        put(&r, &a, "s", "2", b"alone").await;
        put(&r, &b, "other", "1", b"shared").await;
        r.delete_version(&a, &name("s"), &version("1")).await.unwrap();
        assert_eq!(r.blobs().get(digest(b"shared")).await.unwrap(), "shared");
        r.delete_version(&b, &name("other"), &version("1")).await.unwrap();
        assert!(matches!(r.blobs().get(digest(b"shared")).await, Err(StoreError::NoBlob(_))));
        assert_eq!(r.blobs().get(digest(b"alone")).await.unwrap(), "alone");
    });
}

#[test]
fn a_deleted_tenants_components_and_files_leave_no_bytes() {
    block_on(async {
        let (r, a) = with_tenant("a").await;
        let b = TenantId::new("b").unwrap();
        r.create_tenant(b.clone(), Quotas::default()).await.unwrap();
        put(&r, &a, "s", "1", b"shared").await;
        put(&r, &b, "s", "1", b"shared").await;
        put(&r, &b, "s", "2", b"alone").await;
        r.put_file(&b, &new_document_id("file", 1), FileLabel::default(), b"text").await.unwrap();
        r.delete_tenant(&b).await.unwrap();
        assert_eq!(r.blobs().list().await.unwrap(), [(digest(b"shared"), 6)]);
    });
}

#[test]
fn a_sweep_takes_what_no_row_names_and_nothing_else() {
    block_on(async {
        let (r, a) = with_tenant("a").await;
        put(&r, &a, "s", "1", b"version").await;
        let file = new_document_id("file", 1);
        let record = r.put_file(&a, &file, FileLabel::default(), b"text").await.unwrap();
        assert_eq!(r.sweep_blobs().await.unwrap(), Swept::default());

        let put = |text: &'static str| r.blobs().put(text.into());
        let (orphan, traced) = (put("orphan").await.unwrap(), put("traced").await.unwrap());
        // Records that this sweep has never heard of, one of them cut in the middle of the digest.
        let (unknown, cut) = (put("unknown").await.unwrap(), put("cut").await.unwrap());
        let text = cut.to_string();
        let rows = Batch::new()
            .put("x/record", format!("{{\"digest\":\"{unknown}\"}}"))
            .put("t/a/~/x\0\0\0", format!("{{\"of\":\"{}", &text[..20]))
            .put("t/a/~/x\0\0\x01", format!("{}\"}}", &text[20..]))
            .put("t/a/trace/1", format!("\"{traced}\""))
            .put("t/a/~/trace/2\0\0\0", format!("\"{traced}\""));
        r.store().commit(rows).await.unwrap();
        let swept = r.sweep_blobs().await.unwrap();
        assert_eq!(swept, Swept { blobs: 2, blob_bytes: 12 });
        for gone in [orphan, traced] {
            assert!(r.blobs().get(gone).await.is_err());
        }
        assert_eq!(r.blobs().get(unknown).await.unwrap(), "unknown");
        assert_eq!(r.blobs().get(cut).await.unwrap(), "cut");
        assert_eq!(r.file_bytes(&file, &record).await.unwrap(), "text");
        assert_eq!(r.blobs().get(digest(b"version")).await.unwrap(), "version");
    });
}

#[test]
fn no_sweep_and_no_deletion_comes_between_an_upload_and_its_row() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let (r, t) = with_tenant("a").await;
        let bytes = Bytes::from_static(b"the same bytes under many names");
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let (r, t, bytes) = (r.clone(), t.clone(), bytes.clone());
            tasks.spawn(async move {
                let name = name(&format!("c{task}"));
                for _ in 0..200 {
                    r.put_version(&t, &name, &version("1"), admitted(&bytes), bytes.clone()).await.unwrap();
                    tokio::task::yield_now().await;
                    assert_eq!(r.blobs().get(digest(&bytes)).await.unwrap(), bytes, "a live version has its bytes");
                    r.delete_version(&t, &name, &version("1")).await.unwrap();
                }
            });
        }
        let sweeper = r.clone();
        tasks.spawn(async move {
            for _ in 0..200 {
                sweeper.sweep_blobs().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(r.blobs().list().await.unwrap(), []);
    });
}

#[test]
fn digests_are_found_wherever_they_stand_in_a_run_of_letters() {
    let text = digest(b"x").to_string();
    for (before, after) in [("", ""), ("\"", "\""), ("0a", "ff"), (&"b".repeat(200), &"c".repeat(300)), ("g", "G")] {
        let mut reader = Reader::default();
        let row = Row { key: Bytes::new(), value: format!("{before}{text}{after}").into(), revision: 1 };
        let mut seen = Vec::new();
        reader.read(&row, |digest| seen.push(digest));
        assert!(seen.contains(&digest(b"x")), "{before}");
    }
}
