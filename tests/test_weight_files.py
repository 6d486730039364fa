import json

import pytest
import safetensors.torch
import torch
import xxhash

from latentpack.codecs import api, weight_files
from latentpack.tests.command_line import run

TENSORS = {
    "a.weight": torch.arange(600, dtype=torch.float16).view(20, 30),
    "b": torch.tensor([-1, 2], dtype=torch.int32),
    "none": torch.zeros(0),
}


def write(path, **options):
    return weight_files.write(path, "image/light", TENSORS, {"size": [1, 2]}, **options)


def test_round_trip_and_what_the_digest_names(tmp_path):
    digest = write(tmp_path / "w.lpkw", training={"steps": 3})
    weights = weight_files.read(tmp_path / "w.lpkw", "image/light")
    assert weights.digest == digest and len(digest) == 8
    assert weights.config == {"size": [1, 2]} and weights.training == {"steps": 3}
    assert list(weights.tensors) == list(TENSORS)
    for name, value in TENSORS.items():
        assert torch.equal(weights.tensors[name], value)
    # How the weights were made has no part in their name; configuration and values have.
    assert write(tmp_path / "same.lpkw") == digest
    others = [
        ("image/light", TENSORS, {"size": [1, 3]}),
        ("image/other", TENSORS, {"size": [1, 2]}),
        ("image/light", TENSORS | {"b": torch.tensor([-1, 3], dtype=torch.int32)}, {}),
    ]
    digests = {weight_files.write(tmp_path / f"{i}.lpkw", *o) for i, o in enumerate(others)}
    assert len(digests | {digest}) == 4


def test_info_shows_their_name(tmp_path):
    digest = write(tmp_path / "w.lpkw").hex()
    shown = run("info", tmp_path / "w.lpkw").stdout
    assert "w.lpkw: whole" in shown and f"digest {digest}" in shown
    as_json = json.loads(run("info", "--json", tmp_path / "w.lpkw").stdout)
    assert as_json["metadata"]["weights"]["digest"] == digest


def test_the_digest_is_what_the_specification_says(tmp_path):
    """By hand: one tensor of one byte, no configuration."""
    x = torch.tensor([7], dtype=torch.uint8)
    digest = weight_files.write(tmp_path / "w.lpkw", "c", {"x": x}, {})
    from latentpack.codecs.tensor.dtypes import dtype_id

    of_tensor = xxhash.xxh3_64_digest(bytes([dtype_id(torch.uint8), 1, 1, 7]))
    of_tensors = xxhash.xxh3_64_digest(b"\x02\x61x" + of_tensor)
    assert digest == xxhash.xxh3_64_digest(b"\x83\x61c\x01\xa0" + of_tensors)


def test_a_safetensors_file_is_named_by_its_bytes(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.torch.save(TENSORS, {"latentpack": "image/light"}))
    weights = weight_files.read(path, "image/light")
    assert weights.digest == xxhash.xxh3_64_digest(path.read_bytes())
    assert torch.equal(weights.tensors["b"], TENSORS["b"])
    lpkw = tmp_path / "w.lpkw"
    digest = write(lpkw)
    assert weight_files.find(weights.digest, [lpkw, path]) == path
    assert weight_files.find(digest, [path, lpkw]) == lpkw
    assert weight_files.find(bytes(8), [path, lpkw]) is None


def test_old_weights_keep_their_digest_when_packed_anew(tmp_path):
    old, new = tmp_path / "w.safetensors", tmp_path / "w.lpkw"
    old.write_bytes(safetensors.torch.save(TENSORS, {"latentpack": "image/light"}))
    weight_files.repack(old, new)
    weights = weight_files.read(new, "image/light")
    assert weights.digest == xxhash.xxh3_64_digest(old.read_bytes())
    assert weights.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(weights.tensors[name], TENSORS[name]) for name in TENSORS)
    assert weight_files.find(weights.digest, [new]) == new


def test_what_is_refused(tmp_path):
    path = tmp_path / "w.lpkw"
    write(path)
    with pytest.raises(FileExistsError):
        write(path)
    with pytest.raises(ValueError, match="holds weights of image/light, image/x can't"):
        weight_files.read(path, "image/x")
    with pytest.raises(FileNotFoundError):
        weight_files.read(tmp_path / "no.lpkw", "image/light")
    api.save(tmp_path / "model.lpk", TENSORS)
    with pytest.raises(ValueError, match=r"model\.lpk is not a weights file"):
        weight_files.read(tmp_path / "model.lpk", "image/light")
    (tmp_path / "text.lpkw").write_text("weights")
    with pytest.raises(ValueError, match="not a weights file"):
        weight_files.read(tmp_path / "text.lpkw", "image/light")


def test_damage_is_found(tmp_path):
    path = tmp_path / "w.lpkw"
    write(path)
    data = path.read_bytes()
    for i in range(0, len(data), 5):
        for damaged in (data[:i], data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="not a weights file"):
                weight_files.read(path, "image/light")
