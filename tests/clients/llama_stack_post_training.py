"""The last llama-stack-client whose post-training names its jobs: data set, supervised finetuning, status, artifacts, a
preference job on the result, cancel."""

import time

from llama_stack_client import LlamaStackClient

client = LlamaStackClient()

rows = [
    {"messages": [{"role": "user", "content": f"Number {i}?"}, {"role": "assistant", "content": "Yes."}]}
    for i in range(8)
]
client.datasets.register(
    dataset_id="yes", purpose="post-training/messages", source={"type": "rows", "rows": rows}, metadata={"licence": "CC0-1.0"}
)
assert client.datasets.retrieve("yes").identifier == "yes"
assert [d.identifier for d in client.datasets.list()] == ["yes"]
assert client.datasets.iterrows("yes", limit=3).data[0]["messages"][1]["content"] == "Yes."


def config(epochs):
    return {
        "n_epochs": epochs,
        "data_config": {"dataset_id": "yes", "batch_size": 4, "shuffle": True, "data_format": "dialog"},
        "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.0, "num_warmup_steps": 1},
        "gradient_accumulation_steps": 1,
    }


lora = {
    "type": "LoRA",
    "rank": 4,
    "alpha": 8,
    "lora_attn_modules": ["q_proj", "v_proj"],
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
}
common = {"hyperparam_search_config": {}, "logger_config": {}}
made = client.alpha.post_training.supervised_fine_tune(
    job_uuid="tuned", model="tiny", training_config=config(2), algorithm_config=lora, **common
)
assert made.job_uuid == "tuned"


def wait(uuid, statuses):
    for _ in range(600):
        status = client.alpha.post_training.job.status(job_uuid=uuid)
        if status.status in statuses:
            return status
        time.sleep(0.3)
    raise AssertionError(status)


done = wait("tuned", ["completed", "failed"])
assert done.status == "completed", done
assert done.scheduled_at <= done.started_at <= done.completed_at
artifacts = client.alpha.post_training.job.artifacts(job_uuid="tuned")
assert artifacts.checkpoints[-1].identifier == "tuned" and artifacts.checkpoints[-1].training_metrics.train_loss > 0
assert [j.job_uuid for j in client.alpha.post_training.job.list()] == ["tuned"]
assert "tuned" in [getattr(m, "id", None) for m in client.models.list()]

# The finetuned model, an adapter, is what a preference job goes on from; no epoch has the most steps that are asked for.
says = lambda role, text: [{"role": role, "content": text}]
pairs = [
    {"prompt": says("user", f"Number {i}?"), "chosen": says("assistant", "No."), "rejected": says("assistant", "Yes.")}
    for i in range(8)
]
client.datasets.register(dataset_id="pairs", purpose="post-training/messages", source={"type": "rows", "rows": pairs})
preferring = config(2)
preferring["data_config"]["dataset_id"] = "pairs"
client.alpha.post_training.preference_optimize(
    job_uuid="preferred",
    finetuned_model="tuned",
    training_config={**preferring, "max_steps_per_epoch": 100},
    algorithm_config={"beta": 0.1, "loss_type": "sigmoid"},
    **common,
)
assert wait("preferred", ["completed", "failed"]).status == "completed"
last = client.alpha.post_training.job.artifacts(job_uuid="preferred").checkpoints[-1]
assert (last.identifier, last.epoch) == ("preferred", 2), last
assert "preferred" in [getattr(m, "id", None) for m in client.models.list()]
client.datasets.unregister("pairs")

client.alpha.post_training.supervised_fine_tune(
    job_uuid="long", model="tiny", training_config=config(1000), algorithm_config=lora, **common
)
client.alpha.post_training.job.cancel(job_uuid="long")
assert wait("long", ["cancelled"]).completed_at is not None
client.datasets.unregister("yes")
print("all checks passed")
