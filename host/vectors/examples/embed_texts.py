"""Writes embeddings of distinct sentences for bench_vectors: embed_texts.py URL KEY MODEL COUNT OUT FILE..

Sentences come from the strings of the JSON-lines and text FILEs, shuffled with a fixed seed.
"""
import json, random, re, struct, sys, urllib.request


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        yield from strings(list(value.values()))


def sentences(path):
    for line in open(path, encoding="utf-8", errors="ignore"):
        try:
            texts = strings(json.loads(line)) if path.endswith(".jsonl") else [line]
        except ValueError:
            continue
        for text in texts:
            yield from (s.strip() for s in re.split(r"(?<=[.!?])\s+|\n+", text) if 20 < len(s.strip()) < 200)


url, key, model, count, out, *files = sys.argv[1:]
texts = sorted({sentence for path in files for sentence in sentences(path)})
random.Random(1).shuffle(texts)
texts = texts[: int(count)]
with open(out, "wb") as rows:
    for i in range(0, len(texts), 128):
        body = json.dumps({"model": model, "input": texts[i : i + 128]}).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        answer = json.load(urllib.request.urlopen(urllib.request.Request(f"{url}/v1/embeddings", body, headers)))
        for item in answer["data"]:
            rows.write(struct.pack(f"<{len(item['embedding'])}f", *item["embedding"]))
print(len(texts), "sentences")
