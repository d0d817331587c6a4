"""The official OpenAI client against a Stockade host: responses and conversations, with the default model."""
import json
import time

import openai

client = openai.OpenAI(max_retries=0, timeout=180)
MODEL = "smollm2"

first = client.responses.create(model=MODEL, input="What is the capital of France?", temperature=0, max_output_tokens=32,
                                metadata={"who": "test"})
assert first.status in ("completed", "incomplete") and "Paris" in first.output_text, first
assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens > 0, first.usage
assert first.output[0].type == "message" and first.output[0].id.startswith("msg_"), first.output

with client.responses.stream(model=MODEL, input="What is the capital of France?", temperature=0,
                             max_output_tokens=32) as stream:
    kinds, text = [], ""
    for i, event in enumerate(stream):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    final = stream.get_final_response()
assert text == final.output_text == first.output_text, (text, final.output_text, first.output_text)
assert kinds[:2] == ["response.created", "response.in_progress"], kinds
assert kinds[-1] in ("response.completed", "response.incomplete"), kinds

follow = client.responses.create(model=MODEL, previous_response_id=first.id, input="Say it again.", temperature=0,
                                 max_output_tokens=32)
assert follow.previous_response_id == first.id and follow.usage.input_tokens > first.usage.input_tokens, follow
read = client.responses.retrieve(first.id)
assert read.output_text == first.output_text and read.metadata == {"who": "test"}, read
items = client.responses.input_items.list(first.id, order="asc").data
assert [i.content[0].text for i in items] == ["What is the capital of France?"], items

schema = {"type": "object", "additionalProperties": False, "required": ["city"],
          "properties": {"city": {"type": "string", "maxLength": 12}}}
made = client.responses.create(model=MODEL, input="A city?", temperature=0, max_output_tokens=60, store=False,
                               text={"format": {"type": "json_schema", "name": "answer", "schema": schema}})
assert list(json.loads(made.output_text)) == ["city"], made

tool = {"type": "function", "name": "lookup", "description": "Look a city up", "parameters": schema, "strict": True}
called = client.responses.create(model=MODEL, input="Look Paris up.", temperature=0, max_output_tokens=80, tools=[tool],
                                 tool_choice="required")
call = next(i for i in called.output if i.type == "function_call")
assert call.name == "lookup" and list(json.loads(call.arguments)) == ["city"], call
answered = client.responses.create(model=MODEL, previous_response_id=called.id, temperature=0, max_output_tokens=24,
                                   input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
assert answered.output_text, answered

conversation = client.conversations.create(metadata={"topic": "x"},
                                           items=[{"type": "message", "role": "user", "content": "My name is Ann."}])
client.responses.create(model=MODEL, conversation=conversation.id, input="Hello", temperature=0, max_output_tokens=8)
listed = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
assert [i.role for i in listed] == ["user", "user", "assistant"], listed
one = client.conversations.items.retrieve(listed[0].id, conversation_id=conversation.id)
assert one.content[0].text == "My name is Ann.", one
client.conversations.items.create(conversation.id, items=[{"type": "message", "role": "user", "content": "Bye"}])
client.conversations.items.delete(listed[0].id, conversation_id=conversation.id)
assert len(list(client.conversations.items.list(conversation.id))) == 3
assert client.conversations.update(conversation.id, metadata={"topic": "y"}).metadata == {"topic": "y"}
assert client.conversations.delete(conversation.id).deleted
client.responses.delete(first.id)

# In the background: stored at once, read until it has ended.
later = client.responses.create(model=MODEL, input="What is the capital of France?", temperature=0, max_output_tokens=32,
                                background=True)
assert later.status == "queued" and later.background and later.output_text == "", later
while later.status in ("queued", "in_progress"):
    time.sleep(0.1)
    later = client.responses.retrieve(later.id)
assert later.output_text == first.output_text, later
long = client.responses.create(model=MODEL, input="Count to ten thousand.", max_output_tokens=4000, background=True)
assert client.responses.cancel(long.id).status == "cancelled"
assert client.responses.retrieve(long.id).status == "cancelled"

for kind, broken in [
    (openai.NotFoundError, lambda: client.responses.retrieve(first.id)),
    (openai.NotFoundError, lambda: client.conversations.retrieve(conversation.id)),
    (openai.NotFoundError, lambda: client.responses.create(model=MODEL, input="x", previous_response_id=first.id)),
    (openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="x", background=True, store=False)),
    (openai.BadRequestError, lambda: client.responses.cancel(answered.id)),
]:
    try:
        broken()
    except kind:
        pass
    else:
        raise AssertionError("accepted")

print("all checks passed")
