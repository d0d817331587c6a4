//! Llama Stack's agent configuration, and what it is as an assistant.

use crate::dialect::openai::chat_request::{MAX_TOOLS, function_name};
use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::{Map, Value, json};
use stockade_core::chat::{ToolChoice, ToolSpec};
use stockade_core::id::ComponentName;
use stockade_core::infer::Constraint;
use stockade_core::registry::{Assistant, AssistantVersion, ShieldRef, Shields, TurnLimits};

/// The assistant that an agent is. Tools that the client runs, the tool choice and the response format belong to the
/// request and are read from the configuration at each turn.
pub fn assistant(config: &Fields) -> Result<Assistant, ApiError> {
    let shields = |field: &str| -> Result<Vec<ShieldRef>, ApiError> {
        let names = config.array(field)?.map_or(&[][..], Vec::as_slice);
        names.iter().map(|name| Ok(shield(component(config, field, name)?))).collect()
    };
    client_tools(config)?;
    tool_choice(config)?;
    constraint(config)?;
    let turns = config.integer("max_infer_iters", 1..=i64::from(u32::MAX))?;
    Ok(Assistant {
        model: config.need_str("model")?.into(),
        description: config.str("name")?.unwrap_or_default().into(),
        instructions: config.str("instructions")?.filter(|i| !i.is_empty()).map(String::from),
        tools: Some(tools(config, "toolgroups")?),
        shields: Shields { input: shields("input_shields")?, output: shields("output_shields")? },
        sampling: sampling(config)?,
        limits: TurnLimits { turns: turns.and_then(|n| u32::try_from(n).ok()), ..TurnLimits::default() },
        ..Assistant::default()
    })
}

/// An assistant that was not made as an agent, in an agent's words.
pub fn of_assistant(a: &AssistantVersion) -> Value {
    let d = &a.definition;
    let names = |shields: &[ShieldRef]| shields.iter().map(|s| s.component.to_string()).collect::<Vec<_>>();
    json!({
        "name": a.name,
        "model": d.model,
        "instructions": d.instructions.clone().unwrap_or_default(),
        "toolgroups": d.tools.clone().unwrap_or_default(),
        "input_shields": names(&d.shields.input),
        "output_shields": names(&d.shields.output),
        "client_tools": [],
        "max_infer_iters": d.limits.turns,
    })
}

fn shield(component: ComponentName) -> ShieldRef {
    ShieldRef { component, version: None, config: Value::Null, on_failure: Default::default(), refusal: None }
}

/// Names of the tenant's tools out of a list of tool groups: `NAME`, `GROUP/NAME`, Llama Stack's own, or `{name, args}`.
pub fn tools(f: &Fields, field: &str) -> Result<Vec<ComponentName>, ApiError> {
    let list = f.array(field)?.map_or(&[][..], Vec::as_slice);
    let bound = |value: &Value| {
        let id = value.get("name").unwrap_or(value).as_str().ok_or_else(|| f.wrong(field, "must be names"))?;
        component(f, field, &json!(crate::dialect::tools::bound_to(id)?))
    };
    list.iter().map(bound).collect()
}

fn component(f: &Fields, field: &str, value: &Value) -> Result<ComponentName, ApiError> {
    let text = value.as_str().ok_or_else(|| f.wrong(field, "must be names"))?;
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    ComponentName::new(name).map_err(|e| f.wrong(field, e.to_string()))
}

fn sampling(config: &Fields) -> Result<Map<String, Value>, ApiError> {
    let mut out = Map::new();
    let Some(params) = config.object("sampling_params")? else { return Ok(out) };
    if let Some(strategy) = params.object("strategy")? {
        match strategy.need_str("type")? {
            "greedy" => drop(out.insert("temperature".into(), json!(0))),
            "top_p" | "top_k" => {
                for field in ["temperature", "top_p", "top_k"] {
                    if let Some(value) = strategy.value(field) {
                        out.insert(field.into(), value.clone());
                    }
                }
            }
            _ => return Err(strategy.wrong("type", "must be greedy, top_p or top_k")),
        }
    }
    for field in ["max_tokens", "repetition_penalty", "stop"] {
        // The stack writes "no bound" as 0.
        if let Some(value) = params.value(field).filter(|v| *v != &json!(0)) {
            out.insert(field.into(), value.clone());
        }
    }
    Ok(out)
}

/// Tools that the client runs itself.
pub fn client_tools(config: &Fields) -> Result<Vec<ToolSpec>, ApiError> {
    let list = config.array("client_tools")?.map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_TOOLS {
        return Err(config.wrong("client_tools", format!("at most {MAX_TOOLS}")));
    }
    let one = |(i, value): (usize, &Value)| {
        let tool = Fields::of(value, config.at(&format!("client_tools[{i}]")))?;
        if let Some(schema) = tool.object("input_schema")? {
            return Ok(ToolSpec {
                name: function_name(&tool)?,
                description: tool.str("description")?.unwrap_or_default().into(),
                parameters: schema.map().clone().into(),
            });
        }
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (j, parameter) in tool.array("parameters")?.map_or(&[][..], Vec::as_slice).iter().enumerate() {
            let p = Fields::of(parameter, tool.at(&format!("parameters[{j}]")))?;
            let name = p.need_str("name")?;
            let kind = match p.need_str("parameter_type")? {
                kind @ ("string" | "integer" | "number" | "boolean" | "array" | "object" | "null") => kind,
                "str" => "string",
                "int" => "integer",
                "float" => "number",
                "bool" => "boolean",
                "list" => "array",
                "dict" => "object",
                _ => return Err(p.wrong("parameter_type", "must be a type of JSON Schema")),
            };
            properties
                .insert(name.into(), json!({"type": kind, "description": p.str("description")?.unwrap_or_default()}));
            if p.bool("required")?.unwrap_or(true) {
                required.push(name);
            }
        }
        Ok(ToolSpec {
            name: function_name(&tool)?,
            description: tool.str("description")?.unwrap_or_default().into(),
            parameters: json!({"type": "object", "properties": properties, "required": required}),
        })
    };
    list.iter().enumerate().map(one).collect()
}

pub fn tool_choice(config: &Fields) -> Result<ToolChoice, ApiError> {
    let inner = config.object("tool_config")?.map(|c| c.str("tool_choice")).transpose()?.flatten();
    Ok(match inner.or(config.str("tool_choice")?) {
        None | Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Required,
        Some(name) => ToolChoice::Named(name.into()),
    })
}

pub fn constraint(config: &Fields) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = config.object("response_format")? else { return Ok(None) };
    match format.need_str("type")? {
        "json_schema" => Ok(Some(Constraint::JsonSchema(format.need("json_schema")?.clone()))),
        _ => Err(format.wrong("type", "only json_schema is served")),
    }
}
