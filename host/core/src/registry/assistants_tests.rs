use super::super::tests::{block_on, with_tenant};
use super::*;
use serde_json::json;

fn name(text: &str) -> AssistantName {
    AssistantName::new(text).unwrap()
}

fn definition(json: Value) -> Assistant {
    serde_json::from_value(json).unwrap()
}

#[test]
fn versions_are_added_and_never_change() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let x = &name("x");
        let put = |d: Value, expect| r.put_assistant(&t, x, definition(d), expect);
        let one = put(json!({"model": "m"}), Some(Expect::Absent)).await.unwrap();
        let same = put(json!({"model": "m"}), None).await.unwrap();
        assert_eq!((one.version, &same), (1, &one));
        let long = "y".repeat(50_000);
        let two = put(json!({"model": "m", "instructions": long}), None).await.unwrap();
        assert_eq!(two.version, 2);
        let taken = put(json!({"model": "n"}), Some(Expect::Absent)).await;
        assert!(matches!(taken, Err(RegistryError::RevisionMismatch { .. })));
        assert_eq!(r.assistant(&t, &name("x")).unwrap(), Some(two.clone()));
        assert_eq!(r.assistant_version(&t, &name("x"), 1).unwrap(), Some(one.clone()));
        assert_eq!(r.assistant_versions(&t, &name("x"), 1, 9).unwrap(), [two]);
        let other = r.put_assistant(&t, &name("x.y"), definition(json!({"model": "m"})), None).await.unwrap();
        assert_eq!(r.assistants(&t, Some("x"), 9).unwrap(), [other]);
        assert!(r.delete_assistant(&t, &name("x")).await.unwrap());
        assert!(!r.delete_assistant(&t, &name("x")).await.unwrap());
        assert_eq!(r.assistant_version(&t, &name("x"), 1).unwrap(), None);
        assert_eq!(r.assistants(&t, None, 9).unwrap().len(), 1);
    });
}

#[test]
fn definitions_that_break_a_rule_are_refused() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        for bad in [
            json!({"model": "m", "limits": {"seconds": 0}}),
            json!({"model": "m", "memory": {"banks": [{"name": "a.b"}]}}),
            json!({"model": "m", "memory": {"banks": [{"name": "a"}, {"name": "a", "scope": "user"}]}}),
            json!({"model": "m", "prompt": {"name": "p", "label": "l", "version": 1}}),
            json!({"model": "m", "orchestrator": {"version": "1"}}),
            json!({"model": "m", "instructions": "x".repeat(MAX_DEFINITION_BYTES)}),
        ] {
            let put = r.put_assistant(&t, &name("x"), definition(bad.clone()), None).await;
            assert!(put.is_err(), "{}", bad.to_string().chars().take(80).collect::<String>());
        }
        assert!(serde_json::from_value::<Assistant>(json!({"model": "m", "modle": 1})).is_err());
    });
}
