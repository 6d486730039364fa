"""`latentpack decode`: what was encoded comes back, and what is damaged is said."""

import numpy as np
import pytest
from PIL import Image

from latentpack.tests.command_line import fails, run

pytest_plugins = ["latentpack.tests.picture_double"]
pytestmark = pytest.mark.usefixtures("picture_codec")


@pytest.fixture
def packed(tmp_path):
    """photo.lpk, a lossless RGBA picture with a profile, beside photo.png."""
    samples = np.random.default_rng(1).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(samples).save(tmp_path / "photo.png", icc_profile=b"profile")
    assert run("encode", tmp_path / "photo.png", "-q", 100).exit_code == 0
    return tmp_path / "photo.lpk"


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_the_picture_comes_back(packed, suffix):
    out = packed.with_name(f"out.{suffix}")
    result = run("decode", packed, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{packed} -> {out}: 30x20 RGB + alpha\n"
    with Image.open(packed.with_name("photo.png")) as x, Image.open(out) as x_hat:
        assert np.array_equal(np.asarray(x), np.asarray(x_hat))
        assert x_hat.info["icc_profile"] == b"profile"


def test_what_a_format_can_not_hold_is_said(packed):
    result = run("decode", packed, "-o", packed.with_name("out.jpg"))
    assert result.exit_code == 0 and "JPEG has no alpha channel" in result.stderr


def test_the_default_name_is_png_and_is_not_overwritten(packed):
    assert "photo.png: exists already; --force" in fails("decode", packed)
    packed.with_name("photo.png").unlink()
    assert run("decode", packed).exit_code == 0
    assert packed.with_name("photo.png").exists()


def test_folders(packed, tmp_path):
    result = run("decode", tmp_path, "-o", tmp_path / "out", "--format", "webp")
    assert result.exit_code == 0 and (tmp_path / "out" / "photo.webp").exists()


def test_pipes(packed):
    result = run("decode", "-", "-o", "-", "--format", "png", input=packed.read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"\x89PNG")
    assert "give --format" in fails("decode", "-", "-o", "-", input=b"")


def test_damaged_and_foreign_files(packed, tmp_path):
    whole = packed.read_bytes()
    out = tmp_path / "out.png"
    for size in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        packed.write_bytes(whole[:size])
        assert f"{packed}: " in fails("decode", packed, "-o", out)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    packed.write_bytes(flipped)
    assert "checksum" in fails("decode", packed, "-o", out)
    packed.write_text("text")
    assert "not a .lpk file" in fails("decode", packed, "-o", out)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_unknown_codec_and_wrong_weights(packed, tmp_path):
    from latentpack.codecs.container import Writer

    out = tmp_path / "out.png"
    with packed.open("wb") as file, Writer(file, 77, {}) as writer:
        writer.close()
    assert "codec id 77 is unknown" in fails("decode", packed, "-o", out)
    assert run("encode", tmp_path / "photo.png", "-f").exit_code == 0
    line = fails("decode", packed, "-o", out, "--weights", "other.safetensors")
    assert "made with weights" in line and not out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.lpk"], "none.lpk: no such file"),
        (["photo.lpk", "-o", "a.xyz"], "no picture format '.xyz'; can be written: AVIF"),
        (["photo.lpk", "--format", "xyz"], "no picture format 'xyz'"),
        (["photo.lpk", "-o", "no/where.png"], "no: "),
    ],
)
def test_wrong_input_is_one_line(packed, monkeypatch, args, message):
    monkeypatch.chdir(packed.parent)
    assert message in fails("decode", *args)
