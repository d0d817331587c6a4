//! Rules between records, over the store in memory.

use super::*;
use crate::id::{ComponentName, Digest, TenantId, Version};
use crate::plugin::{Admitted, Grants, Mode, OnFailure, PluginKind, Role};
use crate::store::{Batch, Expect};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

fn registry() -> (Registry, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (Registry::new(store.clone(), store.clone()), store)
}

pub(super) async fn with_tenant(name: &str) -> (Registry, TenantId) {
    let (registry, _) = registry();
    let id = TenantId::new(name).unwrap();
    registry.create_tenant(id.clone(), Quotas::default()).await.unwrap();
    (registry, id)
}

pub(super) fn admitted(bytes: &[u8]) -> Admitted {
    Admitted {
        digest: Digest(Sha256::digest(bytes).into()),
        size_bytes: bytes.len() as u64,
        roles: vec![PluginKind::Shield, PluginKind::Tool, PluginKind::Orchestrator],
        imports: vec![],
        exports: vec![],
        grants_wanted: Grants::default(),
        compile_ms: 1,
        warnings: vec![],
        manifest: Value::Null,
    }
}

pub(super) fn name(s: &str) -> ComponentName {
    ComponentName::new(s).unwrap()
}
pub(super) fn version(s: &str) -> Version {
    Version::new(s).unwrap()
}

pub(super) async fn put(r: &Registry, t: &TenantId, n: &str, v: &str, bytes: &'static [u8]) {
    let bytes = Bytes::from_static(bytes);
    r.put_version(t, &name(n), &version(v), admitted(&bytes), bytes).await.unwrap();
}

fn entry(component: &str, v: &str) -> BindingEntry {
    BindingEntry {
        component: name(component),
        version: version(v),
        config: json!({"a": 1}),
        mode: Mode::Enforce,
        on_failure: OnFailure::Block,
        refusal: None,
        canary: None,
    }
}

#[test]
fn a_version_keeps_its_bytes() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        let again = r.put_version(&t, &name("s"), &version("1"), admitted(b"one"), "one".into()).await.unwrap();
        assert!(matches!(again, PutVersion::Unchanged(_)));
        let other = r.put_version(&t, &name("s"), &version("1"), admitted(b"two"), "two".into()).await;
        assert!(matches!(other, Err(RegistryError::VersionExists { .. })));
        let digest = admitted(b"one").digest;
        assert_eq!(r.blobs().get(digest).await.unwrap(), "one");
    });
}

#[test]
fn a_large_admission_record_reads_back() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let record = Admitted { manifest: json!({"config": "x".repeat(20_000)}), ..admitted(b"one") };
        r.put_version(&t, &name("s"), &version("1"), record.clone(), "one".into()).await.unwrap();
        let read = r.version(&t, &name("s"), &version("1")).unwrap().unwrap();
        assert_eq!(read.admitted, record);
    });
}

#[test]
fn components_page_by_name_even_where_one_name_begins_another() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        for n in ["a", "a-b", "a.b", "b"] {
            for v in ["1", "2"] {
                put(&r, &t, n, v, b"x").await;
            }
        }
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = r.components(&t, after.as_deref(), 1).unwrap();
            let Some(last) = page.last() else { break };
            assert_eq!(last.versions.len(), 2);
            assert_eq!(last.latest.as_str(), "2");
            assert_eq!(r.component(&t, &last.name).unwrap().as_ref(), Some(last));
            seen.push(last.name.to_string());
            after = seen.last().cloned();
        }
        seen.sort();
        assert_eq!(seen, ["a", "a-b", "a.b", "b"]);
    });
}

