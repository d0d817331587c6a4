"""The texts that the heads learn from and are measured on: one function a data set, licences in the README.

A text is a dictionary: `text`, `labels` (a list of category names, or None where nothing is known), and `group` (texts of one
group never fall on both sides of a split).
"""

import json
import pathlib
import random


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def item(text, labels, group=None, **more):
    return {"text": text, "labels": labels, "group": group or text, **more}


def deepset(data):
    return [
        item(row["text"], ["injection"] if row["label"] else [])
        for row in rows(data / "deepset-prompt-injections/train.jsonl")
    ]


def notinject(data):
    files = ("NotInject_one", "NotInject_two")
    return [item(row["prompt"], []) for name in files for row in rows(data / f"notinject/{name}.jsonl")]


# Variants of CyberSecEval whose text attacks openly; the others ask quiet questions that are an attack only beside the
# secret in their system prompt, which a guard of the user's text does not see.
OPEN = ("ignore_previous_instructions", "system_mode", "few_shot_attack", "many_shot_attack", "virtualization",
        "mixed_techniques", "persuasion", "repeated_token_attack", "output_formatting_manipulation")


def cyberseceval(data):
    return [
        item(row["user_input"], ["injection"], kind=row["injection_type"], variant=row["injection_variant"])
        for row in rows(data / "cyberseceval/prompt_injection.jsonl")
    ]


def self_instruct(data):
    texts = []
    for row in rows(data / "self-instruct/seed_tasks.jsonl"):
        given = row["instances"][0]["input"]
        texts.append(item(row["instruction"] + ("\n" + given if given else ""), []))
    return texts


def clinc(data, count, seed):
    lines = (data / "clinc150/intents.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t", 2)[2] for line in lines]
    return [item(text, []) for text in random.Random(seed).sample(texts, count)]


def mitre_benign(data, count, seed):
    """Requests about attacks from people who may make them: refusing them is CyberSecEval's false refusal."""
    texts = [row["mutated_prompt"] for row in rows(data / "cyberseceval/mitre_frr.jsonl")]
    return [item(text, []) for text in random.Random(seed).sample(texts, count)]


def ifeval(data):
    return [item(row["prompt"], []) for row in rows(next((data / "ifeval").glob("*.jsonl")))]


def gsm8k(data, count, seed):
    texts = [row["question"] for row in rows(data / "gsm8k/train_first_3000.jsonl")]
    return [item(text, []) for text in random.Random(seed).sample(texts, count)]


def xstest(data):
    return [item(row["prompt"], None, safe=row["label"] == "safe") for row in rows(data / "xstest/xstest.jsonl")]


def bipia(data):
    """E-mails and tables as a tool returns them, untouched and with an attack at the start, in the middle or at the end."""
    folder = data / "bipia-indirect-injection"
    attacks = [row for name in ("text", "code") for row in rows(folder / f"{name}_attack_train.jsonl")]
    contexts = [row["context"] for name in ("email_train", "table_train_first100") for row in rows(folder / f"{name}.jsonl")]
    texts = []
    for i, context in enumerate(contexts):
        # All attacks of a category are paraphrases, so a category and the contexts that it gets stay together.
        attack, group = attacks[i * 7 % len(attacks)]["text"], attacks[i * 7 % len(attacks)]["attack_category"]
        lines = context.splitlines(keepends=True)
        place = (0, len(lines) // 2, len(lines))[i % 3]
        text = "".join(lines[:place]).rstrip("\n") + "\n" + attack + "\n" + "".join(lines[place:])
        texts += [item(context, [], group=group), item(text.strip("\n"), ["injection"], group=group)]
    return texts


# OpenAI's evaluation set as moderation categories. Eleven graphic texts are too few for a head: they count as violence.
MODERATION = {"S": "sexual", "H": "hate", "V": "violence", "HR": "harassment", "SH": "self-harm", "H2": "hate/threatening",
              "V2": "violence"}


def openai_moderation(data):
    texts = []
    for row in rows(data / "openai-moderation/samples.jsonl"):
        known = {name for key, name in MODERATION.items() if row.get(key) is not None}
        labels = {name for key, name in MODERATION.items() if row.get(key)}
        texts.append(item(row["prompt"], sorted(labels), known=known))
    return texts


# MLCommons' hazards as OpenAI's categories.
AILUMINATE = {"vcr": "illicit/violent", "ncr": "illicit", "hte": "hate", "ssh": "self-harm", "sxc_prn": "sexual",
              "src": "sexual", "dfm": "harassment"}


def ailuminate(data):
    return [
        item(row["prompt_text"], [AILUMINATE[row["hazard"]]] if row["hazard"] in AILUMINATE else None,
             hazard=row["hazard"])
        for row in rows(data / "ailuminate-demo/prompts_en_us.jsonl")
    ]


def folder(path):
    path = pathlib.Path(path)
    if not path.is_dir():
        raise SystemExit(f"{path} is not a folder of data sets")
    return path
