"""Writes weights.f32 and, encoded by ggml's reference encoders, TYPE.bin. Usage: make.py PATH_OF_LIBGGML_BASE_SO"""

import ctypes
import sys
from pathlib import Path

import numpy as np

TYPES = {"Q4_0": (2, 18, 32), "Q4_1": (3, 20, 32), "Q5_0": (6, 22, 32), "Q5_1": (7, 24, 32), "Q8_0": (8, 34, 32),
         "Q4_K": (12, 144, 256), "Q5_K": (13, 176, 256), "Q6_K": (14, 210, 256)}
here = Path(__file__).parent
rng = np.random.default_rng(7)
rows = [rng.normal(0, 0.02, 512), rng.standard_t(3, 512) * 0.02, rng.normal(0.01, 0.005, 512), rng.normal(0, 1, 512)]
rows[0][::97] *= 30
rows[2][:32] = 0
rows[3][256:] *= 1e-4
weights = np.stack(rows).astype(np.float32)
weights.tofile(here / "weights.f32")
ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
for name, (number, block_bytes, block) in TYPES.items():
    out = ctypes.create_string_buffer(weights.size // block * block_bytes)
    source = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    ggml.ggml_quantize_chunk(number, source, out, ctypes.c_int64(0), ctypes.c_int64(4), ctypes.c_int64(512), None)
    (here / f"{name}.bin").write_bytes(out.raw)