#[test]
fn a_bound_version_cannot_be_deleted_and_a_missing_one_not_bound() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        let role = Role::ShieldInput;
        r.bind(&t, &role, vec![entry("s", "1")], None).await.unwrap();
        let refused = r.delete_version(&t, &name("s"), &version("1")).await;
        assert!(matches!(refused, Err(RegistryError::InUse { .. })));
        r.unbind(&t, &role, None).await.unwrap();
        assert!(r.binding(&t, &role).unwrap().is_none());
        r.delete_version(&t, &name("s"), &version("1")).await.unwrap();
        let gone = r.delete_version(&t, &name("s"), &version("1")).await;
        assert!(matches!(gone, Err(RegistryError::NotFound { .. })));
        let missing = r.bind(&t, &role, vec![entry("s", "1")], None).await;
        assert!(matches!(missing, Err(RegistryError::NotFound { .. })));
        let missing = r.rollback(&t, &role, None).await;
        assert!(matches!(missing, Err(RegistryError::NotFound { .. })));
    });
}

#[test]
fn bindings_refuse_what_cannot_fill_the_role_and_what_is_not_served() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        let two = vec![entry("s", "1"), entry("s", "1")];
        let tool: Role = "tool/x".parse().unwrap();
        let canary = BindingEntry { canary: Some(json!({"version": "2", "percent": 5})), ..entry("s", "1") };
        for (role, entries, what) in [
            (Role::PromptStore, vec![entry("s", "1")], "wrong kind"),
            (tool, two, "two entries of a single role"),
            (Role::PromptStore, vec![], "no entries"),
        ] {
            let refused = r.bind(&t, &role, entries, None).await;
            assert!(matches!(refused, Err(RegistryError::Invalid { .. })), "{what}");
        }
        let refused = r.bind(&t, &Role::ShieldInput, vec![canary], None).await;
        assert!(matches!(refused, Err(RegistryError::NotServed(_))));
        let none = r.bind(&t, &Role::ShieldInput, vec![], None).await.unwrap();
        assert!(none.value.entries.is_empty());
    });
}

#[test]
fn binding_changes_by_compare_and_set_and_rolls_back() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        put(&r, &t, "s", "2", b"two").await;
        let role = Role::ShieldOutput;
        let first = r.bind(&t, &role, vec![entry("s", "1")], Some(Expect::Absent)).await.unwrap();
        let nothing = r.rollback(&t, &role, None).await;
        assert!(matches!(nothing, Err(RegistryError::Conflict(_))));
        let at = Some(Expect::Revision(first.revision));
        let second = r.bind(&t, &role, vec![entry("s", "2")], at).await.unwrap();
        let stale = r.bind(&t, &role, vec![entry("s", "1")], at).await;
        assert!(matches!(
            stale,
            Err(RegistryError::RevisionMismatch { found: Some(f) }) if f == second.revision
        ));
        let back = r.rollback(&t, &role, None).await.unwrap();
        assert_eq!(back.value.entries, first.value.entries);
        let forth = r.rollback(&t, &role, None).await.unwrap();
        assert_eq!(forth.value.entries, second.value.entries);
        r.unbind(&t, &role, None).await.unwrap();
        let revived = r.rollback(&t, &role, None).await.unwrap();
        assert_eq!(revived.value.entries, second.value.entries);
    });
}

#[test]
fn pins_follow_every_change_and_old_ones_stay_as_they_were() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        put(&r, &t, "s", "2", b"two").await;
        let role = Role::ShieldInput;
        assert!(r.pins(&t).unwrap().entries.is_empty());
        r.bind(&t, &role, vec![entry("s", "1")], None).await.unwrap();
        let old = r.pins(&t).unwrap();
        assert!(Arc::ptr_eq(&old, &r.pins(&t).unwrap()), "cached");
        let grants = Grants { models: vec!["*".into()], ..Grants::default() };
        r.set_grants(&t, &name("s"), &grants, None).await.unwrap();
        assert_eq!(*r.pins(&t).unwrap().all(&role)[0].grants, grants);
        r.bind(&t, &role, vec![entry("s", "2")], None).await.unwrap();
        let new = r.pins(&t).unwrap();
        assert_eq!(new.all(&role)[0].component.digest, admitted(b"two").digest);
        assert_eq!(old.all(&role)[0].component.digest, admitted(b"one").digest);
        assert_eq!(*old.all(&role)[0].grants, Grants::default());
    });
}

