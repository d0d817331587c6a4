//! Calls of exported functions by name, with JSON in and out.

use crate::bindings::types;
use crate::call::{Given, Live};
use crate::guest::Context;
use crate::runtime::Inner;
use crate::value;
use serde_json::Value;
use std::sync::Arc;
use stockade_core::plugin::{CallError, Invocation};
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{ComponentExportIndex, Val};

/// `function` is `INTERFACE#FUNCTION`, the interface with or without package and version, or a bare `FUNCTION`.
pub(crate) async fn invoke(
    host: &Arc<Inner>,
    context: Arc<Context>,
    function: String,
    args: Vec<Value>,
) -> Result<Invocation, CallError> {
    let name = context.call.target.component.to_string();
    let asked = function.clone();
    let run = host.run(context, function, None, move |live| {
        Box::pin(async move {
            let result = call(live, &asked, &args).await?;
            live.meter.note_fuel(&live.store);
            Ok(result.map(|result| Invocation { result, usage: live.meter.usage_inside() }))
        })
    });
    run.await.map_err(|stop| stop.into_call_error(&name))
}

async fn call(live: &mut Live, function: &str, args: &[Value]) -> Given<Value> {
    let own = wasmtime::Error::new::<CallError>;
    let component = live.name();
    let Some((index, ty)) = find(live, function) else {
        return Err(own(CallError::NoFunction { component, function: function.chars().take(200).collect() }));
    };
    let params = params(&ty, args).map_err(|e| own(CallError::Arguments(e)))?;
    let func = live.instance.get_func(&mut live.store, index);
    let func = func.ok_or_else(|| wasmtime::format_err!("`{function}` is no function"))?;

    let mut results = vec![Val::Bool(false); ty.results().len()];
    let called = live.store.run_concurrent(async |a| func.call_concurrent(a, &params, &mut results).await);
    called.await??;

    // The plugin API's own errors come back as what they are, so that a denial is a denial.
    if let [Val::Result(Err(Some(error)))] = results.as_slice()
        && let Some(error) = api_error(error)
    {
        return Ok(Err(error));
    }
    let results = results.iter().map(value::to_json);
    let results = results.collect::<Result<Vec<_>, _>>().map_err(|e| own(CallError::Arguments(e.to_string())))?;
    let result = match <[Value; 1]>::try_from(results) {
        Ok([one]) => unwrap_ok(one),
        Err(none_or_many) if none_or_many.is_empty() => Value::Null,
        Err(many) => Value::Array(many),
    };
    live.meter.output(result.to_string().len())?;
    Ok(Ok(result))
}

/// The value inside of a successful `result`.
fn unwrap_ok(value: Value) -> Value {
    match value {
        Value::Object(mut map) if map.len() == 1 && map.contains_key("ok") => map.remove("ok").unwrap_or(Value::Null),
        value => value,
    }
}

fn find(live: &Live, function: &str) -> Option<(ComponentExportIndex, ComponentFunc)> {
    let component = &live.loaded.component;
    let engine = component.engine();
    let (wanted, function) = match function.split_once('#') {
        Some((interface, function)) => (Some(interface), function),
        None => (None, function),
    };
    let ty = component.component_type();
    for (name, item) in ty.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(ty) if wanted.is_none() && name == function => {
                return Some((component.get_export_index(None, name)?, ty));
            }
            ComponentItem::ComponentInstance(interface) if wanted.is_none_or(|w| names(w, name)) => {
                if let Some(item) = interface.get_export(engine, function)
                    && let ComponentItem::ComponentFunc(ty) = item.ty
                {
                    let outer = component.get_export_index(None, name)?;
                    return Some((component.get_export_index(Some(&outer), function)?, ty));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether `wanted` is the interface `full`, or its name without version or package.
fn names(wanted: &str, full: &str) -> bool {
    let plain = full.split_once('@').map_or(full, |(n, _)| n);
    let short = plain.rsplit_once('/').map_or(plain, |(_, n)| n);
    wanted == full || wanted == plain || wanted == short
}

fn params(ty: &ComponentFunc, args: &[Value]) -> Result<Vec<Val>, String> {
    let wanted = ty.params();
    if args.len() != wanted.len() {
        let names: Vec<_> = wanted.map(|(n, _)| n.to_string()).collect();
        return Err(format!("{} given, {} needed: ({})", args.len(), names.len(), names.join(", ")));
    }
    let values = wanted.zip(args).map(|((name, ty), arg)| value::from_json(&ty, arg, name));
    values.collect::<Result<_, _>>().map_err(|e| e.to_string())
}

/// The plugin API's error in a dynamic value; other components' errors stay JSON.
fn api_error(value: &Val) -> Option<types::Error> {
    let Val::Variant(case, payload) = value else {
        return None;
    };
    let text = || match payload.as_deref() {
        Some(Val::String(s)) => Some(s.clone()),
        _ => None,
    };
    Some(match case.as_str() {
        "denied" => types::Error::Denied(text()?),
        "not-found" => types::Error::NotFound(text()?),
        "invalid" => types::Error::Invalid(text()?),
        "conflict" => types::Error::Conflict(text()?),
        "too-large" => types::Error::TooLarge(text()?),
        "unavailable" => types::Error::Unavailable(text()?),
        "other" => types::Error::Other(text()?),
        "overloaded" if payload.is_none() => types::Error::Overloaded,
        "timeout" if payload.is_none() => types::Error::Timeout,
        _ => return None,
    })
}
