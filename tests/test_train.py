"""The command `latentpack train`, with a codec of narrow networks."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.codecs import weight_files
from latentpack.codecs.image import light_training
from latentpack.codecs.image.light_model import Size
from latentpack.codecs.training_run import TrainingState
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import psnr_db
from latentpack.scripts import training_setup
from latentpack.tests.command_line import fails, run

SMALL = ("--batch", 2, "--crop", 32, "--validation", 0.25)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setitem(light_training.SIZES, "s", Size(16, 24, 1))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 80)).save(folder / f"{i}.png")
    return folder


def train(*arguments):
    result = run("train", "image/light", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def test_trained_weights_code_a_picture(photos, tmp_path):
    out, mine = tmp_path / "run", tmp_path / "my.lpkw"
    result = train("--data", photos, "--out", out, "--steps", 8, *SMALL, "--export", mine)
    assert "pictures: 3, held out: 1" in result.stdout and f"wrote {mine}" in result.stdout
    assert json.JSONDecoder().raw_decode(result.stdout)[0] == settings(out)
    assert {"size": "s", "balance": 0.4}.items() <= settings(out)["options"].items()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "bpp_est", "psnr_db"} <= set(log[0])
    assert {"validation/loss", "validation/bpp_est/1", "validation/psnr_db/6"} <= set(log[1])
    training = weight_files.read(mine, "image/light").training
    assert training["steps"] == 8 and training["data"] == ["photos"] and training["pictures"] == 3

    packed, again = tmp_path / "0.lpk", tmp_path / "again.png"
    source = photos / "0.png"
    assert run("encode", source, "-o", packed, "--weights", mine, "-q", 90).exit_code == 0
    assert run("decode", packed, "-o", again, "--weights", mine).exit_code == 0
    assert psnr_db(read_image(source)[0], read_image(again)[0]) > 25
    assert "made with weights" in fails("decode", packed, "-o", tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_going_on_and_what_may_change(photos, tmp_path):
    out = tmp_path / "run"
    train("--data", photos, "--out", out, "--steps", 2, *SMALL)
    first = weight_files.read(out / "weights.lpkw", "image/light").digest
    train("--out", out)
    assert weight_files.read(out / "weights.lpkw", "image/light").digest == first
    train("--out", out, "--steps", 4)
    assert weight_files.read(out / "weights.lpkw", "image/light").digest != first
    assert settings(out)["steps"] == 4
    line = fails("train", "image/light", "--out", out, "--batch", 4)
    assert "was begun with batch 2, not 4" in line and "--out" in line
    assert settings(out)["batch"] == 2


def test_a_stopped_run_goes_on_bit_for_bit(photos, tmp_path, monkeypatch):
    options = ("--data", photos, "--steps", 4, *SMALL)
    train("--out", tmp_path / "whole", *options)
    update = TrainingState.update

    def interrupted(state):
        update(state)
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "update", interrupted)
        result = run("train", "image/light", "--out", tmp_path / "cut", *options)
    assert result.exit_code == 130 and "goes on" in result.stderr
    assert not (tmp_path / "cut" / "weights.lpkw").exists()
    train("--out", tmp_path / "cut")
    whole, cut = (
        weight_files.read(tmp_path / name / "weights.lpkw", "image/light")
        for name in ("whole", "cut")
    )
    assert whole.digest == cut.digest


def test_a_configuration_is_taken_and_flags_override_it(photos, tmp_path):
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"data": [str(photos)], "steps": 5, "batch": 2, "crop": 32}))
    train("--config", given, "--out", tmp_path / "run", "--steps", 1, "--set", "balance=0.5")
    found = settings(tmp_path / "run")
    assert (found["steps"], found["batch"], found["options"]["balance"]) == (1, 2, 0.5)
    train("--config", tmp_path / "run" / "config.json", "--out", tmp_path / "again", "--seed", 2)
    assert settings(tmp_path / "again") == found | {"seed": 2}


def test_fine_tuning(photos, tmp_path):
    train("--data", photos, "--out", tmp_path / "a", "--steps", 2, *SMALL)
    weights = tmp_path / "a" / "weights.lpkw"
    train(
        *("--data", photos, "--out", tmp_path / "b", "--steps", 1, *SMALL),
        *("--init", weights, "--lr", 1e-9),
    )
    before = weight_files.read(weights, "image/light").tensors
    after = weight_files.read(tmp_path / "b" / "weights.lpkw", "image/light").tensors
    for name in ("g_s.linear", "g_a.head.bias", "log_gain"):
        torch.testing.assert_close(before[name], after[name], rtol=1e-4, atol=1e-6)
    cut = tmp_path / "cut.lpkw"
    cut.write_bytes(weights.read_bytes()[:-100])
    line = fails(
        *("train", "image/light", "--data", photos, "--out", tmp_path / "c", "--init", cut, *SMALL)
    )
    assert "cut.lpkw is not a weights file, or a damaged one" in line
    assert not (tmp_path / "c").exists()


def test_pictures_that_cant_be_used_are_named(photos, tmp_path):
    (photos / "torn.png").write_bytes((photos / "0.png").read_bytes()[:20])
    Image.new("L", (20, 90)).save(photos / "narrow.png")
    result = train("--data", photos, "--out", tmp_path / "run", "--steps", 1, *SMALL)
    assert "torn.png is left out" in result.stderr
    assert "narrow.png: left out, smaller than a crop of 32" in result.stderr


def test_held_out_pictures_of_a_folder_are_not_trained_on(photos, tmp_path):
    apart = photos / "apart"
    apart.mkdir()
    (photos / "3.png").rename(apart / "3.png")
    options = ("--data", photos, "--out", tmp_path / "run", "--steps", 1, *SMALL[:4])
    assert "pictures: 3, held out: 1" in train(*options, "--validation", apart).stdout
    result = train(*options[:2], "--out", tmp_path / "none", *options[4:], "--validation", 0)
    assert "nothing is held out" in result.stderr


def test_what_is_refused(photos, tmp_path):
    out = tmp_path / "run"

    def refused(*arguments, codec="image/light"):
        line = fails("train", codec, "--out", out, *arguments)
        assert not out.exists()
        return line

    assert "name a folder with --data" in refused()
    assert "no such folder" in refused("--data", tmp_path / "nowhere").lower()
    (tmp_path / "empty").mkdir()
    assert "no picture that can be read below" in refused("--data", tmp_path / "empty")
    assert "crop is 40, expected a multiple of 32" in refused("--data", photos, "--crop", 40)
    assert "the largest crop that fits is 80" in refused("--data", photos, "--crop", 96)
    assert "steps is 0" in refused("--data", photos, "--steps", 0)
    assert "size is 'xl', expected one of s, m" in refused("--data", photos, "--size", "xl")
    assert "no training option 'sise'" in refused("--data", photos, "--set", "sise=s")
    assert "balance is 'low', expected float" in refused("--data", photos, "--set", "balance=low")
    assert "level is '3', expected float | None" in refused("--data", photos, "--set", 'level="3"')
    assert "is not NAME=VALUE" in refused("--data", photos, "--set", "sise")
    assert "not trained; these are" in refused("--data", photos, codec="image/none")
    assert "expected a folder or a share" in refused("--data", photos, "--validation", 1.5)
    assert "no folder nowhere" in refused("--data", photos, "--validation", "nowhere")
    assert "not divisible by 3" in refused("--data", photos, "--accumulate", 3, *SMALL)
    assert "no.lpkw: no such file" in refused(
        "--data", photos, "--init", tmp_path / "no.lpkw", *SMALL
    )
    (tmp_path / "bad.json").write_text("{")
    assert "bad.json is no JSON" in refused("--config", tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"stepz": 1}')
    assert "'stepz' is unknown" in refused("--config", tmp_path / "bad.json")
    (tmp_path / "my.lpkw").write_bytes(b"precious")
    line = refused("--data", photos, "--export", tmp_path / "my.lpkw")
    assert "exists" in line and (tmp_path / "my.lpkw").read_bytes() == b"precious"


def test_default_precision_of_a_cpu(monkeypatch):
    for flag, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flag=flag: {"avx512_bf16": flag})
        assert training_setup.default_precision("cpu") == precision