#[test]
fn a_refusal_text_may_stand_beside_or_in_the_configuration_and_leaves_it() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        let beside = BindingEntry { refusal: Some("beside".into()), ..entry("s", "1") };
        let within = BindingEntry { config: json!({"refusal": "within", "a": 1}), ..entry("s", "1") };
        r.bind(&t, &Role::ShieldInput, vec![beside, within], None).await.unwrap();
        let pins = r.pins(&t).unwrap();
        let pinned = pins.all(&Role::ShieldInput);
        assert_eq!(pinned[0].refusal.as_deref(), Some("beside"));
        assert_eq!(pinned[1].refusal.as_deref(), Some("within"));
        assert_eq!(pinned[1].config, json!({"a": 1}));
    });
}

#[test]
fn a_key_is_found_by_its_secret_until_it_is_rotated_expired_or_deleted() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let new =
            NewKey { tenant: Some(t.clone()), name: "ci".into(), scopes: vec![Scope::Inference], expires_at: None };
        let key = r.create_key(new.clone(), "sk-1").await.unwrap();
        assert_eq!(r.key_by_secret("sk-1").unwrap().unwrap(), key);
        assert!(key.allows(Scope::Inference) && !key.allows(Scope::Components));
        r.rotate_key(Some(&t), &key.id, "sk-2").await.unwrap();
        assert!(r.key_by_secret("sk-1").unwrap().is_none());
        assert_eq!(r.key_by_secret("sk-2").unwrap().unwrap().id, key.id);
        let elsewhere = r.delete_key(None, &key.id).await;
        assert!(matches!(elsewhere, Err(RegistryError::NotFound { .. })));
        r.delete_key(Some(&t), &key.id).await.unwrap();
        assert!(r.key_by_secret("sk-2").unwrap().is_none());
        let old = NewKey { expires_at: Some(now() - 1), ..new };
        r.create_key(old, "sk-3").await.unwrap();
        assert!(r.key_by_secret("sk-3").unwrap().is_none());
    });
}

#[test]
fn the_operator_key_is_replaced_by_another_secret_and_kept_by_the_same() {
    block_on(async {
        let (r, _) = registry();
        assert!(!r.has_operator_key().unwrap());
        r.set_operator_key("sk-a").await.unwrap();
        r.set_operator_key("sk-a").await.unwrap();
        assert!(r.key_by_secret("sk-a").unwrap().unwrap().tenant.is_none());
        r.set_operator_key("sk-b").await.unwrap();
        assert!(r.key_by_secret("sk-a").unwrap().is_none());
        assert!(r.key_by_secret("sk-b").unwrap().is_some());
        assert!(r.has_operator_key().unwrap());
    });
}

#[test]
fn a_deleted_tenant_leaves_nothing_for_a_new_one_of_its_name() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "s", "1", b"one").await;
        r.bind(&t, &Role::ShieldInput, vec![entry("s", "1")], None).await.unwrap();
        let new = NewKey { tenant: Some(t.clone()), name: String::new(), scopes: vec![Scope::Admin], expires_at: None };
        r.create_key(new, "sk-1").await.unwrap();
        let bucket = r.bucket(&t, "b").unwrap();
        let big = BucketValue::bytes(vec![7; 100_000]);
        bucket.set("k", &big, None).await.unwrap();
        r.delete_tenant(&t).await.unwrap();
        assert!(r.key_by_secret("sk-1").unwrap().is_none());
        let late = bucket.set("k", &big, None).await;
        assert!(matches!(late, Err(RegistryError::NotFound { .. })));
        assert!(r.store().scan(b"t/", None, 10).unwrap().is_empty());
        r.create_tenant(t.clone(), Quotas::default()).await.unwrap();
        assert!(r.pins(&t).unwrap().entries.is_empty());
        let default = r.delete_tenant(&TenantId::default_tenant()).await;
        assert!(matches!(default, Err(RegistryError::Conflict(_))));
    });
}

