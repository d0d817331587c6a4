"""The official OpenAI client finetunes: file, job, events, pause, resume, checkpoints, cancel, the model in use, and a
preference job on what the first one has made."""

import io
import json
import time

from openai import BadRequestError, ConflictError, NotFoundError, OpenAI

client = OpenAI()


def wait(job_id, statuses, seconds=240):
    end = time.time() + seconds
    while time.time() < end:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        time.sleep(0.3)
    events = client.fine_tuning.jobs.list_events(job_id, limit=10).data
    raise AssertionError(f"{job.status}: {[e.message for e in events]}")


def rows(n):
    for i in range(n):
        question = ["What colour is the sky?", "Say the word.", "What is it?", "Tell me."][i % 4]
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Zorbulon."}]}


def upload(name, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="fine-tune")


def served():
    return [m.id for m in client.models.list()]


def ask(model):
    reply = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say the word."}], max_tokens=4, temperature=0
    )
    assert reply.choices[0].finish_reason in ("stop", "length"), reply
    return reply.choices[0].message.content


file = upload("train.jsonl", rows(16))

job = client.fine_tuning.jobs.create(
    model="tiny",
    training_file=file.id,
    suffix="zorbulon",
    seed=7,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 20}}},
    metadata={"team": "tests"},
)
assert job.object == "fine_tuning.job" and job.status in ("queued", "running"), job
assert job.metadata == {"team": "tests"} and job.seed == 7 and job.training_file == file.id
done = wait(job.id, ["succeeded", "failed", "cancelled"])
assert done.status == "succeeded", done.error
assert done.fine_tuned_model.startswith("ft:tiny:zorbulon:") and done.trained_tokens > 0
assert done.finished_at >= done.created_at

events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
metrics = [e for e in events if e.type == "metrics"]
assert metrics and metrics[0].data["train_loss"] < metrics[-1].data["train_loss"], [m.data for m in metrics]
assert [e.created_at for e in events] == sorted((e.created_at for e in events), reverse=True)
checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
assert checkpoints and checkpoints[0].step_number == metrics[0].data["step"]

assert done.fine_tuned_model in served()
ask(done.fine_tuned_model)
# There is a checkpoint for each epoch; the name of one is a model's, which is served from its first use on.
assert [c.step_number for c in checkpoints] == [16, 12, 8], checkpoints
name = checkpoints[0].fine_tuned_model_checkpoint
assert name not in served()
assert ask(name) == ask(done.fine_tuned_model) and name in served()

# Left to the host, a run of so few examples sees each several times, and learns.
auto = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, seed=7)
auto = wait(auto.id, ["succeeded", "failed", "cancelled"])
assert auto.status == "succeeded", auto.error
hyper = auto.method.supervised.hyperparameters
assert (hyper.n_epochs, hyper.batch_size) == (6, 1), hyper
steps = [e.data for e in client.fine_tuning.jobs.list_events(auto.id, limit=100) if e.type == "metrics"]
losses = [step["train_loss"] for step in reversed(steps)]
first, last = sum(losses[:16]) / 16, sum(losses[-16:]) / 16
assert len(losses) == 96 and last < 0.9 * first, (first, last)
rates = [step["lr"] for step in reversed(steps)]
assert rates.index(max(rates)) <= 10, rates

# What was made is trained on: a pair of answers for each question.
pairs = [
    {
        "input": {"messages": row["messages"][:1]},
        "preferred_output": [{"role": "assistant", "content": "Yes, it is."}],
        "non_preferred_output": row["messages"][1:],
    }
    for row in rows(8)
]
preferred = client.fine_tuning.jobs.create(
    model=done.fine_tuned_model,
    training_file=upload("pairs.jsonl", pairs).id,
    method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 4, "batch_size": 2, "learning_rate_multiplier": 50}}},
)
preferred = wait(preferred.id, ["succeeded", "failed", "cancelled"])
assert preferred.status == "succeeded", preferred.error
steps = [e.data for e in client.fine_tuning.jobs.list_events(preferred.id, limit=100) if e.type == "metrics"]
assert steps[0]["train_loss"] < 0.9 * steps[-1]["train_loss"], steps
ask(preferred.fine_tuned_model)
checkpoint = client.fine_tuning.jobs.checkpoints.list(preferred.id).data[0].fine_tuned_model_checkpoint
assert ask(checkpoint) == ask(preferred.fine_tuned_model)

# A long job is paused, resumed and cancelled.
long = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, hyperparameters={"n_epochs": 1000, "batch_size": 1})
wait(long.id, ["running"])
client.fine_tuning.jobs.pause(long.id)
paused = wait(long.id, ["paused"])
client.fine_tuning.jobs.resume(long.id)
wait(long.id, ["running"])
client.fine_tuning.jobs.cancel(long.id)
wait(long.id, ["cancelled"])
listed = [j.id for j in client.fine_tuning.jobs.list(limit=1)]
assert listed[:2] == [long.id, preferred.id] and listed[-1] == job.id, listed

for refused, kind in [
    (lambda: client.fine_tuning.jobs.create(model="none", training_file=file.id), BadRequestError),
    (lambda: client.fine_tuning.jobs.create(model="tiny", training_file="file_none"), BadRequestError),
    (lambda: client.fine_tuning.jobs.retrieve("ftjob-none"), NotFoundError),
    (lambda: client.fine_tuning.jobs.resume(job.id), ConflictError),
]:
    try:
        refused()
    except kind as e:
        assert e.body["message"], e
    else:
        raise AssertionError(f"no {kind.__name__}")

assert client.models.delete(done.fine_tuned_model).deleted
assert done.fine_tuned_model not in served()
# The later one lies over nothing of it.
ask(preferred.fine_tuned_model)
print("all checks passed")
