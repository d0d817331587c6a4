"""The official OpenAI client against a Stockade host: a document in, an answer with checked citations out, alone and
beside tools of the tenant. The host has bound the tools `echo` and `pay`; calls of `pay` wait for approval."""
import openai

client = openai.OpenAI(max_retries=0, timeout=180)
MODEL = "smollm2"

PLANTS = """# Plants of the office

The fern in the hall is called Gwendolyn. It is watered on Tuesdays with 300 millilitres of rain water.

# Machines

The coffee machine is a Rancilio. Its boiler is descaled every six weeks by the facilities team.
"""
DOORS = "Visitors sign in at the front desk. The code of the side door is changed every month by the security team."

store = client.vector_stores.create(name="office")
files = {}
for name, text in [("plants.md", PLANTS), ("doors.txt", DOORS)]:
    file = client.files.create(file=(name, text.encode()), purpose="assistants")
    done = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes={"kind": name[:5]},
                                                      poll_interval_ms=200)
    assert done.status == "completed", done
    files[file.id] = (name, text)


def words(text):
    return " ".join(text.split())


def search(question, **more):
    tool = {"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 2, **more}
    return dict(model=MODEL, input=question, temperature=0, max_output_tokens=64, tools=[tool],
                include=["file_search_call.results"])


def check(response):
    """Every citation names a file whose text the cited result is part of; the citations' names."""
    call = next(item for item in response.output if item.type == "file_search_call")
    assert call.status == "completed" and call.queries and call.results, call
    for result in call.results:
        name, text = files[result.file_id]
        assert result.filename == name and result.score is not None, result
        assert all(words(line.lstrip("# ")) in words(text) for line in result.text.splitlines()), result.text
    message = next(item for item in response.output if item.type == "message")
    cited = []
    for annotation in message.content[0].annotations:
        assert annotation.type == "file_citation", annotation
        name, text = files[annotation.file_id]
        assert annotation.filename == name, annotation
        number = message.content[0].text[annotation.index:].lstrip("[").split("]")[0].split(",")[0]
        assert call.results[int(number) - 1].file_id == annotation.file_id, (number, call.results)
        cited.append(name)
    return cited


QUESTION = "On which day is Gwendolyn the fern watered?"
answer = client.responses.create(**search(QUESTION))
assert "Tuesday" in answer.output_text, answer.output_text
assert check(answer) and check(answer)[0] == "plants.md", answer.output

with client.responses.stream(**search(QUESTION)) as stream:
    kinds, text, annotations = [], "", []
    for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.output_text.annotation.added":
            annotations.append(event.annotation)
    final = stream.get_final_response()
steps = [kind for kind in kinds if kind.startswith("response.file_search_call")]
assert steps == [f"response.file_search_call.{s}" for s in ("in_progress", "searching", "completed")], steps
assert text == answer.output_text and len(annotations) == len(check(final)) > 0, (text, annotations)

quiet = client.responses.create(**{**search(QUESTION), "include": []})
assert quiet.output[0].results is None, quiet.output[0]
doors = client.responses.create(**search("What does the text say?", filters={"type": "eq", "key": "kind", "value": "doors"}))
assert {r.filename for r in doors.output[0].results} == {"doors.txt"}, doors.output[0]
high = client.responses.create(**search(QUESTION, ranking_options={"ranker": "weighted", "score_threshold": 1000.0}))
assert high.output[0].results == [], high.output[0]



def beside(tool):
    """The same question, and a tool that has to be called."""
    request = search(QUESTION)
    request["tools"].append({"type": "mcp", "server_label": "stockade", "allowed_tools": [tool]})
    return {**request, "tool_choice": {"type": "mcp", "server_label": "stockade", "name": tool}}


def called(response, tool):
    calls = [item for item in response.output if item.type == "mcp_call"]
    assert [(call.name, call.status) for call in calls] == [(tool, "completed")], response.output
    return calls[0].output


both = client.responses.create(**beside("echo"))
assert called(both, "echo") and set(check(both)) == {"plants.md"}, both.output
with client.responses.stream(**beside("echo")) as stream:
    kinds = [event.type for event in stream]
    final = stream.get_final_response()
assert called(final, "echo") and check(final), final.output
order = ["response.file_search_call.completed", "response.mcp_call.completed",
         "response.output_text.annotation.added", "response.completed"]
assert [kind for kind in kinds if kind in order][:4] == order, kinds

# What has to be approved has to be beside a search too, and the search is not lost.
waiting = client.responses.create(**beside("pay"))
request = waiting.output[-1]
assert request.type == "mcp_approval_request" and request.name == "pay", waiting.output
assert not [item for item in waiting.output if item.type == "mcp_call"], waiting.output
approval = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
paid = client.responses.create(model=MODEL, previous_response_id=waiting.id, input=[approval],
                               include=["file_search_call.results"])
assert called(paid, "pay") and set(check(paid)) == {"plants.md"}, paid.output

# An item by its id alone.
referred = client.responses.create(model=MODEL, temperature=0, max_output_tokens=16, truncation="auto",
                                   input=[{"type": "item_reference", "id": answer.output[-1].id},
                                          {"role": "user", "content": "Say it again."}])
assert referred.truncation == "auto" and referred.usage.input_tokens > 20, referred
items = client.responses.input_items.list(referred.id, order="asc").data
assert [item.role for item in items] == ["assistant", "user"], items
assert items[0].content[0].text == answer.output_text, items

for kind, broken in [
    (openai.NotFoundError, {**search("x"), "tools": [{"type": "file_search", "vector_store_ids": ["vs_none"]}]}),
    (openai.BadRequestError, {**search("x"), "tools": [{"type": "file_search", "vector_store_ids": []}]}),
    (openai.BadRequestError, {**search("x"), "tools": [{"type": "web_search"}]}),
    (openai.NotFoundError, dict(model=MODEL, input=[{"type": "item_reference", "id": "msg_" + "0" * 24}])),
]:
    try:
        client.responses.create(**broken)
    except kind:
        pass
    else:
        raise AssertionError(f"accepted: {broken}")

print("all checks passed")
