"""The official Llama Stack client against a Stockade host: prompts with versions and a default."""
import llama_stack_client
from llama_stack_client import LlamaStackClient

client = LlamaStackClient(max_retries=0, timeout=120)
assert client.prompts.list() == [], client.prompts.list()

made = client.prompts.create(prompt="Greet {{ who }} in {{ lang }}.", variables=["who", "lang"])
assert made.prompt_id.startswith("pmpt_") and len(made.prompt_id) == 53, made
assert (made.version, made.is_default, made.variables) == (1, True, ["who", "lang"]), made

second = client.prompts.update(made.prompt_id, prompt="Hi {{ who }}", variables=["who"], version=1, set_as_default=False)
assert (second.version, second.is_default) == (2, False), second
assert client.prompts.retrieve(made.prompt_id) == made
assert client.prompts.retrieve(made.prompt_id, version=2) == second

third = client.prompts.update(made.prompt_id, prompt="Hello {{ who }}", variables=["who"], version=2)
assert (third.version, third.is_default) == (3, True), third
assert client.prompts.list() == [third]
chosen = client.prompts.set_default_version(made.prompt_id, version=2)
assert (chosen.version, chosen.is_default) == (2, True), chosen
versions = client.prompts.versions.list(made.prompt_id)
assert [(v.version, v.is_default) for v in versions] == [(1, False), (2, True), (3, False)], versions

for refused in [
    lambda: client.prompts.update(made.prompt_id, prompt="stale", variables=[], version=1),
    lambda: client.prompts.create(prompt="undeclared {{ who }}", variables=[]),
]:
    try:
        refused()
        raise SystemExit("not refused")
    except llama_stack_client.BadRequestError:
        pass

client.prompts.delete(made.prompt_id)
try:
    client.prompts.retrieve(made.prompt_id)
    raise SystemExit("still there")
except llama_stack_client.NotFoundError:
    pass
print("all checks passed")
