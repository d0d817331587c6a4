"""The official OpenAI client against a Stockade host: every route this host serves in that dialect."""
import json
import math

import openai

client = openai.OpenAI(max_retries=0, timeout=120)
MODEL = "smollm2"
ask = [{"role": "user", "content": "What is the capital of France?"}]

models = [m.id for m in client.models.list()]
assert models[0] == MODEL and "minilm" in models, models
assert client.models.retrieve(MODEL).object == "model"

chat = client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=32)
assert "Paris" in chat.choices[0].message.content, chat
assert chat.choices[0].finish_reason == "stop" and chat.usage.total_tokens > 10, chat

text, finish, usage = "", None, None
for chunk in client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=32, stream=True,
                                            stream_options={"include_usage": True}):
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
    usage = chunk.usage or usage
assert text == chat.choices[0].message.content, (text, chat)
assert finish == "stop" and usage.completion_tokens == chat.usage.completion_tokens, (finish, usage)

two = client.chat.completions.create(model=MODEL, messages=ask, n=2, seed=3, max_tokens=8, logprobs=True, top_logprobs=2)
assert len(two.choices) == 2 and len(two.choices[0].logprobs.content[0].top_logprobs) == 2, two
again = client.chat.completions.create(model=MODEL, messages=ask, n=2, seed=3, max_tokens=8)
assert [c.message.content for c in again.choices] == [c.message.content for c in two.choices], (again, two)

schema = {"type": "object", "additionalProperties": False, "required": ["city"],
          "properties": {"city": {"type": "string", "maxLength": 12}}}
made = client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=60,
    response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}})
assert list(json.loads(made.choices[0].message.content)) == ["city"], made

tool = {"type": "function", "function": {"name": "lookup", "description": "Look a city up", "parameters": schema}}
called = client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=80, tools=[tool],
                                        tool_choice="required")
call = called.choices[0].message.tool_calls[0]
assert called.choices[0].finish_reason in ("tool_calls", "stop") and call.function.name == "lookup", called
assert list(json.loads(call.function.arguments)) == ["city"], call

stopped = client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=32, stop=["Paris"])
assert "Paris" not in stopped.choices[0].message.content and stopped.choices[0].finish_reason == "stop", stopped

done = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=4, logprobs=1)
assert done.choices[0].text.strip() and len(done.choices[0].logprobs.tokens) == done.usage.completion_tokens, done

vectors = client.embeddings.create(model="minilm", input=["a cat", "a kitten", "a tax form"])
a, b, c = (v.embedding for v in vectors.data)
dot = lambda x, y: sum(p * q for p, q in zip(x, y))
assert len(a) == 384 and math.isclose(dot(a, a), 1, abs_tol=1e-3) and dot(a, b) > dot(a, c), (dot(a, b), dot(a, c))

judged = client.moderations.create(input=["I want to kill myself tonight.", "The weather is fine today."])
assert [r.flagged for r in judged.results] == [True, False], judged
sad, calm = judged.results
assert sad.categories.self_harm and sad.category_scores.self_harm > 0.5 > calm.category_scores.self_harm, judged
assert sad.category_applied_input_types.self_harm == ["text"] and not any(calm.categories.to_dict().values()), judged
omni = client.moderations.create(model="omni-moderation-latest",
                                 input=[{"type": "text", "text": "I want to kill myself tonight."}])
assert omni.results[0].category_scores == sad.category_scores and omni.id.startswith("modr"), omni
try:
    client.moderations.create(model="no-such-shield", input="x")
except openai.NotFoundError:
    pass
else:
    raise AssertionError("an unknown shield has judged")

for kind, broken in [
    (openai.NotFoundError, dict(model="nothing", messages=ask)),
    (openai.BadRequestError, dict(model=MODEL, messages=ask, temperature=9)),
    (openai.BadRequestError, dict(model=MODEL, messages=[])),
    (openai.BadRequestError, dict(model=MODEL, messages=[{"role": "user", "content": "x " * 60000}])),
]:
    try:
        client.chat.completions.create(**broken)
    except kind as e:
        assert e.body and e.body.get("message"), e.body
    else:
        raise AssertionError(f"{broken} was accepted")
try:
    openai.OpenAI(api_key="sk-wrong", max_retries=0).models.list()
except openai.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong key was accepted")

print("all checks passed")
