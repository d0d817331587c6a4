//! What components see of WASI: nothing, and the directories that they are granted.

mod support;

use stockade_core::plugin::*;
use support::*;

/// Answers how many directories it sees.
const COUNTS_DIRECTORIES: &str = r#"(component
    (import "wasi:filesystem/types@0.2.3" (instance $t (export "descriptor" (type (sub resource)))))
    (alias export $t "descriptor" (type $descriptor))
    (import "wasi:filesystem/preopens@0.2.3" (instance $p
      (export "descriptor" (type $d (eq $descriptor)))
      (export "get-directories" (func (result (list (tuple (own $d) string)))))))
    (core module $libc (memory (export "mem") 2)
      (global $next (mut i32) (i32.const 4096))
      (func (export "realloc") (param i32 i32 i32 i32) (result i32)
        (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
        (global.get $next)
        (global.set $next (i32.add (global.get $next) (local.get 3)))))
    (core instance $c (instantiate $libc))
    (core func $get (canon lower (func $p "get-directories")
      (memory (core memory $c "mem")) (realloc (core func $c "realloc"))))
    (core module $m
      (import "c" "mem" (memory 1))
      (import "h" "get" (func $get (param i32)))
      (func (export "run") (result i32) (call $get (i32.const 64)) (i32.load (i32.const 68))))
    (core instance $i (instantiate $m
      (with "c" (instance $c)) (with "h" (instance (export "get" (func $get))))))
    (func (export "run") (result u32) (canon lift (core func $i "run"))))"#;

async fn directories(bench: &Bench, target: &Pinned) -> Result<serde_json::Value, CallError> {
    let invoked = bench.runtime.invoke(call(target), "run".into(), vec![]).await;
    invoked.map(|i| i.result)
}

fn grant(host_path: String) -> Grants {
    Grants {
        directories: vec![DirectoryGrant { host_path, guest_path: "/data".into(), writable: false }],
        ..Grants::default()
    }
}

#[tokio::test]
async fn directories_are_seen_only_where_they_are_granted() {
    let bench = bench();
    let target = bench.pin_text(COUNTS_DIRECTORIES).await;
    assert_eq!(directories(&bench, &target).await.unwrap(), 0);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let with = granted(target.clone(), grant(path.clone()));
    assert_eq!(directories(&bench, &with).await.unwrap(), 1);

    let gone = granted(target, grant(format!("{path}/no-such-folder")));
    let refused = directories(&bench, &gone).await;
    assert!(matches!(refused, Err(CallError::Host { stage: "opening a granted directory", .. })), "{refused:?}");
}
