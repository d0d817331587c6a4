//! The component's own `plugin.js` on the engine that the component has, native. One engine serves all calls.

use rquickjs::{Context, Function, Module, Object, Promise, Runtime};
use serde_json::{Value, json};

const PLUGIN: &str = include_str!("../../../../../../components/code-interpreter-javascript/src/plugin.js");

fn main() {
    let runtime = Runtime::new().expect("an engine");
    let context = Context::full(&runtime).expect("a context");
    context.with(|ctx| {
        // What the component imports.
        for (name, source) in [
            ("stockade:plugin/config@0.1.0", "export const get = () => '{}'"),
            ("stockade:plugin/system@0.1.0", "export const random = (n) => new Array(n).fill(7)"),
        ] {
            Module::declare(ctx.clone(), name, source).expect("a module");
        }
        let (plugin, ready) =
            Module::declare(ctx.clone(), "plugin", PLUGIN).and_then(Module::eval).expect("the plugin");
        ready.finish::<()>().expect("it loads");
        let tool: Object<'_> = plugin.get("tool").expect("it exports a tool");
        let call: Function<'_> = tool.get("call").expect("a tool is called");
        let arguments = json!({"code": "console.log(1); 6 * 7"}).to_string();
        stockade_guest::testing::latency("code-interpreter-javascript", || {
            let promise: Promise<'_> = call.call((arguments.as_str(),)).expect("a call");
            let output: Object<'_> = promise.finish().expect("an answer");
            let content: String = output.get("content").expect("its content");
            let content: Value = serde_json::from_str(&content).expect("JSON");
            assert_eq!(content, json!({"stdout": "1\n", "stderr": "", "value": "42"}));
        });
    });
}
