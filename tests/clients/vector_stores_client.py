"""The official OpenAI client against a Stockade host: files, vector stores, search; a document in, an answer out."""
import io
import json
import urllib.parse
import urllib.request
import zipfile

import openai

client = openai.OpenAI(max_retries=0, timeout=120)

PLANTS = """# Plants of the office

The fern in the hall is called Gwendolyn. It is watered on Tuesdays with 300 millilitres of rain water.

# Machines

The coffee machine is a Rancilio. Its boiler is descaled every six weeks by the facilities team.
"""
RULES = "Visitors sign in at the front desk. The code of the side door is changed every month by the security team."

HTML = """<!doctype html><html><head><title>Kitchen</title><script>var spell = "abracadabra";</script></head>
<body><h1>Kitchen</h1><p>The <b>dishwasher</b> is emptied by the last person to leave &ndash; caf&eacute; cups first.</p></body></html>"""


def docx(*paragraphs):
    """The parts that a word processor insists on, and no others."""
    types = "application/vnd.openxmlformats"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
        f'Extension="rels" ContentType="{types}-package.relationships+xml"/><Override PartName="/word/document.xml" '
        f'ContentType="{types}-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
        'Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
        + "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
        + "</w:body></w:document>",
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + part)
    return whole.getvalue()


def pdf(*lines):
    """One page in Helvetica, with its table of objects."""
    text = "BT /F1 12 Tf 14 TL 40 700 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    whole, at = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        at.append(len(whole))
        whole += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in at)
    size = len(objects) + 1
    return (
        f"{whole}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(whole)}\n%%EOF\n"
    ).encode("latin-1")


def read(path):
    """What the client library has no words for."""
    request = urllib.request.Request(f"{str(client.base_url).rstrip('/')}{path}")
    request.add_header("authorization", f"Bearer {client.api_key}")
    return json.load(urllib.request.urlopen(request, timeout=120))


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

# Every kind of document is taken apart by the component, within its limits.
for name, data, query, answer in [
    ("kitchen.html", HTML.encode(), "Who empties the dishwasher?", "emptied by the last person to leave \u2013 caf\u00e9 cups first."),
    ("lift.docx", docx("Building", "The lift is inspected every March by Mrs. Ahlgren."), "Who inspects the lift?", "every March by Mrs. Ahlgren."),
    ("heating.pdf", pdf("Boiler room", "The heating is bled by the caretaker in October."), "When is the heating bled?", "by the caretaker in October."),
]:
    kept = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=(name, data), poll_interval_ms=200)
    assert kept.status == "completed" and kept.usage_bytes > 40, kept
    best = client.vector_stores.search(store.id, query=query, max_num_results=1).data[0]
    assert best.file_id == kept.id and best.filename == name and answer in best.content[0].text, best
    whole = " ".join(part.text for part in client.vector_stores.files.content(kept.id, vector_store_id=store.id))
    assert answer in whole and "abracadabra" not in whole and "<" not in whole, whole

texts = list(client.vector_stores.files.content(file.id, vector_store_id=store.id))
assert any("Gwendolyn" in part.text for part in texts), texts
changed = client.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"kind": "handbook"})
assert changed.attributes == {"kind": "handbook"}, changed
client.vector_stores.files.poll(file.id, vector_store_id=store.id, poll_interval_ms=200)
again = client.vector_stores.search(store.id, query="fern", filters={"type": "eq", "key": "kind", "value": "handbook"}).data
assert again and again[0].file_id == file.id, again

# A file of more chunks than the memory tells at once is told whole, or in pages that say so.
lines = [f"Locker number {n} is assigned to the person with badge {n * 7919 % 10007}.\n" for n in range(1050)]
sentences = {"strategy": "sentences", "max_chunk_size_tokens": 20, "chunk_overlap_tokens": 0}
lockers = client.files.create(file=("lockers.txt", "".join(lines).encode()), purpose="assistants")
kept = client.vector_stores.files.create_and_poll(
    lockers.id, vector_store_id=store.id, chunking_strategy=sentences, poll_interval_ms=500)
assert kept.status == "completed", kept
parts = [part.text for part in client.vector_stores.files.content(lockers.id, vector_store_id=store.id)]
assert len(parts) > 1000 and "".join("".join(parts).split()) == "".join("".join(lines).split()), (len(parts), parts[-1])
path, told, page = f"/vector_stores/{store.id}/files/{lockers.id}/content", [], ""
while page is not None:
    answer = read(f"{path}?limit=700&page={urllib.parse.quote(page)}")
    told += [part["text"] for part in answer["data"]]
    assert answer["has_more"] == (answer["next_page"] is not None) == (len(answer["data"]) == 700), answer["next_page"]
    page = answer["next_page"]
assert told == parts, (len(told), len(parts))

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
