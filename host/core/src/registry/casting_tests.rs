use super::super::tests::{block_on, put, version, with_tenant};
use super::super::{Assistant, BankRef, BindingEntry};
use super::*;
use crate::id::AssistantName;
use serde_json::json;

async fn bind(r: &Registry, t: &TenantId, role: &str, component: &str, config: Value) {
    let entry: BindingEntry =
        serde_json::from_value(json!({"component": component, "version": "1", "config": config})).unwrap();
    r.bind(t, &role.parse().unwrap(), vec![entry], None).await.unwrap();
}

fn record(definition: Value) -> AssistantVersion {
    AssistantVersion {
        name: AssistantName::new("helper").unwrap(),
        version: 1,
        definition: serde_json::from_value(definition).unwrap(),
        created_at: 0,
    }
}

fn names(pins: &Pins, role: &Role) -> Vec<String> {
    pins.all(role).iter().map(|p| p.component.name.to_string()).collect()
}

#[test]
fn an_assistant_adds_shields_and_never_takes_one_away() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        for component in ["mandatory", "extra", "chat"] {
            put(&r, &t, component, "1", b"x").await;
        }
        put(&r, &t, "extra", "2", b"y").await;
        bind(&r, &t, "shield.input", "mandatory", json!({"a": 1})).await;
        bind(&r, &t, "orchestrator", "chat", json!({"prompt": {"name": "p"}, "limits": {"model_calls": 2}})).await;
        let pins = |d: Value| r.pins_of(&t, &record(d), &Party::default());
        let plain = pins(json!({"model": "m"})).unwrap();
        assert_eq!(names(&plain, &Role::ShieldInput), ["mandatory"]);
        assert_eq!(plain.one(&Role::Orchestrator).unwrap().config["prompt"]["name"], "p");
        let more = pins(json!({"model": "m", "shields": {
            "input": [{"component": "extra"}, {"component": "mandatory"}], "output": [{"component": "extra", "version": "1"}],
        }}))
        .unwrap();
        assert_eq!(names(&more, &Role::ShieldInput), ["mandatory", "extra"]);
        assert_eq!(more.all(&Role::ShieldInput)[1].component.version, version("2"));
        assert_eq!(more.all(&Role::ShieldOutput)[0].component.version, version("1"));
        let missing = pins(json!({"model": "m", "shields": {"input": [{"component": "none"}]}}));
        assert!(matches!(missing, Err(RegistryError::NotFound { .. })));
    });
}

#[test]
fn the_records_fields_reach_the_orchestrator_under_its_own_config() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        put(&r, &t, "bound", "1", b"x").await;
        put(&r, &t, "unbound", "1", b"x").await;
        let run = |d: Value| {
            let pins = r.pins_of(&t, &record(d), &Party::default())?;
            Ok::<_, RegistryError>(pins.one(&Role::Orchestrator).unwrap().clone())
        };
        assert!(matches!(run(json!({"model": "m"})), Err(RegistryError::Conflict(_))));
        bind(
            &r,
            &t,
            "orchestrator",
            "bound",
            json!({"prompt": {"name": "p"}, "deep": 1, "limits": {"model_calls": 2}}),
        )
        .await;
        bind(&r, &t, "tool/add", "bound", json!({})).await;
        bind(&r, &t, "tool/sub", "bound", json!({})).await;
        let over = run(json!({"model": "m", "instructions": "Be brief.", "tools": ["add"], "limits": {"turns": 5},
            "orchestrator": {"config": {"limits": {"model_calls": 3}}}}))
        .unwrap();
        assert_eq!(
            over.config,
            json!({"deep": 1, "system": "Be brief.", "tools": ["add"], "limits": {"model_calls": 3}})
        );
        let own = run(json!({"model": "m", "orchestrator": {"component": "unbound", "config": {"x": 1}}})).unwrap();
        assert_eq!((own.component.name.as_str(), &own.config), ("unbound", &json!({"x": 1})));
        let none = run(json!({"model": "m", "tools": ["mul"]}));
        assert!(matches!(none, Err(RegistryError::Conflict(_))));
        let narrowed = r.pins_of(&t, &record(json!({"model": "m", "tools": ["add"]})), &Party::default()).unwrap();
        assert_eq!(narrowed.tools().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["add"]);
    });
}

#[test]
fn banks_of_two_owners_never_meet() {
    let banks_of = |user: &str, session: Option<&str>| {
        let refs = ["tenant", "user", "agent", "session"].map(|scope| BankRef {
            name: format!("b-{scope}"),
            scope: serde_json::from_value(json!(scope)).unwrap(),
            write: scope == "user",
        });
        let mut assistant = record(json!({"model": "m"}));
        assistant.definition =
            Assistant { memory: super::super::Memory { banks: refs.into() }, ..assistant.definition };
        let party = Party { user: user.into(), session: session.map(String::from) };
        Pins { banks: Some(banks(&assistant, &party)), ..Pins::default() }
    };
    let (ann, bob) = (banks_of("ann", Some("s1")), banks_of("bob", None));
    let read = |pins: &Pins, bank: &str| pins.bank(bank.into(), false);
    assert_eq!(read(&ann, "b-tenant"), Some("b-tenant".into()));
    assert_eq!(read(&ann, "b-agent"), read(&bob, "b-agent"));
    assert_ne!(read(&ann, "b-user"), read(&bob, "b-user"));
    assert!(read(&ann, "b-session").is_some_and(|name| name.len() == 48));
    assert_eq!(read(&bob, "b-session"), None, "a turn that stands alone has no session");
    assert_eq!(read(&ann, "other"), None);
    assert_eq!(ann.bank("b-user".into(), true), read(&ann, "b-user"));
    assert_eq!(ann.bank("b-tenant".into(), true), None, "not to be written");
    assert_eq!(Pins::default().bank("any".into(), true), Some("any".into()), "no assistant: any bank");
}
