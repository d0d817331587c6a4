use super::super::tests::{block_on, with_tenant};
use super::*;
use serde_json::json;

fn waiting(expires_at: u64) -> Waiting {
    serde_json::from_value(json!({
        "interruption": {"question": "May I?", "request": {"tool": "pay"}, "state": "s".repeat(900_000)},
        "turn": {"model": "m", "messages": [], "tools": [], "tool_choice": "auto", "sampling": {}, "constraint": null,
            "metadata": {}, "template_args": {}, "resume": null},
        "orchestrator": {"name": "o", "version": "1", "digest": "00".repeat(32)},
        "config": {}, "assistant": null, "party": {"user": "u", "session": null},
        "dialect": {"name": "chat"}, "created_at": 1, "expires_at": expires_at,
    }))
    .unwrap()
}

#[test]
fn an_interruption_is_taken_exactly_once_with_its_state() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let kept = waiting(now() + 60);
        let id = r.keep_interruption(&t, 7, &kept).await.unwrap();
        assert_eq!(r.interruption(&t, &id).unwrap().unwrap().interruption.state, Value::Null);
        assert_eq!(r.interruptions(&t, None, 9).unwrap().len(), 1);
        let (a, b) = tokio::join!(r.take_interruption(&t, &id), r.take_interruption(&t, &id));
        let taken: Vec<Waiting> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
        assert_eq!(taken, [kept]);
        assert!(r.take_interruption(&t, &id).await.unwrap().is_none());
    });
}

#[test]
fn an_expired_interruption_is_gone_and_swept() {
    block_on(async {
        let (r, t) = with_tenant("a").await;
        let id = r.keep_interruption(&t, 7, &waiting(now())).await.unwrap();
        assert!(r.interruption(&t, &id).unwrap().is_none());
        assert!(r.interruptions(&t, None, 9).unwrap().is_empty());
        r.keep_interruption(&t, 8, &waiting(now() + 60)).await.unwrap();
        assert_eq!(r.waiting(&t).size().unwrap(), 1);
        assert!(r.states(&t, &id).list::<Value>(None, 9).unwrap().is_empty(), "its state is gone with it");
        assert!(r.take_interruption(&t, &id).await.unwrap().is_none());
    });
}
