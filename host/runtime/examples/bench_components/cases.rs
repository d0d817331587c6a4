//! The calls that are compared, each of them the one that its crate's test `latency` makes.

use serde_json::{Value, json};

const TEXT: &str =
    "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
const CODE: &str = "Here it is:\n\n```python\nfor n in range(10):\n    print(n * n)\n```\n";
const ANSWER: &str = "She has 3 + 4 = 7 apples in the basket. The answer is 7.";

/// One call of a component.
pub enum Case {
    Check(&'static str),
    /// What the user says.
    Turn(&'static str),
    /// The name of the tool, where it is one of a set, and its arguments.
    Tool(Option<&'static str>, Value),
    Invoke(Invoke),
}

/// A function of the component in a role.
pub struct Invoke {
    pub role: &'static str,
    /// Functions that are called once before.
    pub before: Vec<(&'static str, Vec<Value>)>,
    pub function: &'static str,
    pub args: Vec<Value>,
}

pub struct Row {
    /// What the crate's test is called.
    pub name: &'static str,
    pub component: &'static str,
    pub config: Value,
    pub case: Case,
}

impl Row {
    fn new(component: &'static str, config: Value, case: Case) -> Self {
        Self { name: component, component, config, case }
    }
}

pub fn rows() -> Vec<Row> {
    let check = |name, config| Row::new(name, config, Case::Check(TEXT));
    let turn = |name, config| Row::new(name, config, Case::Turn("Hi"));
    let tool = |name, config, arguments| Row::new(name, config, Case::Tool(None, arguments));
    let firewall = json!({"use_case": "none", "policy": {"user": ["hidden-ascii"]}});
    let route = json!({"default": "all", "by": ["rules"],
        "routes": [{"name": "all", "keywords": ["hi"], "tools": []}]});
    let sum = json!({"expression": "sqrt(2) * (3 + 4)^2 / 7 - sin(0.5)"});
    let mcp = json!({"url": "https://mcp.example/mcp"});
    let python = json!({"code": "print('hi')\nimport math\nmath.factorial(20)"});
    vec![
        check("regex-shield", json!({})),
        check("pii", json!({})),
        Row::new("code-shield", json!({}), Case::Check(CODE)),
        check("firewall", firewall),
        check("injection-guard", json!({})),
        check("moderation", json!({})),
        check("prompt-guard", json!({})),
        check("llama-guard", json!({})),
        turn("chat", json!({})),
        turn("tool-loop", json!({})),
        turn("react", json!({})),
        turn("plan-execute", json!({})),
        turn("router", route),
        Row::new("rag", json!({"banks": ["notes"]}), Case::Turn("kettle")),
        tool("echo-tool", json!({}), json!({"text": TEXT})),
        tool("calculator", json!({}), sum),
        tool("knowledge-search", json!({"banks": ["notes"]}), json!({"query": "kettle"})),
        tool("web-fetch", json!({}), json!({"url": "https://a.example/"})),
        Row::new("mcp", mcp, Case::Tool(Some("add"), json!({"a": 1, "b": 2}))),
        tool("code-interpreter-python", json!({}), python),
        tool("code-interpreter-javascript", json!({}), json!({"code": "console.log(1); 6 * 7"})),
        prompt_store(),
        memory(),
        answer_match(),
        exact_answer(),
    ]
}

fn prompt_store() -> Row {
    let prompt = json!({"format": "dotprompt", "template": {"text":
        "You help {{who}}.{{#each topics}} You know {{this}}.{{/each}}"}, "variables": [], "partials": [],
        "strict": false, "model-config": "{}", "description": "", "tags": [], "metadata": "{}"});
    let before = vec![("put", vec![json!("help"), prompt, json!({"author": "ann", "message": "why"})])];
    let args = vec![json!("help"), json!("latest"), json!(r#"{"who": "Ann", "topics": ["tea", "trains", "Rust"]}"#)];
    let case = Case::Invoke(Invoke { role: "prompt-store", before, function: "render", args });
    Row { name: "prompt-store render", ..Row::new("prompt-store", json!({}), case) }
}

fn memory() -> Row {
    let note = |n: usize| {
        let text = format!("Note {n} about tea of kind {}.", n % 7);
        json!({"id": n.to_string(), "text": text, "metadata": "{}"})
    };
    let bank = vec![json!("notes"), json!("keyword"), json!("{}")];
    let notes = vec![json!("notes"), (0..200).map(note).collect()];
    let before = vec![("create", bank), ("insert", notes)];
    let args = vec![json!("notes"), json!({"text": "tea of kind 3", "limit": 10})];
    let case = Case::Invoke(Invoke { role: "memory", before, function: "search", args });
    Row { name: "memory keyword search", ..Row::new("memory", json!({}), case) }
}

fn answer_match() -> Row {
    let sample = json!({"input": "{}", "messages": [], "output": ANSWER, "expected": "\"7 apples\""});
    let args = vec![json!(vec![sample; 16])];
    let case = Invoke { role: "evaluator/bench", before: Vec::new(), function: "evaluate", args };
    Row::new("answer-match", json!({}), Case::Invoke(case))
}

fn exact_answer() -> Row {
    let rollout = json!({"messages": [], "completion": ANSWER, "reference": "7"});
    let args = vec![json!(vec![rollout; 16])];
    let case = Invoke { role: "reward/bench", before: Vec::new(), function: "score", args };
    Row::new("exact-answer", json!({}), Case::Invoke(case))
}