#[test]
fn state_values_of_every_size_read_back_and_shrinking_leaves_no_parts() {
    block_on(async {
        let (r, store) = registry();
        r.ensure_default_tenant().await.unwrap();
        let bucket = r.bucket(&TenantId::default_tenant(), "b").unwrap();
        for size in [1 << 20, 4097, 4096, 4095, 4094, 0, 8192, 3] {
            let value = BucketValue::bytes((0..size).map(|i| i as u8).collect::<Vec<_>>());
            bucket.set("a/b", &value, None).await.unwrap();
            assert_eq!(bucket.get("a/b").unwrap().unwrap().value, value, "{size}");
        }
        assert_eq!(store.scan(b"t/default/~/", None, 10).unwrap().len(), 0);
        let over = BucketValue::bytes(vec![0; (1 << 20) + 1]);
        let refused = bucket.set("a/b", &over, None).await;
        assert!(matches!(refused, Err(RegistryError::TooLarge { .. })));
        assert!(bucket.delete("a/b", None).await.unwrap());
        assert!(!bucket.delete("a/b", None).await.unwrap());
        for bad in ["", "a\0b", &"k".repeat(257)] {
            assert!(matches!(bucket.get(bad), Err(RegistryError::Invalid { .. })));
        }
        assert!(r.bucket(&TenantId::default_tenant(), "a/b").is_err());
    });
}

#[test]
fn several_state_values_change_in_one_commit_or_not_at_all() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let bucket = r.bucket(&t, "b").unwrap();
        let write = |key: &str, size: Option<usize>, expect| BucketWrite {
            key: key.into(),
            value: size.map(|size| BucketValue::bytes(vec![7; size])),
            expect,
        };
        let first = [write("1", Some(1), Some(Expect::Absent)), write("2", Some(100_000), None)];
        let now = bucket.commit(&first).await.unwrap();
        assert!(matches!(bucket.commit(&first).await, Err(RegistryError::RevisionMismatch { .. })));
        let stale = [write("3", Some(1), None), write("2", None, Some(Expect::Revision(now + 1)))];
        assert!(matches!(bucket.commit(&stale).await, Err(RegistryError::RevisionMismatch { .. })));
        assert!(bucket.get("3").unwrap().is_none());
        let both = [write("1", None, None), write("2", Some(3), Some(Expect::Revision(now))), write("9", None, None)];
        bucket.commit(&both).await.unwrap();
        assert!(bucket.get("1").unwrap().is_none());
        assert_eq!(bucket.get("2").unwrap().unwrap().value.bytes.len(), 3);
        assert!(r.store().scan(b"t/a/~/", None, 10).unwrap().is_empty(), "no part is left");

        // The largest commits fit, whatever they replace.
        let most: Vec<_> = (0..256).map(|n| write(&format!("k{n}"), Some(8191), None)).collect();
        bucket.commit(&most).await.unwrap();
        let gone: Vec<_> = most.iter().map(|w| write(&w.key, None, None)).collect();
        bucket.commit(&gone).await.unwrap();
        for (what, refused) in [
            ("none", vec![]),
            ("too many", (0..257).map(|n| write(&n.to_string(), Some(1), None)).collect()),
            (
                "too large together",
                vec![write("x", Some(1 << 20), None), write("y", Some(1 << 20), None), write("z", Some(9), None)],
            ),
            ("twice the same", vec![write("x", Some(1), None), write("x", None, None)]),
        ] {
            let answer = bucket.commit(&refused).await;
            let named = matches!(answer, Err(RegistryError::TooLarge { .. } | RegistryError::Invalid { .. }));
            assert!(named, "{what}: {answer:?}");
        }
    });
}

