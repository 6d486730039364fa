"""`latentpack demo`, with small tensors and a picture codec without networks."""

import torch
from click.testing import CliRunner
from PIL import Image

import latentpack
from latentpack.datasets.images import read_image
from latentpack.scripts import main, showcase

pytest_plugins = ["latentpack.tests.picture_double"]


def test_the_sample_is_there():
    x, metadata = read_image(showcase.SAMPLE)
    assert x.shape == (3, 312, 468) and "notes" not in metadata
    assert showcase.SAMPLE.stat().st_size < 400_000
    assert "CC0" in showcase.SAMPLE.with_name("README.md").read_text()


def test_demo(tmp_path, monkeypatch, picture_codec):
    with Image.open(showcase.SAMPLE) as sample:
        sample.crop((180, 60, 300, 160)).save(tmp_path / "small.png")
    monkeypatch.setattr(showcase, "SAMPLE", tmp_path / "small.png")
    tensors = {name: x[:5000] for name, x in showcase.sample_tensors(5000).items()}
    monkeypatch.setattr(showcase, "sample_tensors", lambda: tensors)
    monkeypatch.setattr(showcase, "_REPEATS", 1)
    for _ in range(2):  # the second run replaces the files of the first
        result = CliRunner().invoke(main.cli, ["demo", "-o", str(tmp_path), "--bpp", "3"])
        assert result.exit_code == 0, result.output
    for word in ("latentpack", "jpeg", "webp", "dB", "the same", "memcpy", "model file"):
        assert word in result.stdout
    assert "DIFFERENT" not in result.stdout
    with Image.open(tmp_path / "side_by_side.png") as sheet:
        assert sheet.width == 4 * 120 + 3 * 6
    ours, jpeg = (tmp_path / name for name in ("photo.lpk", "photo.jpg"))
    assert abs(jpeg.stat().st_size / ours.stat().st_size - 1) < 0.1
    restored = latentpack.decode((tmp_path / "tensor.lpk").read_bytes())
    assert torch.equal(restored, tensors["bfloat16"])
