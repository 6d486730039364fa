"""Learning of image/fit's prior: a file that the codec takes, the same again, and going on."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from latentpack.codecs.image import fit_encoder, fit_networks, fit_prior
from latentpack.scripts import learn_fit_prior

SETTINGS = [
    "lmbdas=[0.002, 0.02]", "first=1", "crop=24", "photographs=[2, 2]", "steps=[8, 8]",
    "context_steps=[6, 4]",
]  # fmt: skip


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        rows = rng.integers(0, 255, (30, 1, 3)) + np.zeros((30, 20 + 10 * i, 3))
        Image.fromarray(rows.astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def learn(photographs, out):
    settings = [part for text in SETTINGS for part in ("--set", text)]
    result = CliRunner().invoke(
        learn_fit_prior.main, ["--data", str(photographs), "--out", str(out), *settings]
    )
    assert result.exit_code == 0, result.output
    return (out / "image-fit.lpkw").read_bytes()


def test_the_codec_takes_what_was_learned(photographs, tmp_path, monkeypatch):
    whole = learn(photographs, tmp_path / "a")
    file = fit_prior.PriorFile(tmp_path / "a" / "image-fit.lpkw")
    assert file.lmbdas == pytest.approx([0.002, 0.02])
    for preset, sizes in fit_networks.PRESETS.items():
        for colours in (1, 3):
            prior = file.nearest(preset, colours, 0.03)
            assert prior.rate == 1 and np.isfinite(prior.mean).all()
            assert len(prior.q) == len(fit_networks.layout(sizes, colours))
            assert prior.scale.min() > 0
            start = fit_encoder.start_of(sizes, colours, prior)
            plain = fit_encoder.start_of(sizes, colours)
            end = fit_networks.layout(sizes, colours)["context.b3"].stop
            assert torch.equal(start[:end], torch.from_numpy(prior.mean[:end]))
            assert torch.equal(start[end:], plain[end:])
    assert learn(photographs, tmp_path / "b") == whole
    (tmp_path / "a" / "1-0-1.pkl").unlink()
    fits = []
    real = fit_encoder.optimise
    monkeypatch.setattr(fit_encoder, "optimise", lambda *a, **k: fits.append(1) or real(*a, **k))
    assert learn(photographs, tmp_path / "a") == whole
    assert len(fits) == 1


def test_a_context_model_learns_the_latents_of_all():
    sizes = fit_networks.PRESETS["fast"]
    start = fit_encoder.start_of(sizes, 3).numpy()
    rng = np.random.default_rng(3)
    count = sum(r * c for r, c in fit_networks.grid_shapes(32, 32))
    x = torch.zeros(3, 32, 32, dtype=torch.uint8)
    fits = [learn_fit_prior.Fit(x, rng.integers(-1, 2, count).astype(np.float32), start)] * 2
    engine = fit_encoder.engine_for(sizes, x.float(), 1)
    objective = fit_encoder.objective_for(0.0)
    learned = learn_fit_prior.train_context("fast", fits, start, 60, 0.03)
    before, after = (engine.step(fits[0].latents, p, objective).bits for p in (start, learned))
    assert after < 0.8 * before
    end = fit_networks.layout(sizes, 3)["context.b3"].stop
    assert (learned[end:] == start[end:]).all()


def test_scales_follow_what_was_found():
    slices = {"context.w1": fit_networks.Slice(0, (2, 2)), "up": fit_networks.Slice(4, (2, 2))}
    away = np.array([0.5] * 4 + [0.03125] * 4, np.float32) * np.array([[1], [-1]], np.float32)
    stored = learn_fit_prior.scales(away, slices)
    assert stored.tolist() == [57] * 4 + [45] * 4  # 2**-1 and 2**-5, in thirds of octaves from 60


def test_no_pictures_is_said(tmp_path):
    result = CliRunner().invoke(
        learn_fit_prior.main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "no pictures" in result.output
