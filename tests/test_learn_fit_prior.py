"""Learning of image/fit's prior: a file that the codec takes, the same again, and going on."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from latentpack.codecs.image import fit_encoder, fit_networks, fit_prior
from latentpack.scripts import learn_fit_prior

SETTINGS = [
    "lmbdas=[0.002, 0.02]", "crop=24", "photographs=2", "steps=8",
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


def learn(photographs, out, *keys):
    settings = [part for text in SETTINGS for part in ("--set", text)]
    result = CliRunner().invoke(
        learn_fit_prior.main, [*keys, "--data", str(photographs), "--out", str(out), *settings]
    )
    assert result.exit_code == 0, result.output
    return (out / "image-fit.lpkw").read_bytes()


def test_the_codec_takes_what_was_learned(photographs, tmp_path, monkeypatch):
    whole = learn(photographs, tmp_path / "a", "fast.3", "fast.1")
    file = fit_prior.PriorFile(tmp_path / "a" / "image-fit.lpkw")
    assert file.lmbdas == pytest.approx([0.002, 0.02])
    for preset, colours in (("fast", 1), ("fast", 3), ("max", 1)):
        prior = file.nearest(preset, colours, 0.03)
        assert prior.rate == 1 and np.isfinite(prior.mean).all()
        names = fit_networks.layout(fit_networks.PRESETS[preset], colours)
        assert len(prior.q) == len(names) and prior.scale.min() > 0
    assert learn(photographs, tmp_path / "b", "fast.3", "fast.1") == whole
    (tmp_path / "a" / "fast.3-0-1.npy").unlink()
    fits = []
    real = fit_encoder.optimise
    monkeypatch.setattr(fit_encoder, "optimise", lambda *a, **k: fits.append(1) or real(*a, **k))
    assert learn(photographs, tmp_path / "a", "fast.3", "fast.1") == whole
    assert len(fits) == 1


def test_scales_follow_what_was_found():
    slices = {"context.w1": fit_networks.Slice(0, (2, 2)), "up": fit_networks.Slice(4, (2, 2))}
    mean = np.zeros(8, np.float32)
    found = [np.array([0.5] * 4 + [0.03125] * 4, np.float32) * sign for sign in (1, -1)]
    stored = learn_fit_prior.scales(mean, found, slices)
    assert stored.tolist() == [57] * 4 + [45] * 4  # 2**-1 and 2**-5, in thirds of octaves from 60


def test_no_pictures_is_said(tmp_path):
    result = CliRunner().invoke(
        learn_fit_prior.main, ["fast.3", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "no pictures" in result.output
