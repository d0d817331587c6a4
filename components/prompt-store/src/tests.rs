use super::*;
use std::rc::Rc;
use stockade_guest::prompt_store::{Template, TemplateMessage, Variable, VariableKind};
use stockade_guest::testing::{Host, plugin};

fn store() -> Rc<Store> {
    Host::new().buckets(&["prompts"]);
    plugin(json!({})).unwrap()
}

fn text(template: &str, variables: &[(&str, VariableKind, Option<&str>)]) -> Definition {
    let variable = |(name, kind, default): &(&str, VariableKind, Option<&str>)| Variable {
        name: name.to_string(),
        kind: *kind,
        required: true,
        default: default.map(str::to_string),
        description: String::new(),
    };
    Definition {
        template: Template::Text(template.into()),
        variables: variables.iter().map(variable).collect(),
        description: String::new(),
        metadata: "{}".into(),
    }
}

fn render(store: &Store, definition: Definition, variables: Value) -> Result<String> {
    store.put("p".into(), definition)?;
    match store.render("p".into(), Selector::Latest, variables.to_string())?.content {
        Content::Text(text) => Ok(text),
        Content::Messages(_) => panic!("a text was put"),
    }
}

#[test]
fn versions_count_up_and_never_change() {
    let store = store();
    assert_eq!(store.put("a".into(), text("one", &[])), Ok(1));
    assert_eq!(store.put("a".into(), text("two", &[])), Ok(2));
    assert_eq!(store.put("a".into(), text("two", &[])), Ok(2), "the same again is no new version");
    assert_eq!(store.put("a".into(), text("one", &[])), Ok(3), "going back is a new version");
    for (version, want) in [(1, "one"), (2, "two"), (3, "one")] {
        let prompt = store.get("a".into(), Selector::Version(version)).unwrap();
        assert_eq!((prompt.version, prompt.definition), (version, text(want, &[])));
    }
    for missing in [Selector::Version(0), Selector::Version(4), Selector::Label("x".into())] {
        assert!(matches!(store.get("a".into(), missing), Err(Error::NotFound(_))));
    }
    assert!(matches!(store.get("b".into(), Selector::Latest), Err(Error::NotFound(_))));
}

#[test]
fn labels_move_by_compare_and_set() {
    let store = store();
    for t in ["one", "two"] {
        store.put("a".into(), text(t, &[])).unwrap();
    }
    let set = |version, expected| store.set_label("a".into(), "production".into(), version, expected);
    assert_eq!(set(1, None), Ok(()));
    assert!(matches!(set(2, None), Err(Error::Conflict(_))));
    assert!(matches!(set(2, Some(2)), Err(Error::Conflict(_))));
    assert!(matches!(set(3, Some(1)), Err(Error::NotFound(_))));
    assert_eq!(set(2, Some(1)), Ok(()));
    let prompt = store.get("a".into(), Selector::Label("production".into())).unwrap();
    assert_eq!((prompt.version, prompt.labels), (2, vec!["production".to_string()]));
    assert_eq!(store.delete_label("a".into(), "production".into()), Ok(()));
    assert!(matches!(store.delete_label("a".into(), "production".into()), Err(Error::NotFound(_))));
    assert!(matches!(store.set_label("a".into(), "latest".into(), 1, None), Err(Error::Invalid(_))));
}

#[test]
fn a_version_that_was_written_without_its_head_keeps_its_number() {
    let store = store();
    store.put("a".into(), text("one", &[])).unwrap();
    // A call that ended between its two writes.
    let bucket = state::open("prompts").unwrap();
    let lost = store::Stored::from(text("lost", &[]));
    bucket.set_json("version/a/0000000002", &lost, state::Expectation::Absent).unwrap();
    assert_eq!(store.put("a".into(), text("three", &[])), Ok(3));
    let get = |n| store.get("a".into(), Selector::Version(n)).unwrap().definition;
    assert_eq!((get(2), get(3)), (text("lost", &[]), text("three", &[])));
}

