"""The training loop: what it promises about going on, processes, figures and files."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentpack.codecs import training
from latentpack.codecs.training import Parts, recipe, train
from latentpack.codecs.training_config import TrainingConfig
from latentpack.codecs.weight_files import Weights
from latentpack.tests.training_double import HELD_OUT, Doubling, Signals, config

ROOT = Path(__file__).parents[1]
DOUBLE = ROOT / "tests" / "training_double.py"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder, **changes):
    return train(Doubling(), config(**changes), Signals(), folder, validation=HELD_OUT)


def process(*command):
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".import"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True
    )


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def rows(folder, *forgotten):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", *forgotten)} for row in found]


def same(a, b):
    """Whether two checkpoints, or parts of them, are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    run(tmp_path / "whole")
    cut = process(DOUBLE, tmp_path / "cut", 6, "die-at", 5)
    assert cut.returncode == -9, cut.stderr
    # Killed before its fifth checkpoint; the log may be ahead of it, and half a line too long.
    assert checkpoint(tmp_path / "cut")["step"] == 4
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "loss": 1.0}\n{"step"')
    (tmp_path / "cut" / ".latentpack-1234.tmp").write_bytes(b"half a checkpoint")
    run(tmp_path / "cut")
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("*.tmp"))


def test_going_on_between_two_lines_of_the_log(tmp_path):
    run(tmp_path / "whole", log_every=4)
    asked = iter([False, False, True])
    train(Doubling(), config(log_every=4), Signals(), tmp_path / "cut", stop=lambda: next(asked))
    assert checkpoint(tmp_path / "cut")["step"] == 3
    assert [row["step"] for row in rows(tmp_path / "cut")] == [3]
    run(tmp_path / "cut", log_every=4)
    for part in ("model", "average", "optimizers"):
        whole, cut = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut")
        assert same(whole[part], cut[part])


def test_two_processes_do_what_one_does_in_two_parts(tmp_path):
    done = process(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2),
        *(DOUBLE, tmp_path / "two", 6),
    )
    assert done.returncode == 0, done.stderr
    run(tmp_path / "one", accumulate=2)
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    for name, value in one["model"].items():
        if not name.startswith("2."):  # what BatchNorm gathers: in turn, or side by side
            torch.testing.assert_close(two["model"][name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert a.keys() == b.keys()
        if "loss" in a:
            assert math.isclose(a["loss"], b["loss"], rel_tol=1e-4)
    assert len(list((tmp_path / "two").glob("log.jsonl"))) == 1


def test_parts_share_a_batch_out():
    parts = Parts(TrainingConfig(steps=2, batch=6, accumulate=3))
    assert list(parts._keys(1)) == [[(1, 0), (1, 1)], [(1, 2), (1, 3)], [(1, 4), (1, 5)]]
    with pytest.raises(ValueError, match="batch 7 is not divisible by 2"):
        Parts(TrainingConfig(batch=7, accumulate=2))


def test_workers_change_nothing(tmp_path):
    run(tmp_path / "none")
    train(Doubling(), config(), Signals(), tmp_path / "some", validation=HELD_OUT, workers=1)
    assert same(checkpoint(tmp_path / "none"), checkpoint(tmp_path / "some"))


def test_it_learns_and_says_so(tmp_path):
    seen = []
    model = train(
        Doubling(),
        config(steps=300, log_every=100, validate_every=150, checkpoint_minutes=9.0),
        Signals(),
        tmp_path,
        validation=HELD_OUT,
        progress=lambda step, figures: seen.append((step, dict(figures))),
    )
    assert not model.training
    log = rows(tmp_path)
    assert [row["step"] for row in log] == [100, 150, 200, 300, 300]
    assert log[3]["loss"] < log[0]["loss"] / 2
    assert set(log[0]) == {"step", "loss", "psnr_db", "gradient"}
    assert log[4]["validation/loss"] < log[1]["validation/loss"]
    assert [step for step, _ in seen] == list(range(1, 301))
    assert seen[-1][1]["validation/loss"] == log[4]["validation/loss"]
    with torch.no_grad():
        found = Doubling().validate(model, HELD_OUT[0])["loss"]
    assert float(found) == log[4]["validation/loss"]


def test_the_average_of_a_short_run_forgets_its_start(tmp_path):
    run(tmp_path, steps=60, ema=0.9999)
    state = checkpoint(tmp_path)
    start = Doubling().model()
    last, average = state["model"]["0.weight"], state["average"]["module.0.weight"]
    assert (last - average).norm() < 0.3 * (last - start.state_dict()["0.weight"]).norm()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision(tmp_path, precision):
    run(tmp_path, steps=100, precision=precision, checkpoint_minutes=9.0)
    log = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert log[-1] < log[0] / 2
    assert (checkpoint(tmp_path)["scaler"] != {}) == (precision == "fp16")


def test_a_run_that_blows_up_is_stopped_and_not_saved(tmp_path):
    class Broken(Signals):
        def __getitem__(self, key):
            return super().__getitem__(key) * (math.nan if key[0] == 3 else 1)

    with pytest.raises(RuntimeError, match="at step 4; go on from the last checkpoint"):
        train(Doubling(), config(), Broken(), tmp_path)
    assert checkpoint(tmp_path)["step"] == 3


def test_a_checkpoint_of_something_else(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged or of another model"):
        run(tmp_path)
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="of another model"):
        run(tmp_path)


def test_fine_tuning_starts_from_the_weights(tmp_path):
    first = run(tmp_path / "first")
    tensors, _ = Doubling().freeze(first)
    weights = Weights("test/doubling", tensors, {}, {}, b"")
    tuned = train(Doubling(), config(steps=1, lr=0.0), Signals(), tmp_path / "tuned", init=weights)
    for name, value in first.named_parameters():
        assert torch.equal(dict(tuned.named_parameters())[name], value)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra `train`")
def test_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"training/loss", "training/psnr_db", "validation/loss"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("training/loss")] == [2, 4, 6]


def test_learning_rate():
    c = TrainingConfig(steps=100, warmup=0.1, decay=0.5)
    assert [c.rate_factor(step) for step in (0, 4, 9, 50, 75, 99)] == [0.1, 0.5, 1, 1, 0.5, 0.02]
    assert TrainingConfig(steps=1).rate_factor(0) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0, expected 1 or more"),
        ({"batch": 2.5}, "batch is 2.5, expected int"),
        ({"compile": 1}, "compile is 1, expected bool"),
        ({"steps": True}, "steps is True, expected int"),
        ({"lr": -1.0}, "lr is -1.0, expected 0 to 10"),
        ({"ema": math.nan}, "ema is nan"),
        ({"precision": "int8"}, "precision is 'int8', expected one of fp32, bf16, fp16"),
    ],
)
def test_configurations_that_are_none(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_every_recipe_is_of_a_codec_and_has_its_defaults():
    from latentpack.codecs.registry import CODECS

    for codec in training.RECIPES:
        made = recipe(codec)
        assert made.name == codec and codec in CODECS.values()
        assert TrainingConfig(**made.defaults).crop % made.multiple == 0
    with pytest.raises(ValueError, match="codec 'image/x' is not trained; these are: image/light"):
        recipe("image/x")
    with pytest.raises(ValueError, match="image/light has no training option 'sise'; it has"):
        recipe("image/light", {"sise": "s"})
