"""Loads what `host/train/examples/export_forms.rs` wrote with the programs that others use, and compares.

    cargo run --release -p stockade-train --example export_forms -- BASE OUT
    pip install torch transformers peft llama-cpp-python
    python tests/clients/exported_forms.py OUT [BASE]

The model must give the base's logits bit for bit, merged adapters those of peft, GGUF files the ids of the tokenizer and,
step by step, the model's greedy tokens wherever the best two logits lie further apart than the type's rounding.
"""

import sys
from pathlib import Path

import llama_cpp
import numpy as np
import peft
import torch
import transformers

TEXTS = ["Where is 1234 and the king's café?", " a  b\n\n\tc", "日本 \U0001f600"]
# The relative distance of the logits that each type may cause in a small model of random weights, the most sensitive
# there is; llama.cpp keeps keys and values in f16 besides.
TYPES = {"f32": 5e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 0.12, "q4_k_m": 0.8, "q4_0": 0.9}


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main():
    out = Path(sys.argv[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    model = load(out / "model")
    ids = tokenizer.encode(" ".join(TEXTS))[:64]
    want = logits(model, ids)
    if len(sys.argv) > 2:
        base = Path(sys.argv[2])
        assert np.array_equal(logits(load(base), ids), want), "the model is not its base"
        theirs = transformers.AutoTokenizer.from_pretrained(base)
        assert all(theirs.encode(text) == tokenizer.encode(text) for text in TEXTS), "the tokenizer is not the base's"
    chat = [{"role": "user", "content": "hi"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    print("transformers: model loads;", repr(rendered[-40:]))

    for name in ["lora", "dora"]:
        adapted = peft.PeftModel.from_pretrained(load(out / "model"), out / name)
        found = logits(load(out / f"{name}-merged"), ids)
        far, near = distance(found, want), distance(found, logits(adapted, ids))
        print(f"peft: {name} is {far:.2g} from the base, merged {near:.2g} from unmerged")
        assert near < 1e-5 and far > 0.01

    for name, tolerance in TYPES.items():
        llama = llama_cpp.Llama(str(out / f"{name}.gguf"), n_ctx=256, logits_all=True, verbose=False)
        for text in TEXTS:
            own = llama.tokenize(text.encode(), add_bos=False, special=False)
            assert own == tokenizer.encode(text, add_special_tokens=False), (name, text, own)
        llama.eval(ids)
        found = np.array(llama.scores[: len(ids)])
        relative = distance(found, want)
        margins = np.sort(want, axis=-1)
        clear = margins[:, -1] - margins[:, -2] > 2 * np.abs(found - want).max(axis=-1)
        same = found.argmax(-1)[clear] == want.argmax(-1)[clear]
        print(f"llama.cpp: {name} is {relative:.2g} off; {same.sum()} of {clear.sum()} clear tokens agree")
        assert relative < tolerance and same.all()
    print("all went well")


main()