#[test]
fn names_come_in_order_and_in_pages() {
    let store = store();
    for name in ["c", "a", "b"] {
        store.put(name.into(), text("x", &[])).unwrap();
        store.put(name.into(), text("y", &[])).unwrap();
    }
    assert_eq!(store.names(None, 2).unwrap(), ["a", "b"]);
    assert_eq!(store.names(Some("b".into()), 2).unwrap(), ["c"]);
    assert!(store.names(None, 0).is_err());
}

#[test]
fn variables_are_typed_and_go_in_as_they_are() {
    use VariableKind::*;
    let store = store();
    let all = text(
        "{{ a }}|{{b}}|{{c}}|{{d}}|{{{{a}}",
        &[("a", Text, None), ("b", Number, Some("7")), ("c", Boolean, None), ("d", Json, None)],
    );
    let values = json!({"a": "<{{b}}>", "c": true, "d": {"k": [1]}});
    assert_eq!(render(&store, all.clone(), values).unwrap(), r#"<{{b}}>|7|true|{"k":[1]}|{{a}}"#);
    for (values, why) in [
        (json!({"c": true, "d": 1}), "`a` is missing"),
        (json!({"a": 1, "c": true, "d": 1}), "`a` has to be a text"),
        (json!({"a": "", "b": "7", "c": true, "d": 1}), "`b` has to be a number"),
        (json!({"a": "", "c": true, "d": 1, "e": 1}), "`e` is unknown"),
        (json!([]), "variables"),
    ] {
        match render(&store, all.clone(), values) {
            Err(Error::Invalid(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn an_optional_variable_without_value_or_default_is_empty() {
    let mut definition = text("[{{a}}]", &[("a", VariableKind::Text, None)]);
    definition.variables[0].required = false;
    assert_eq!(render(&store(), definition, json!({})).unwrap(), "[]");
}

#[test]
fn chat_prompts_render_to_messages() {
    let store = store();
    let mut definition = text("", &[("who", VariableKind::Text, None)]);
    let message = |role, content: &str| TemplateMessage { role, content: content.into() };
    definition.template =
        Template::Chat(vec![message(Role::System, "Greet {{who}}."), message(Role::User, "Hi, I am {{who}}.")]);
    store.put("greet".into(), definition).unwrap();
    let rendered = store.render("greet".into(), Selector::Latest, r#"{"who": "Ann"}"#.into()).unwrap();
    let want = vec![Message::system("Greet Ann."), Message::user("Hi, I am Ann.")];
    assert_eq!(rendered.content, Content::Messages(want));
}

#[test]
fn definitions_that_could_not_be_rendered_are_refused() {
    use VariableKind::*;
    let bad = [
        text("{{a}}", &[]),
        text("", &[("a", Text, None)]),
        text("{{a", &[("a", Text, None)]),
        text("{{}}", &[]),
        text("{{a b}}", &[]),
        text("{{a}}{{a}}", &[("a", Text, None), ("a", Text, None)]),
        text("{{a}}", &[("a", Number, Some("\"x\""))]),
        text("{{a}}", &[("a", Number, Some("x"))]),
        Definition { metadata: "[]".into(), ..text("x", &[]) },
    ];
    for definition in bad {
        assert!(matches!(store().put("a".into(), definition.clone()), Err(Error::Invalid(_))), "{definition:?}");
    }
    for name in ["", "a/b", "é", &"a".repeat(101)] {
        assert!(matches!(store().put(name.into(), text("x", &[])), Err(Error::Invalid(_))), "{name}");
    }
}

#[test]
fn another_bucket_than_the_granted_one_is_denied() {
    Host::new().buckets(&["prompts"]);
    let store: Rc<Store> = plugin(json!({"bucket": "other"})).unwrap();
    assert!(matches!(store.put("a".into(), text("x", &[])), Err(Error::Denied(_))));
}
