"""Reads GGUF files with the format's own library and compares them with the safetensors folder they were made of.

    gguf_files.py FOLDER FILE.gguf...
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file

# Relative errors that a file's main type may cause in a matrix.
TOLERANCES = {"f32": 0, "f16": 3e-4, "bf16": 3e-3, "q8_0": 7e-3, "q4_k_m": 0.09, "q4_0": 0.1}
PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
ENDS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight"}


def name_of(name):
    if name in ENDS:
        return ENDS[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{kind}"


def in_order(values, heads):
    """Rows 2 i + h of each head back to h d/2 + i."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def main():
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    for path in map(Path, sys.argv[2:]):
        reader = GGUFReader(path)
        field = lambda key: reader.fields[key].contents()
        assert field("general.architecture") == "llama"
        assert field("llama.block_count") == config["num_hidden_layers"]
        assert field("llama.rope.freq_base") == config["rope_theta"]
        assert len(field("tokenizer.ggml.tokens")) == config["vocab_size"] == len(field("tokenizer.ggml.token_type"))
        seen = set()
        for tensor in reader.tensors:
            if tensor.name == "rope_freqs.weight":
                continue
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            want = weights[name_of(tensor.name)].astype(np.float32)
            for part, heads in [("attn_q.", "num_attention_heads"), ("attn_k.", "num_key_value_heads")]:
                if part in tensor.name:
                    values = in_order(values, config[heads])
            relative = np.linalg.norm(values - want) / np.linalg.norm(want)
            assert relative <= TOLERANCES[path.stem], (path.name, tensor.name, relative)
            seen.add(name_of(tensor.name))
        assert seen == set(weights), set(weights) ^ seen
        print(path.name, len(seen), "tensors")
    print("all went well")


main()
