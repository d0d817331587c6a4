"""The official OpenAI client against a Stockade host: files, vector stores, search; a document in, an answer out."""
import io

import openai

client = openai.OpenAI(max_retries=0, timeout=120)

PLANTS = """# Plants of the office

The fern in the hall is called Gwendolyn. It is watered on Tuesdays with 300 millilitres of rain water.

# Machines

The coffee machine is a Rancilio. Its boiler is descaled every six weeks by the facilities team.
"""
RULES = "Visitors sign in at the front desk. The code of the side door is changed every month by the security team."

file = client.files.create(file=("plants.md", PLANTS.encode()), purpose="assistants")
assert file.bytes == len(PLANTS.encode()) and file.filename == "plants.md", file
assert client.files.content(file.id).read() == PLANTS.encode()
assert client.files.retrieve(file.id).id == file.id and file.id in [f.id for f in client.files.list()]

store = client.vector_stores.create(name="office", metadata={"team": "facilities"})
done = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes={"kind": "guide"}, poll_interval_ms=200)
assert done.status == "completed" and done.usage_bytes > 100, done
rules = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("rules.txt", RULES.encode()), poll_interval_ms=200)
assert rules.status == "completed", rules
store = client.vector_stores.retrieve(store.id)
assert store.file_counts.completed == 2 and store.status == "completed" and store.usage_bytes > 200, store

found = client.vector_stores.search(store.id, query="When is Gwendolyn the fern watered?", max_num_results=2).data
assert found[0].file_id == file.id and "Tuesdays" in found[0].content[0].text, found
assert found[0].filename == "plants.md" and found[0].attributes == {"kind": "guide"}, found[0]
guides = client.vector_stores.search(store.id, query="side door code", filters={"type": "eq", "key": "kind", "value": "guide"}).data
assert guides and all(hit.file_id == file.id for hit in guides), guides
doors = client.vector_stores.search(store.id, query=["side door", "front desk"]).data
assert doors[0].file_id == rules.id, doors

texts = list(client.vector_stores.files.content(file.id, vector_store_id=store.id))
assert any("Gwendolyn" in part.text for part in texts), texts
changed = client.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"kind": "handbook"})
assert changed.attributes == {"kind": "handbook"}, changed
client.vector_stores.files.poll(file.id, vector_store_id=store.id, poll_interval_ms=200)
again = client.vector_stores.search(store.id, query="fern", filters={"type": "eq", "key": "kind", "value": "handbook"}).data
assert again and again[0].file_id == file.id, again

more = [client.files.create(file=io.BytesIO(f"Desk {i} belongs to team {i}.".encode()), purpose="assistants").id for i in range(3)]
batch = client.vector_stores.file_batches.create_and_poll(vector_store_id=store.id, file_ids=more, poll_interval_ms=200)
assert batch.status == "completed" and batch.file_counts.completed == 3, batch
assert len(list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id))) == 3

broken = client.files.create(file=("broken.pdf", b"%PDF-1.7 and then nothing"), purpose="assistants")
failed = client.vector_stores.files.create_and_poll(broken.id, vector_store_id=store.id, poll_interval_ms=200)
assert failed.status == "failed" and failed.last_error, failed

client.vector_stores.files.delete(file.id, vector_store_id=store.id)
assert all(hit.file_id != file.id for hit in client.vector_stores.search(store.id, query="Gwendolyn the fern").data)
client.files.delete(file.id)
for gone in (lambda: client.files.retrieve(file.id), lambda: client.files.content(file.id)):
    try:
        gone()
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("a deleted file is there")
client.vector_stores.delete(store.id)
try:
    client.vector_stores.retrieve(store.id)
except openai.NotFoundError:
    pass
else:
    raise AssertionError("a deleted store is there")

try:
    client.files.create(file=("x", b"x"), purpose="nonsense")
except openai.BadRequestError as e:
    assert "purpose" in str(e), e
else:
    raise AssertionError("a wrong purpose was accepted")

print("all checks passed")
