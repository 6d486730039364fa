"""`latentpack info`: what is inside, what is damaged, how much is left."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Packet
from latentpack.codecs.container import Reader, Writer
from latentpack.kernels.errors import BitstreamError
from latentpack.tests.command_line import run

pytest_plugins = ["latentpack.tests.picture_double"]
pytestmark = pytest.mark.usefixtures("picture_codec")


class DoubleTensors(Codec):
    """Raw float32 vectors, their sum in the body."""

    name = "tensor/lossless"

    def header(self, signal):
        return {}

    def encode(self, signal, rate=None):
        for key, x in signal.items():
            raw = x.numpy().tobytes()
            yield Packet(key, (sum(raw) % 256).to_bytes(1, "little"), raw)

    def decode(self, header, packets):
        for packet in packets:
            if sum(packet.bulk) % 256 != packet.body[0]:
                raise BitstreamError("checksum of chunk 0 is wrong")

    def describe(self, header, packet):
        return {"dtype": torch.float32, "shape": (len(packet.bulk) // 4,)}


@pytest.fixture
def tensors(tmp_path, monkeypatch):
    """A file of three tensors of 10, 20 and 30 elements."""
    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda codec: DoubleTensors if codec == 1 else load(codec)
    )
    codec = DoubleTensors()
    with (tmp_path / "model.lpk").open("wb") as file, Writer(file, 1, {}) as writer:
        for packet in codec.encode({"a": torch.rand(10), "b": torch.rand(20), "c": torch.rand(30)}):
            writer.write(packet)
    return tmp_path / "model.lpk"


@pytest.fixture
def packed(tmp_path):
    samples = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(samples).save(tmp_path / "photo.png", icc_profile=b"profile", dpi=(300, 300))
    assert run("encode", tmp_path / "photo.png", "-q", 100).exit_code == 0
    return tmp_path / "photo.lpk"


def test_a_picture(packed):
    result = run("info", packed)
    assert result.exit_code == 0 and not result.stderr
    size = packed.stat().st_size
    for part in (
        f"{packed}: whole",
        "image/light",
        "30x20, RGB",
        f"{size:,} bytes, {size * 8 / 600:.3f} bpp",
        b"shipped!".hex(),
        "icc       7 bytes",
        "dpi       ",
        "1, every checksum is right",
    ):
        assert part in result.stdout


def test_json(packed):
    result = run("info", "--json", packed)
    found = json.loads(result.stdout)
    assert found["whole"] and found["codec"] == "image/light" and found["picture"] == [30, 20, 3]
    assert found["bytes"] == packed.stat().st_size and found["metadata"]["icc"] == {"bytes": 7}
    assert found["bpp"] == pytest.approx(found["bytes"] * 8 / 600)


def test_tensors(tensors):
    result = run("info", tensors)
    assert result.exit_code == 0, result.output
    assert "b  float32 [20]  81 of 80 bytes (1.012)" in result.stdout
    assert "of 240" in result.stdout and "packets   3, every checksum is right" in result.stdout
    found = json.loads(run("info", "--json", tensors).stdout)
    assert [t["name"] for t in found["tensors"]] == ["a", "b", "c"] and found["raw_bytes"] == 240


def test_a_damaged_tensor_leaves_the_others(tensors):
    data = bytearray(tensors.read_bytes())
    start = dict(Reader(bytes(data))._entries())["b"]
    data[start + 4] ^= 1  # in the body of its box
    tensors.write_bytes(data)
    result = run("info", tensors)
    assert result.exit_code == 2 and "DAMAGED" in result.stdout
    assert "2 of 3, can be read" in result.stdout and "'b': " in result.stdout
    assert result.stderr.count("\n") == 1 and "model.lpk is damaged: " in result.stderr


def test_a_damaged_bulk_is_found(tensors):
    data = bytearray(tensors.read_bytes())
    data[150] ^= 1  # inside the bulk of the second or third tensor
    tensors.write_bytes(data)
    result = run("info", tensors)
    assert result.exit_code == 2 and "checksum of chunk 0 is wrong" in result.stdout


def test_a_cut_file_tells_what_is_left(tensors):
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-60])
    result = run("info", tensors)
    assert result.exit_code == 2 and "2, can be read" in result.stdout
    found = json.loads(run("info", "--json", tensors).stdout)
    assert not found["whole"] and found["packets"] == 2 and found["damage"]


def test_an_unknown_codec_is_still_described(tmp_path):
    path = tmp_path / "a.lpk"
    with path.open("wb") as file, Writer(file, 77, {}) as writer:
        writer.write(Packet(None, b"body"))
    result = run("info", path)
    assert result.exit_code == 0 and "unknown codec 77" in result.stdout


def test_several_files_and_errors(packed, tmp_path):
    (tmp_path / "text.lpk").write_text("text")
    result = run("info", tmp_path)
    assert result.exit_code == 2 and "photo.lpk: whole" in result.stdout
    assert "text.lpk: not a .lpk file" in result.stderr
    result = run("info", tmp_path / "none.lpk")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert run("info", "-", input=packed.read_bytes()).stdout.startswith("-: whole")
