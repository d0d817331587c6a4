"""What a head sees of a text. The same as `src/window.rs` and `src/cues.rs`, byte for byte; vectors.json holds both to it."""

import re

import numpy as np

# Bytes, as in `src/window.rs`.
SEGMENT_MIN = 100
SEGMENT_MAX = 240


def boundary(data, at):
    """The character boundary at or before `at`."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def segment_end(data, start):
    """Where the segment that begins at `start` ends: after the first sentence of enough bytes, else at a blank."""
    rest = len(data) - start
    for end in range(start + SEGMENT_MIN, start + min(rest, SEGMENT_MAX) + 1):
        last = data[end - 1]
        if last == 0x0A or (last in b".!?" and end < len(data) and data[end] in b" \t\r\n"):
            return end
    if rest <= SEGMENT_MAX:
        return len(data)
    for end in range(start + SEGMENT_MAX, start + SEGMENT_MIN, -1):
        if data[end - 1] == 0x20:
            return end
    return boundary(data, start + SEGMENT_MAX)


def windows(text):
    """Ranges of bytes: each segment with the one before it."""
    data = text.encode()
    before, start, found = 0, 0, []
    while start < len(data):
        end = segment_end(data, start)
        if data[start:end].strip():
            found.append((before, end))
        before, start = start, end
    return found


def window_texts(text):
    data = text.encode()
    return [data[a:b].decode() for a, b in windows(text)]


BUCKETS = 4096


def fnv(data):
    hashed = 0x811C9DC5
    for byte in data:
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return hashed


WORD = re.compile(rb"[a-z0-9'\x80-\xff]+|[^\sa-z0-9'\x80-\xff]")


def grams(window):
    """Buckets of words, marks and pairs of them, ASCII letters lowered."""
    words = WORD.findall(window.encode().lower())
    found = set()
    for i, word in enumerate(words):
        found.add(fnv(word) % BUCKETS)
        if i:
            found.add(fnv(words[i - 1] + b" " + word) % BUCKETS)
    return found


def gram_rows(texts):
    """`[texts, BUCKETS]`, each row of length one."""
    table = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in enumerate(texts):
        for bucket in grams(text):
            table[row, bucket] = 1.0
    return table / np.maximum(np.sqrt(table.sum(1, keepdims=True)), 1.0)
