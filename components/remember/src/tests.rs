use super::*;
use stockade_guest::testing::{Host, call_of};

fn call(config: &Value, name: &str, arguments: Value) -> ToolOutput {
    call_of::<Remember>(config.clone(), name, arguments).unwrap()
}

#[test]
fn what_is_remembered_is_recalled_and_can_be_forgotten() {
    let _host = Host::new();
    let config = json!({"banks": ["about"]});
    assert_eq!(call(&config, "recall", json!({"query": "dog"})).content, "Nothing is kept about this.");
    assert!(!call(&config, "remember", json!({"text": " The user's dog is called Biscuit. "})).is_error);
    let told = call(&config, "recall", json!({"query": "dog"})).content;
    let (id, text) = told.strip_prefix("- (id ").and_then(|rest| rest.split_once(") ")).unwrap();
    assert_eq!(text, "The user's dog is called Biscuit.");
    assert!(!call(&config, "forget", json!({"id": id})).is_error);
    assert_eq!(call(&config, "recall", json!({"query": "dog"})).content, "Nothing is kept about this.");
    assert!(call(&config, "forget", json!({"id": id})).is_error, "it is not there twice");
}

#[test]
fn banks_take_turns_and_only_the_first_one_changes() {
    let _host = Host::new();
    for (bank, text) in [("team", "tea at four"), ("team", "tea is served hot"), ("own", "no tea for me")] {
        memories::insert(bank, &[Item::new(text)]).unwrap();
    }
    let config = json!({"banks": ["own", "team"], "limit": 2, "expires_days": 2});
    let told = call(&config, "recall", json!({"query": "tea"})).content;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with(") no tea for me"), "{told}");
    assert_eq!(lines[1], "- tea at four", "no id: it cannot be forgotten from here");
    call(&config, "remember", json!({"text": "green tea"}));
    let (own, team) = (memories::list("own", None, None, 9).unwrap(), memories::list("team", None, None, 9).unwrap());
    assert_eq!((own.len(), team.len()), (2, 2));
    let kept = own.iter().find(|item| item.text == "green tea").unwrap();
    assert_eq!(kept.expires_at, Some(system::now() + 2 * DAY_MS));
}

#[test]
fn what_a_model_gets_wrong_it_is_told() {
    let _host = Host::new();
    let config = json!({"banks": ["own"], "max_characters": 100});
    for (name, arguments) in [
        ("remember", json!({})),
        ("remember", json!({"text": "  "})),
        ("remember", json!({"text": "é".repeat(MAX_TEXT + 1)})),
        ("recall", json!({"query": 7})),
        ("forget", json!({"id": "none"})),
    ] {
        assert!(call(&config, name, arguments).is_error, "{name}");
    }
    assert!(matches!(call_of::<Remember>(config.clone(), "recite", json!({})), Err(Error::NotFound(_))));
    memories::insert("own", &[Item::new("é".repeat(500))]).unwrap();
    assert_eq!(call(&config, "recall", json!({"query": "é"})).content.chars().count(), 100);
    let names: Vec<String> =
        testing::plugin::<Remember>(config).unwrap().list().unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["remember", "recall", "forget"]);
}
