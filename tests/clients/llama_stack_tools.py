"""Llama Stack's official client, 0.2 or 0.6, against the tool routes: `llama_stack_tools.py MCP_URL`."""
import os
import sys

import llama_stack_client
from llama_stack_client import LlamaStackClient

url = sys.argv[1]
client = LlamaStackClient(base_url=os.environ["STOCKADE_URL"], api_key=os.environ["STOCKADE_API_KEY"],
                          max_retries=0, timeout=120)
old = llama_stack_client.__version__.startswith("0.2")
runtime = client.tool_runtime

client.toolgroups.register(toolgroup_id="calculator", provider_id="calculator")
client.toolgroups.register(toolgroup_id="builtin::code_interpreter", provider_id="inline::code-interpreter")
client.toolgroups.register(
    toolgroup_id="mcp::peer", provider_id="model-context-protocol", mcp_endpoint={"uri": url}, args={"secret": "peer"}
)
groups = {g.identifier: g for g in client.toolgroups.list()}
assert {"calculator", "code-interpreter-python", "mcp::peer"} <= set(groups), groups
assert groups["mcp::peer"].mcp_endpoint.uri == url, groups["mcp::peer"]
assert client.toolgroups.get("builtin::code_interpreter").type == "tool_group"

tools = {t.name: t for t in runtime.list_tools(tool_group_id="mcp::peer")}
assert set(tools) == {"mcp-peer__add", "mcp-peer__fs_x2e_read", "mcp-peer__fails"}, tools
add = tools["mcp-peer__add"]
assert add.description == "Adds two integers.", add
if old:
    assert {p.name: (p.parameter_type, p.required) for p in add.parameters} == {"a": ("integer", True), "b": ("integer", True)}, add
    assert {t.identifier for t in client.tools.list(toolgroup_id="mcp::peer")} == set(tools)
    assert client.tools.get("calculator").toolgroup_id == "calculator"
else:
    assert set(add.input_schema["properties"]) == {"a", "b"} and add.toolgroup_id == "mcp::peer", add
    assert {t.name for t in client.tools.list(toolgroup_id="mcp::peer")} == set(tools)
    assert len(runtime.list_tools(mcp_endpoint={"uri": url})) == 3

for name in ["mcp-peer__add", "add"]:
    answer = runtime.invoke_tool(tool_name=name, kwargs={"a": 2, "b": 3})
    assert answer.content == "5" and not answer.error_message, answer
assert runtime.invoke_tool(tool_name="mcp-peer__fs_x2e_read", kwargs={"path": "x"}).content == "content of x"
answer = runtime.invoke_tool(tool_name="mcp-peer__fails", kwargs={})
assert "no luck" in answer.error_message, answer
answer = runtime.invoke_tool(tool_name="calculator", kwargs={"expression": "1/3 + 1/6"})
assert answer.content == "0.5" and answer.error_code is None, answer
answer = runtime.invoke_tool(tool_name="code_interpreter", kwargs={"code": "print('hi'); sum(range(10))"})
assert '"stdout": "hi\\n"' in answer.content and '"value": "45"' in answer.content, answer

for broken in [
    lambda: runtime.invoke_tool(tool_name="nothing", kwargs={}),
    lambda: client.toolgroups.get("nothing"),
    lambda: client.toolgroups.register(toolgroup_id="x", provider_id="nothing"),
]:
    try:
        broken()
    except llama_stack_client.NotFoundError:
        pass
    else:
        raise AssertionError("what does not exist was found")
client.toolgroups.unregister("mcp::peer")
assert "mcp::peer" not in {g.identifier for g in client.toolgroups.list()}
print("all checks passed")
