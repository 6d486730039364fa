"""`latentpack demo`, with small tensors and a picture codec without networks."""

import torch
from click.testing import CliRunner
from PIL import Image

import latentpack
from latentpack.datasets.audio import read_audio
from latentpack.datasets.audio_writer import AudioWriter
from latentpack.datasets.images import read_image
from latentpack.scripts import main, showcase
from latentpack.tests.pages import read_page
from latentpack.tests.sound_double import Double, doubles

pytest_plugins = ["latentpack.tests.picture_double"]


def test_the_samples_are_there():
    x, metadata = read_image(showcase.SAMPLE)
    assert x.shape == (3, 312, 468) and "notes" not in metadata
    assert showcase.SAMPLE.stat().st_size < 400_000
    voice, rate = read_audio(showcase.VOICE)
    assert rate == 24000 and voice.shape == (1, 120_336)
    assert showcase.VOICE.stat().st_size < 150_000
    text = showcase.SAMPLE.with_name("README.md").read_text()
    assert text.count("CC0") >= 2 and showcase.SAMPLE.name in text and showcase.VOICE.name in text


def test_demo(tmp_path, monkeypatch, picture_codec):
    with Image.open(showcase.SAMPLE) as sample:
        sample.crop((180, 60, 300, 160)).save(tmp_path / "small.png")
    monkeypatch.setattr(showcase, "SAMPLE", tmp_path / "small.png")
    tensors = {name: x[:5000] for name, x in showcase.sample_tensors(5000).items()}
    monkeypatch.setattr(showcase, "sample_tensors", lambda: tensors)
    monkeypatch.setattr(showcase, "_REPEATS", 1)
    x, rate = read_audio(showcase.VOICE)
    with AudioWriter(tmp_path / "short.wav", rate, 1) as writer:
        writer.write(x[:, 24000:48000])
    monkeypatch.setattr(showcase, "VOICE", tmp_path / "short.wav")
    codecs = {"audio/rvq@kbps=6": Double(6), "opus@6": Double(8), "audio/lossless": Double(16)}
    monkeypatch.setattr(showcase, "open_codecs", lambda text: doubles(codecs))
    for _ in range(2):  # the second run replaces the files of the first
        result = CliRunner().invoke(main.cli, ["demo", "-o", str(tmp_path), "--bpp", "3"])
        assert result.exit_code == 0, result.output
    for word in (
        "latentpack",
        "jpeg",
        "webp",
        "dB",
        "the same",
        "memcpy",
        "model file",
        "audio/rvq",
        "listen.html",
    ):
        assert word in result.stdout
    assert "DIFFERENT" not in result.stdout
    with Image.open(tmp_path / "side_by_side.png") as sheet:
        assert sheet.width == 4 * 120 + 3 * 6
    ours, jpeg = (tmp_path / name for name in ("photo.lpk", "photo.jpg"))
    assert abs(jpeg.stat().st_size / ours.stat().st_size - 1) < 0.1
    page = read_page(tmp_path / "listen.html")[0]
    assert [r["codec"] for r in page["sounds"][0]["results"]] == list(codecs)
    sizes = {r["codec"]: r["bytes"] for r in page["sounds"][0]["results"]}
    assert (tmp_path / "voice.lpk").stat().st_size == sizes["audio/rvq@kbps=6"]
    assert (tmp_path / "voice_lossless.lpk").stat().st_size == sizes["audio/lossless"]
    restored = latentpack.decode((tmp_path / "tensor.lpk").read_bytes())
    assert torch.equal(restored, tensors["bfloat16"])
