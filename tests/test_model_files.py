"""Model files: the lazy reader, the streaming writer, pack and unpack."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import latentpack
from latentpack.datasets.safetensors_files import DTYPES, SafetensorsFile, write_safetensors
from latentpack.scripts import main, model_files

WEIGHTS = Path(__file__).parents[2] / "shared" / "data" / "weights"
METADATA = {"zeta": 'é\n"quoted" \x01\x7f', "format": "pt", "": "empty"}


def every_dtype():
    """One tensor of each dtype that a .safetensors file may hold, of random bits."""
    bits = torch.randint(0, 256, (24, 16), dtype=torch.uint8, generator=torch.Generator())
    tensors = {
        name: bits.clone().view(dtype) for name, dtype in DTYPES.items() if dtype != torch.bool
    }
    shapes = {"scalar": torch.tensor(-0.0), "empty": torch.zeros(0, 3), "five": torch.ones([2] * 5)}
    return {**tensors, "BOOL": bits > 99, **shapes}


@pytest.fixture
def model(tmp_path):
    """A file of every dtype by the safetensors library, with metadata."""
    path = tmp_path / "model.safetensors"
    save_file(every_dtype(), path, METADATA)
    return path


def same(x, y):
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (x, y)]
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(*bits)


def run(*args):
    return CliRunner().invoke(main.cli, [str(a) for a in args], prog_name="latentpack")


def test_reader(model):
    file, expected = SafetensorsFile(model), load_file(model)
    assert set(file) == set(expected) and len(file) == len(expected)
    assert file.metadata == METADATA
    assert file.size == sum(x.nbytes for x in expected.values())
    assert all(same(x, expected[name]) for name, x in file.items())
    with safe_open(model, "pt") as library:
        assert list(file) == library.offset_keys()
    with pytest.raises(KeyError):
        file["none"]


def test_reader_without_metadata(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    assert SafetensorsFile(tmp_path / "a.safetensors").metadata is None


def test_reader_maps_anew_after_a_while(model, monkeypatch):
    monkeypatch.setattr("latentpack.datasets.safetensors_files._REOPEN_BYTES", 1000)
    expected = load_file(model)
    assert all(same(x, expected[name]) for name, x in SafetensorsFile(model).items())


def test_reader_rejects(tmp_path, model):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError):
        SafetensorsFile(path)
    whole = model.read_bytes()
    for data in (b"", b"text", whole[:-1], whole + b"\0", whole[:100]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is not a whole \.safetensors file"):
            SafetensorsFile(path)
    with pytest.raises(IsADirectoryError):
        SafetensorsFile(tmp_path)


def test_writer_bytes_are_the_library_s(model):
    file, out = SafetensorsFile(model), io.BytesIO()
    layout = [(name, x.dtype, tuple(x.shape)) for name, x in file.items()]
    write_safetensors(out, layout, (x for _, x in file.items()), file.metadata)
    header_size = int.from_bytes(out.getvalue()[:8], "little")
    assert json.loads(out.getvalue()[8 : 8 + header_size])["__metadata__"] == METADATA
    assert out.getvalue() == model.read_bytes()


def test_writer_by_hand():
    out = io.BytesIO()
    write_safetensors(out, [("a", torch.int16, (2,))], [torch.tensor([1, -2], dtype=torch.int16)])
    text = b'{"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}} '
    text += b" " * (-len(text) % 8)
    assert out.getvalue() == bytes([len(text), *[0] * 7]) + text + b"\x01\x00\xfe\xff"


def test_writer_takes_any_layout():
    x = torch.arange(12).to(torch.complex64).reshape(3, 4).T.conj()
    out = io.BytesIO()
    write_safetensors(out, [("x", x.dtype, (4, 3))], [x])
    assert out.getvalue().endswith(x.resolve_conj().contiguous().numpy().tobytes())


def test_writer_rejects():
    with pytest.raises(ValueError, match=r"complex128, which \.safetensors files can't hold"):
        write_safetensors(io.BytesIO(), [("a", torch.complex128, (1,))], [])
    with pytest.raises(ValueError, match=r"tensor 'a' is torch\.float32"):
        write_safetensors(io.BytesIO(), [("a", torch.int8, (1,))], [torch.zeros(1)])
    with pytest.raises(ValueError):
        write_safetensors(io.BytesIO(), [("a", torch.int8, (1,))], [])


@pytest.mark.parametrize("mode", [None, "fast", "tight", "small"])
def test_pack_and_unpack_give_the_same_bytes(model, tmp_path, mode):
    packed, again = tmp_path / "x.lpk", tmp_path / "again.safetensors"
    seen = []
    model_files.pack(model, packed, mode=mode, threads=1, progress=lambda *a: seen.append(a))
    size = SafetensorsFile(model).size
    assert seen[-1] == (size, size) and seen == sorted(seen)
    model_files.verify(model, packed)
    seen.clear()
    model_files.unpack(packed, again, progress=lambda *a: seen.append(a))
    assert seen[-1] == (size, size)
    assert again.read_bytes() == model.read_bytes()


@pytest.mark.parametrize("metadata", [None, {}, {"b": "1", "a": "2"}])
def test_metadata_is_kept_as_it_was(tmp_path, metadata):
    source, packed, again = (tmp_path / name for name in ("a.safetensors", "a.lpk", "b"))
    with source.open("wb") as file:
        write_safetensors(file, [("x", torch.int8, (2,))], [torch.ones(2).char()], metadata)
    model_files.pack(source, packed)
    model_files.unpack(packed, again)
    assert again.read_bytes() == source.read_bytes()


def test_one_tensor_of_a_packed_model(model, tmp_path):
    model_files.pack(model, tmp_path / "x.lpk")
    with latentpack.open(tmp_path / "x.lpk") as f:
        assert same(f["BF16"], load_file(model)["BF16"])


def test_unpack_a_single_tensor(tmp_path):
    latentpack.save(tmp_path / "x.lpk", torch.ones(3))
    model_files.unpack(tmp_path / "x.lpk", tmp_path / "x.safetensors")
    assert torch.equal(load_file(tmp_path / "x.safetensors")["tensor"], torch.ones(3))


def test_a_failure_leaves_nothing_behind(model, tmp_path):
    packed = tmp_path / "x.lpk"
    model_files.pack(model, packed)
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(latentpack.BitstreamError):
        model_files.unpack(packed, tmp_path / "again.safetensors")
    with pytest.raises(FileExistsError):
        model_files.pack(model, packed)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_files.pack(model, packed, force=True, progress=stop)
    assert sorted(tmp_path.iterdir()) == before
    assert packed.read_bytes() == whole[: len(whole) // 2]


def test_verify_finds_a_difference(model, tmp_path):
    packed = tmp_path / "x.lpk"
    tensors = load_file(model)
    latentpack.save(packed, {name: tensors[name] for name in SafetensorsFile(model)})
    model_files.verify(model, packed)
    tensors["scalar"] = torch.tensor(0.0)
    latentpack.save(packed, {n: tensors[n] for n in SafetensorsFile(model)}, force=True)
    with pytest.raises(RuntimeError, match="'scalar' is not as in"):
        model_files.verify(model, packed)
    latentpack.save(packed, {"scalar": tensors["scalar"]}, force=True)
    with pytest.raises(RuntimeError, match="other tensors"):
        model_files.verify(model, packed)


def test_commands(model, tmp_path):
    before = model.read_bytes()
    done = run("pack", model, "--verify", "--mode", "tight", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "model.lpk: " in done.output and "GB/s, verified" in done.output
    model.unlink()
    done = run("unpack", tmp_path / "model.lpk")
    assert done.exit_code == 0, done.output
    assert model.read_bytes() == before
    assert run("unpack", tmp_path / "model.lpk", "-o", tmp_path / "2.st").exit_code == 0
    assert (tmp_path / "2.st").read_bytes() == before


def test_commands_say_what_is_wrong(model, tmp_path):
    packed = tmp_path / "model.lpk"
    run("pack", model)
    text = tmp_path / "text.safetensors"
    text.write_text("not a model")
    for args, words in {
        ("pack", model): "--force overwrites it",
        ("pack", model, model): "would overwrite itself",
        ("pack", model, "a", "-o", "b"): "two names",
        ("pack", model, "-", "--verify"): "--verify needs a file",
        ("pack", "-", "x"): "standard input",
        ("pack", model, "--mode", "huge", "x"): "mode",
        ("pack", tmp_path / "none"): "none: no such file",
        ("pack", text): "not a whole .safetensors file",
        ("unpack", model, "x"): "this .safetensors file is not packed",
        ("unpack", packed): "--force overwrites it",
    }.items():
        done = run(*args)
        assert done.exit_code == 2, args
        assert words in done.output and done.output.count("\n") == 1, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.lpk",
        "model.safetensors",
        "text.safetensors",
    ]


def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    """48 tensors of 4 MiB: the process that packs them never holds 64 MiB more than torch."""
    source = tmp_path / "m.safetensors"
    x = torch.randn(1 << 20)
    save_file({f"{i:02}": x + i for i in range(48)}, source)
    code = f"""
import os, resource, sys, torch
from latentpack.scripts import model_files
from latentpack.datasets import safetensors_files
safetensors_files._REOPEN_BYTES = 1 << 24

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import latentpack
latentpack.decode(latentpack.encode({{"a": torch.ones(1 << 20)}}))
before = peak()
model_files.pack({str(source)!r}, {str(tmp_path / "m.lpk")!r}, threads=1)
model_files.unpack({str(tmp_path / "m.lpk")!r}, {str(tmp_path / "again")!r}, threads=1)
print((peak() - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64
    assert (tmp_path / "again").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "gutenberg3M/model.safetensors",
        "gutenberg3M/ckpt_step878.bf16.safetensors",
        "silero_vad/silero_vad_16k.safetensors",
    ],
)
def test_real_models(name, tmp_path):
    source = WEIGHTS / name
    if not source.exists():
        pytest.skip(f"{source} is not there: real weights are not part of the repository")
    packed, again = tmp_path / "m.lpk", tmp_path / "m.safetensors"
    model_files.pack(source, packed)
    model_files.unpack(packed, again)
    assert again.read_bytes() == source.read_bytes()
    assert packed.stat().st_size < 0.9 * source.stat().st_size
