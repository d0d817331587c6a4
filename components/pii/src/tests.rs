use super::*;
use stockade_guest::testing::{check, check_messages, every_split};

fn sent(config: Value, text: &str) -> String {
    every_split::<Pii>(config, text).sent
}

#[test]
fn each_kind_has_an_action_of_its_own() {
    let config =
        json!({"kinds": {"us-ssn": "block", "ipv4": "allow", "phone": {"action": "mask", "style": "partial"}}});
    let text = "a@b.com 10.0.0.1 +14155552671";
    assert_eq!(sent(config.clone(), text), "[EMAIL] 10.0.0.1 +*******2671");
    let reply = every_split::<Pii>(config, "it is 123-45-6789");
    assert_eq!(reply.sent, "it is ");
    let violation = reply.violation.unwrap();
    assert_eq!(violation.category, "pii.us-ssn");
    assert!(!violation.message.contains("6789") && !violation.metadata.contains("6789"));
    assert_eq!(sent(json!({"action": "allow", "kinds": {"email": "mask"}}), text), "[EMAIL] 10.0.0.1 +14155552671");
}

#[test]
fn a_partial_mask_shows_the_end_and_keeps_the_form() {
    let config = json!({"style": "partial"});
    for (text, want) in [
        ("4111 1111 1111 1111", "**** **** **** 1111"),
        ("ann.bee@mail.example.com", "a***@mail.example.com"),
        ("10.0.0.1", "**.*.*.*"),
        ("sk-abcdefghijklmnop1234", "[API KEY]"),
        ("born 1985-03-12", "born [DATE OF BIRTH]"),
    ] {
        assert_eq!(sent(config.clone(), text), want);
    }
}

#[test]
fn equal_values_have_equal_hashes_under_one_salt() {
    let hash = |salt: &str, text: &str| sent(json!({"style": "hash", "salt": salt}), text);
    let one = hash("0123456789abcdef", "a@b.com");
    assert!(one.starts_with("[EMAIL ") && one.len() == "[EMAIL 00000000]".len(), "{one}");
    assert_eq!(hash("0123456789abcdef", "A@B.com"), one);
    assert_ne!(hash("0123456789abcdef", "a@c.com"), one);
    assert_ne!(hash("fedcba9876543210", "a@b.com"), one);
    assert_eq!(hash("0123456789abcdef", "+1 415 555 2671"), hash("0123456789abcdef", "+1 415-555-2671"));
    assert!(matches!(check::<Pii>(json!({"style": "hash"}), "x"), Err(Error::Invalid(why)) if why.contains("salt")));
}

#[test]
fn allowed_values_stay_as_a_whole() {
    let config = json!({"allow": ["support@example.com", "*@partner.example", "+1 415 555 2671"]});
    let text = "Support@example.com ann@partner.example ann@other.example +1-415-555-2671";
    assert_eq!(sent(config, text), "Support@example.com ann@partner.example [EMAIL] +1-415-555-2671");
}

#[test]
fn further_context_words_work_in_other_languages() {
    let text = "Reisepass Nr. X1234567";
    assert_eq!(sent(json!({}), text), text);
    assert_eq!(sent(json!({"context": {"passport": ["Reisepass"]}}), text), "Reisepass Nr. [PASSPORT]");
}

#[test]
fn only_the_messages_of_the_roles_are_looked_at() {
    let messages = || vec![Message::system("a@b.com"), Message::user("a@b.com"), Message::assistant("a@b.com")];
    let verdict = check_messages::<Pii>(json!({"roles": ["user"]}), Direction::Input, messages()).unwrap();
    let want = vec![Message::system("a@b.com"), Message::user("[EMAIL]"), Message::assistant("a@b.com")];
    assert_eq!(verdict, Verdict::Edit(want));
    let config = json!({"roles": ["user"], "action": "block"});
    let verdict = check_messages::<Pii>(config, Direction::Input, messages()).unwrap();
    assert!(matches!(verdict, Verdict::Block(violation) if violation.category == "pii.email"));
    let verdict = check_messages::<Pii>(json!({"roles": ["tool"]}), Direction::Input, messages()).unwrap();
    assert_eq!(verdict, Verdict::Pass);
}

#[test]
fn a_wrong_configuration_is_refused() {
    for config in [json!({"kinds": {"emial": "mask"}}), json!({"kinds": {"email": "hide"}}), json!({"actoin": "mask"})]
    {
        assert!(matches!(check::<Pii>(config, "x"), Err(Error::Invalid(_))));
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new();
    let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
    testing::latency("pii", || assert_eq!(testing::check::<Pii>(json!({}), text), Ok(Verdict::Pass)));
}
