use super::super::{MemoryStore, Quotas};
use super::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn registry(tenants: &[&str]) -> (Registry, Vec<TenantId>) {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    let mut ids = Vec::new();
    for name in tenants {
        let id = TenantId::new(name).unwrap();
        registry.create_tenant(id.clone(), Quotas::default()).await.unwrap();
        ids.push(id);
    }
    (registry, ids)
}

fn ids<T>(documents: &[Document<T>]) -> Vec<&str> {
    documents.iter().map(|d| d.id.as_str()).collect()
}

#[test]
fn documents_list_both_ways_and_belong_to_their_tenant() {
    block_on(async {
        let (registry, tenants) = registry(&["a", "b"]).await;
        let [a, b] = [0, 1].map(|i| registry.collection(&tenants[i], "responses", 100, Full::Refuse));
        let made: Vec<String> = (0..5).map(|i| new_document_id("resp", i)).collect();
        for (i, id) in made.iter().enumerate() {
            a.add(id, &json!({"n": i, "long": "x".repeat(i * 3000)})).await.unwrap();
        }
        let all: Vec<Document<Value>> = a.list(None, 10).unwrap();
        assert_eq!(ids(&all), made);
        assert_eq!(all[4].value["long"].as_str().unwrap().len(), 12_000);
        let back: Vec<Document<Value>> = a.list_back(Some(&made[3]), 2).unwrap();
        assert_eq!(ids(&back), [&made[2], &made[1]]);
        assert!(b.list::<Value>(None, 10).unwrap().is_empty());
        assert!(b.get::<Value>(&made[0]).unwrap().is_none());
        assert_eq!(a.get::<Value>(&made[1]).unwrap().unwrap().value["n"], 1);
        // Same key, another prefix: no such document.
        assert!(a.get::<Value>(&made[1].replace("resp", "conv")).unwrap().is_none());
        for bad in ["", "resp_", "resp_..", "resp_0/1", "é"] {
            assert!(a.get::<Value>(bad).unwrap().is_none(), "{bad}");
        }
    });
}

#[test]
fn a_full_collection_drops_its_oldest_with_what_is_below_or_refuses() {
    block_on(async {
        let (registry, tenants) = registry(&["a"]).await;
        let drops = registry.collection(&tenants[0], "top", 2, Full::DropOldest).with_below("under");
        let made: Vec<String> = (0..3).map(|i| new_document_id("t", i)).collect();
        let under = registry.collection(&tenants[0], format!("under/{}", made[0]), 2, Full::Refuse);
        drops.add(&made[0], &json!(0)).await.unwrap();
        for i in 0..2 {
            under.add(&new_document_id("u", i), &json!(i)).await.unwrap();
        }
        let refused = under.add(&new_document_id("u", 9), &json!(9)).await;
        assert!(matches!(refused, Err(RegistryError::TooLarge { .. })));
        assert_eq!(drops.list::<Value>(None, 9).unwrap().len(), 1, "what is below is not listed");
        drops.add(&made[1], &json!(1)).await.unwrap();
        drops.add(&made[2], &json!(2)).await.unwrap();
        assert_eq!(ids(&drops.list::<Value>(None, 9).unwrap()), made[1..]);
        assert!(under.list::<Value>(None, 9).unwrap().is_empty());
        under.add(&new_document_id("u", 9), &json!(9)).await.unwrap();
    });
}

#[test]
fn a_document_is_taken_once() {
    block_on(async {
        let (registry, tenants) = registry(&["a"]).await;
        let c = registry.collection(&tenants[0], "c", 10, Full::Refuse);
        let id = new_document_id("c", 1);
        c.add(&id, &json!("x".repeat(10_000))).await.unwrap();
        let first = c.get::<Value>(&id).unwrap().unwrap();
        let (a, b) = tokio::join!(
            c.delete(&id, Expect::Revision(first.revision)),
            c.delete(&id, Expect::Revision(first.revision))
        );
        assert!(a.unwrap() ^ b.unwrap());
        assert!(c.get::<Value>(&id).unwrap().is_none());
        assert_eq!(c.size().unwrap(), 0);
    });
}
