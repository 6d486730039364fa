"""The commands on files of image/tokens."""

import json

import pytest
import torch

from latentpack.codecs.image import tokens
from latentpack.datasets.images import read_image, write_image
from latentpack.tests.command_line import fails, run


@pytest.fixture
def photo(tmp_path, monkeypatch, write_tokens_weights):
    """photo.png and photo.lpk, with narrow weights in place of those that ship."""
    path = write_tokens_weights(tmp_path / "w.lpkw")
    monkeypatch.setattr(tokens, "SHIPPED", path)
    x = torch.arange(3 * 64 * 96).view(3, 64, 96) // 37 % 256
    with (tmp_path / "photo.png").open("wb") as file:
        write_image(file, x.to(torch.uint8), {}, "png")
    source, target = tmp_path / "photo.png", tmp_path / "photo.lpk"
    result = run("encode", source, "--codec", "image/tokens", "-o", target)
    assert result.exit_code == 0, result.output
    return target


def pixels(path):
    return read_image(path)[0]


def test_levels(photo, tmp_path):
    few = tmp_path / "few.lpk"
    encode = ("encode", photo.with_suffix(".png"), "--codec", "image/tokens")
    assert run(*encode, "--levels", 1, "-o", few).exit_code == 0
    assert few.stat().st_size < photo.stat().st_size
    assert run("decode", few, "-o", tmp_path / "a.png").exit_code == 0
    assert run("decode", photo, "--levels", 1, "-o", tmp_path / "b.png").exit_code == 0
    assert torch.equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    assert "has no option 'levels'" in fails(*encode[:2], "--levels", 1, "-o", tmp_path / "c.lpk")


def test_keep_going(photo, tmp_path):
    cut = tmp_path / "cut.lpk"
    cut.write_bytes(photo.read_bytes()[:-40])
    out = tmp_path / "cut.png"
    fails("decode", cut, "-o", out)
    assert not out.exists()
    result = run("decode", cut, "--keep-going", "-o", out)
    assert result.exit_code == 0 and "levels are whole" in result.stderr
    assert pixels(out).shape == (3, 64, 96)


def test_info_shows_levels(photo):
    shown = run("info", photo).stdout
    assert "level 0" in shown and "of 32 used, perplexity" in shown
    report = json.loads(run("info", photo, "--json").stdout)
    assert [level["codes"] for level in report["levels"]] == [[2, 3], [4, 6], [4, 6]]
    assert sum(level["bytes"] for level in report["levels"]) < report["bytes"]


def test_info_without_the_weights(photo, tmp_path, monkeypatch, write_tokens_weights):
    other = write_tokens_weights(tmp_path / "other.lpkw", seed=5)
    monkeypatch.setattr(tokens, "SHIPPED", other)
    result = run("info", photo)
    assert result.exit_code == 0 and "level 0" not in result.stdout
