"""Writes what `src/heads.rs` reads: `STKHEAD1`, the length of a JSON header (u32), the header, then for each head its
weights of the embedding (f32) and of the grams (i8, to be multiplied by `gram_scale`). All little-endian."""

import json
import struct

import numpy as np

from features import BUCKETS
from logistic import EMBEDDING_SCALE, GRAM_SCALE


def write(path, model, heads):
    """`heads`: label to theta. Returns the thetas as a reader of the file has them."""
    header, body, stored = [], b"", {}
    for label, theta in heads.items():
        embedding = (theta[: -BUCKETS - 1] * EMBEDDING_SCALE).astype("<f4")
        grams = theta[-BUCKETS - 1 : -1] * GRAM_SCALE
        scale = float(np.float32(max(np.abs(grams).max(), 1e-9) / 127))
        quantised = np.round(grams / scale).astype(np.int8)
        header.append({"label": label, "bias": float(np.float32(theta[-1])), "gram_scale": scale})
        body += embedding.tobytes() + quantised.tobytes()
        kept = np.concatenate([embedding / EMBEDDING_SCALE, quantised * scale / GRAM_SCALE, theta[-1:]])
        stored[label] = kept.astype(np.float32)
    described = json.dumps({"model": model, "dimensions": len(embedding), "buckets": BUCKETS, "heads": header}).encode()
    path.write_bytes(b"STKHEAD1" + struct.pack("<I", len(described)) + described + body)
    return stored