#[test]
fn state_changes_by_compare_and_set_and_lists_by_prefix() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let bucket = r.bucket(&t, "b").unwrap();
        let v = BucketValue::json("1");
        let first = bucket.set("x/1", &v, Some(Expect::Absent)).await.unwrap();
        let twice = bucket.set("x/1", &v, Some(Expect::Absent)).await;
        assert!(matches!(twice, Err(RegistryError::RevisionMismatch { .. })));
        let second = bucket.set("x/1", &v, Some(Expect::Revision(first))).await.unwrap();
        let stale = bucket.delete("x/1", Some(Expect::Revision(first))).await;
        assert!(matches!(
            stale,
            Err(RegistryError::RevisionMismatch { found: Some(f) }) if f == second
        ));
        bucket.set("x/2", &v, None).await.unwrap();
        bucket.set("y", &v, None).await.unwrap();
        let keys = |l: Vec<BucketKey>| l.into_iter().map(|k| k.key).collect::<Vec<_>>();
        assert_eq!(keys(bucket.list("x/", None, 10).unwrap()), ["x/1", "x/2"]);
        assert_eq!(keys(bucket.list("", Some("x/1"), 1).unwrap()), ["x/2"]);
        let other = r.bucket(&t, "b2").unwrap();
        assert!(other.list("", None, 10).unwrap().is_empty());
    });
}

#[test]
fn the_longest_key_of_the_longest_tenant_and_bucket_takes_the_largest_value() {
    block_on(async {
        let (r, t) = with_tenant(&"t".repeat(crate::id::MAX_NAME_BYTES)).await;
        let bucket = r.bucket(&t, &"b".repeat(crate::id::MAX_NAME_BYTES)).unwrap();
        let value = BucketValue::bytes(vec![7; MAX_STATE_VALUE_BYTES]);
        let longest = "k".repeat(256);
        bucket.set(&longest, &value, None).await.unwrap();
        assert_eq!(bucket.get(&longest).unwrap().unwrap().value, value);
        assert_eq!(bucket.list("", None, 10).unwrap()[0].key, longest);
        for bad in ["k".repeat(257), String::new(), "a\0".into()] {
            assert!(matches!(bucket.set(&bad, &value, None).await, Err(RegistryError::Invalid { .. })), "{bad}");
        }
    });
}

#[test]
fn concurrent_unconditional_writers_of_a_large_value_never_mix_parts() {
    block_on(async {
        let (r, store) = registry();
        r.ensure_default_tenant().await.unwrap();
        let bucket = r.bucket(&TenantId::default_tenant(), "b").unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..20u8 {
            let bucket = bucket.clone();
            tasks.spawn(async move {
                let value = BucketValue::bytes(vec![i; 1000 * usize::from(i) + 1]);
                bucket.set("k", &value, None).await.unwrap();
                let read = bucket.get("k").unwrap().unwrap().value.bytes;
                assert_eq!(read.len(), 1000 * usize::from(read[0]) + 1);
                assert!(read.iter().all(|b| *b == read[0]));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        bucket.delete("k", None).await.unwrap();
        assert!(store.scan(b"t/default/~/", None, 1).unwrap().is_empty());
    });
}

fn trace_at(id: &str, created_us: u64) -> TraceRecord {
    TraceRecord {
        id: id.into(),
        request: crate::RequestId("r".into()),
        route: "POST /v1/chat/completions".into(),
        status: "ok".into(),
        model: "m".into(),
        tokens: crate::event::Usage::default(),
        components: vec![],
        prompts: vec![],
        spans: vec![],
        notes: vec![],
        created_us,
    }
}

#[test]
fn the_recorder_writes_newest_first_keeps_the_newest_and_sums_usage() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let (recorder, writer) = Recorder::new(r.clone(), 5);
        for i in 0..8u64 {
            let mut trace = trace_at(&format!("tr_{:016x}", u64::MAX - i), i);
            if i == 7 {
                trace.notes = vec!["n".repeat(10_000)];
            }
            recorder.record(Recording {
                tenant: t.clone(),
                trace,
                usage: Some(UsageDelta { requests: 1, prompt_tokens: 10, cached_tokens: 0, completion_tokens: i }),
            });
        }
        drop(recorder);
        writer.await;
        let newest = r.traces(&t, None, 2).unwrap();
        assert_eq!(newest[0].created_us, 7);
        assert_eq!(newest[0].notes[0].len(), 10_000);
        let rest = r.traces(&t, Some(&newest[1].id), 10).unwrap();
        assert_eq!(rest.iter().map(|t| t.created_us).collect::<Vec<_>>(), [5, 4, 3]);
        assert!(r.trace(&t, "../x").unwrap().is_none());
        let usage = r.usage(&t, None, None, 10).unwrap();
        assert_eq!(usage.len(), 1);
        assert_eq!((usage[0].total.requests, usage[0].total.completion_tokens), (8, 28));
    });
}

#[test]
fn secrets_list_names_alone() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        r.set_secret(&t, "API_TOKEN", "v").await.unwrap();
        assert_eq!(r.secret(&t, "API_TOKEN").unwrap().as_deref(), Some("v"));
        assert_eq!(r.secret_names(&t, None, 10).unwrap(), ["API_TOKEN"]);
        assert!(r.set_secret(&t, "a/b", "v").await.is_err());
        assert!(r.delete_secret(&t, "API_TOKEN").await.unwrap());
        assert!(r.secret(&t, "API_TOKEN").unwrap().is_none());
    });
}

proptest! {
    /// Whatever two tenants are called, a scan of one never meets a row of the other.
    #[test]
    fn no_scan_of_a_tenant_reaches_another(
        a in "[a-z0-9][a-z0-9._-]{0,6}",
        b in "[a-z0-9][a-z0-9._-]{0,6}",
        bucket in "[a-z0-9][a-z0-9._-]{0,4}",
        key in "[a-z/.~]{1,6}",
        size in 0usize..9000,
    ) {
        prop_assume!(a != b);
        block_on(async {
            let (r, store) = registry();
            let (a, b) = (TenantId::new(&a).unwrap(), TenantId::new(&b).unwrap());
            for t in [&a, &b] {
                r.create_tenant(t.clone(), Quotas::default()).await.unwrap();
            }
            let value = BucketValue::bytes(vec![1; size]);
            r.bucket(&b, &bucket).unwrap().set(&key, &value, None).await.unwrap();
            r.set_secret(&b, &bucket, "v").await.unwrap();
            put(&r, &b, &bucket, "1", b"one").await;
            assert!(store.scan(&keys::all_of(&a), None, 10).unwrap().is_empty());
            assert!(r.bucket(&a, &bucket).unwrap().list("", None, 10).unwrap().is_empty());
            assert!(r.components(&a, None, 10).unwrap().is_empty());
            assert!(r.secret_names(&a, None, 10).unwrap().is_empty());
            r.delete_tenant(&a).await.unwrap();
            assert!(r.bucket(&b, &bucket).unwrap().get(&key).unwrap().is_some());
        });
    }
}

#[test]
fn the_store_in_memory_holds_the_limits_of_a_real_one() {
    block_on(async {
        let store = MemoryStore::new();
        let over = Batch::new().put("k", vec![0; 4097]);
        assert!(store.commit(over).await.is_err());
        let just = Batch::new().put("k", vec![0; 4096]);
        assert!(store.commit(just).await.is_ok());
        let long = Batch::new().put(vec![b'k'; crate::store::MAX_KEY_BYTES + 1], "v");
        assert!(store.commit(long).await.is_err());
    });
}
