"""Checkpoints, folders, packed .safetensors files, damage survived, loading into modules."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import nn

import latentpack
from latentpack.codecs import tensor_files
from latentpack.codecs.codec import Packet
from latentpack.codecs.fields import put_varint
from latentpack.codecs.tensor.lossless import Lossless
from latentpack.codecs.tensor.packet import CODED, Start
from latentpack.datasets import torch_checkpoints
from latentpack.scripts import main, model_files

GUTENBERG = Path(__file__).parents[2] / "shared" / "data" / "weights" / "gutenberg3M"


def run(*args):
    return CliRunner().invoke(main.cli, [str(arg) for arg in args], prog_name="latentpack")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def checkpoint():
    """Most of what a training script saves."""
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 40))
    model[1].weight = nn.Parameter(model[0].weight.detach().t().contiguous().t())
    return {
        "model": OrderedDict(model.state_dict()),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": randn(30, 40)}}},
        "step": 2**70,
        "lr": [1e-3, float("inf")],
        "flags": (True, None, "é", b"\x00\xff", 1 + 2j),
        "what": {"dtype": torch.bfloat16, "device": torch.device("cpu"), "size": torch.Size([2])},
        "weight": nn.Parameter(randn(5, 5), requires_grad=False),
        "views": [randn(8, 6).t(), randn(8, 6)[:, ::2], torch.zeros(0, 3), torch.tensor(7)],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        assert (a.dtype, a.shape, type(a), a.requires_grad) == (
            b.dtype,
            b.shape,
            type(b),
            b.requires_grad,
        )
        assert torch.equal(*bits)
    elif isinstance(a, dict):
        assert type(a) is type(b) and list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b) and a == b


@pytest.mark.parametrize("form", ["lpk", "safetensors"])
def test_a_checkpoint_comes_back(tmp_path, form):
    source = tmp_path / "run.pt"
    torch.save(checkpoint(), source)
    done = run("pack", source, "--format", form, "--verify")
    assert done.exit_code == 0, done.output
    packed = tmp_path / ("run.lpk" if form == "lpk" else "run.packed.safetensors")
    source.rename(tmp_path / "old.pt")
    done = run("unpack", packed)
    assert done.exit_code == 0, done.output
    old = torch.load(tmp_path / "old.pt", weights_only=True)
    new = torch.load(source, weights_only=True)
    same(old, new)
    assert new["views"][0].stride() == (1, 6)
    with latentpack.open(packed) as f:
        assert torch.equal(f["model/0.weight"], old["model"]["0.weight"])


def test_names_of_a_state_dict_stay(tmp_path):
    source = tmp_path / "m.pth"
    torch.save({"a.weight": randn(3, 3), "a.bias": randn(3)}, source)
    model_files.pack(source, tmp_path / "m.lpk")
    with latentpack.open(tmp_path / "m.lpk") as f:
        assert list(f) == ["a.weight", "a.bias"]


class Payload:
    def __reduce__(self):
        return (os.system, ("touch /tmp/latentpack-was-here",))


def test_a_pickle_with_code_is_refused(tmp_path):
    source = tmp_path / "evil.pt"
    torch.save({"x": Payload()}, source)
    done = run("pack", source)
    assert done.exit_code == 2
    assert "safe loader refuses it" in done.output and done.output.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pt"]
    (tmp_path / "noise.pt").write_bytes(os.urandom(300))
    assert run("pack", tmp_path / "noise.pt").exit_code == 2


def test_what_a_checkpoint_must_not_hold():
    with pytest.raises(ValueError, match="'a' is a frozenset"):
        torch_checkpoints.take_apart({"a": frozenset()})
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="deeper than"):
        torch_checkpoints.take_apart(deep)
    for tree in ([], ["tensor"], ["list"], ["torch", "dtype", "nn"], ["x", []], [["dict"]], "no"):
        with pytest.raises(ValueError):
            torch_checkpoints.put_together(tree, {"a": torch.zeros(2)})
    huge = ["tensor", "a", False, [1 << 40]]
    with pytest.raises(ValueError, match="strides"):
        torch_checkpoints.put_together(huge, {"a": torch.zeros(2)})


def shards(folder):
    folder.mkdir()
    parts = [{"a": randn(64, 64).bfloat16(), "b": randn(5)}, {"c": randn(100, 10).half()}]
    names = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for name, tensors in zip(names, parts, strict=True):
        save_file(tensors, folder / name, {"format": "pt"})
    index = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text("{}")
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("kept")
    torch.save({"x": randn(3)}, folder / "sub" / "extra.bin")
    return parts


@pytest.mark.parametrize("form", ["lpk", "safetensors"])
def test_a_folder_comes_back_byte_for_byte(tmp_path, form):
    source = tmp_path / "model"
    parts = shards(source)
    done = run("pack", source, "--format", form)
    assert done.exit_code == 0, done.output
    packed = tmp_path / "model-packed"
    assert run("pack", source).exit_code == 2  # the folder exists
    suffix = "lpk" if form == "lpk" else "safetensors"
    assert (packed / f"model-00001-of-00002.{suffix}").exists()
    done = run("unpack", packed, tmp_path / "again")
    assert done.exit_code == 0, done.output
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        other = tmp_path / "again" / path.relative_to(source)
        if path.suffix == ".bin":
            same(torch.load(path, weights_only=True), torch.load(other, weights_only=True))
        else:
            assert other.read_bytes() == path.read_bytes()
    with latentpack.open(packed) as f:
        assert set(f) == {"a", "b", "c"} and len(f) == 3
        assert torch.equal(f["c"], parts[1]["c"])
        assert torch.equal(f.rows("a", 3, 9), parts[0]["a"][3:9])
        assert f.describe("b")["shape"] == (5,)


def test_folders_without_models_and_with_clashes(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    assert "has no .safetensors file" in run("pack", folder).output
    save_file({"a": torch.ones(2)}, folder / "m.safetensors")
    torch.save({"a": torch.ones(2)}, folder / "m.pt")
    assert "two files would become m.lpk" in run("pack", folder).output
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_packed_safetensors_are_valid_and_checked(tmp_path):
    source = tmp_path / "m.safetensors"
    tensors = {"w": randn(300, 300).bfloat16(), "s": torch.tensor(1.5), "e": torch.zeros(0, 2)}
    save_file({**tensors, "again": tensors["w"].clone()}, source, {"format": "pt", "by": "é"})
    packed = tmp_path / "p.safetensors"
    model_files.pack(source, packed, form="safetensors")
    inside = load_file(packed)  # the library reads it
    assert {t.dtype for t in inside.values()} == {torch.uint8}
    assert set(inside) == {*tensors, "again"}
    assert min(inside["again"].numel(), inside["w"].numel()) < 40  # stored once
    assert packed.stat().st_size < 0.75 * source.stat().st_size
    model_files.unpack(packed, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == source.read_bytes()
    done = run("info", packed)
    assert done.exit_code == 0 and "packets   4, every checksum is right" in done.stdout
    data = packed.read_bytes()
    packed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = run("info", packed)
    assert done.exit_code == 2 and "3 of 4, can be read" in done.stdout and "DAMAGED" in done.stdout
    for cut in range(0, len(data), 97):
        packed.write_bytes(data[:cut])
        with pytest.raises(ValueError):
            model_files.unpack(packed, tmp_path / "x")
    header = int.from_bytes(data[:8], "little") + 8
    for at in [*range(header), *range(header, len(data), 61)]:
        broken = bytearray(data)
        broken[at] ^= 1 + at % 255
        packed.write_bytes(broken)
        try:
            model_files.unpack(packed, tmp_path / "x", force=True)
        except ValueError:
            continue
        assert (tmp_path / "x").read_bytes() == source.read_bytes()  # a space of the header
    with pytest.raises(ValueError, match="packed already"):
        packed.write_bytes(data)
        model_files.pack(packed, tmp_path / "twice.safetensors", form="safetensors")


@pytest.mark.parametrize("name", ["packed.safetensors", "model.lpk"])
def test_golden_model_files(tmp_path, name):
    folder = Path(__file__).parent / "golden" / "outer"
    model_files.unpack(folder / name, tmp_path / "again.safetensors")
    source = folder / "model.safetensors"
    assert (tmp_path / "again.safetensors").read_bytes() == source.read_bytes()
    form = "lpk" if name == "model.lpk" else "safetensors"
    model_files.pack(source, tmp_path / "packed", form=form)
    assert (tmp_path / "packed").read_bytes() == (folder / name).read_bytes()


def test_keep_going_names_what_is_lost(tmp_path):
    source = tmp_path / "m.safetensors"
    tensors = {name: randn(200, 200, seed=i) for i, name in enumerate("abc")}
    save_file(tensors, source)
    packed = tmp_path / "m.lpk"
    model_files.pack(source, packed)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    done = run("unpack", packed, tmp_path / "no.safetensors")
    assert done.exit_code == 2 and not (tmp_path / "no.safetensors").exists()
    done = run("unpack", packed, tmp_path / "part.safetensors", "--keep-going")
    assert done.exit_code == 1 and "latentpack: lost b: " in done.output, done.output
    kept = load_file(tmp_path / "part.safetensors")
    assert set(kept) == {"a", "c"}
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)
    packed.write_bytes(data[: len(data) // 4])  # cut: the index is gone, too
    done = run("unpack", packed, tmp_path / "cut.safetensors", "--keep-going")
    assert done.exit_code == 1 and "lost the end of the file: " in done.output, done.output
    assert list(load_file(tmp_path / "cut.safetensors")) == []
    torch.save(tensors, tmp_path / "c.pt")
    model_files.pack(tmp_path / "c.pt", packed, force=True)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    lost = model_files.unpack(packed, tmp_path / "part.pt", keep_going=True)
    assert list(lost) == ["b"]
    assert list(torch.load(tmp_path / "part.pt", weights_only=True)) == ["a", "c"]


def test_rows_read_only_their_chunks(tmp_path):
    x = randn(4000, 64).bfloat16()
    path = tmp_path / "x.lpk"
    latentpack.save(
        path, {"x": x, "tied": x, "scalar": torch.tensor(1), "small": x[:5]}, chunk=4096
    )
    with latentpack.open(path) as f:
        for first, last in ((0, 0), (0, 1), (63, 65), (1000, 3999), (0, 4000)):
            assert torch.equal(f.rows("x", first, last), x[first:last])
            assert torch.equal(f.rows("tied", first, last), x[first:last])
        assert torch.equal(f.rows("small", 2, 4), x[2:4])
        assert torch.equal(f["x", 3:7], x[3:7]) and torch.equal(f["tied", -2:], x[-2:])
        assert f["x", 9:3].shape == (0, 64)
        for rows in (3, slice(0, 9, 2)):
            with pytest.raises(ValueError, match="give rows as in"):
                f["x", rows]
        for wrong in ((-1, 2), (3, 2), (0, 4001)):
            with pytest.raises(ValueError, match="range of 0 to 4000"):
                f.rows("x", *wrong)
        with pytest.raises(ValueError, match="no rows"):
            f.rows("scalar", 0, 1)
    data = bytearray(path.read_bytes())
    data[len(data) - 2000] ^= 1  # in one of the last chunks
    path.write_bytes(data)
    with latentpack.open(path) as f:
        assert torch.equal(f.rows("x", 0, 100), x[:100])
        with pytest.raises(latentpack.BitstreamError):
            f["x"]


def test_blocks_of_rows_are_the_tensor(tmp_path):
    tensors = {"x": randn(1000, 33), "flat": randn(7000), "scalar": torch.tensor(2.0)}
    latentpack.save(tmp_path / "x.lpk", tensors, chunk=1024)
    with latentpack.open(tmp_path / "x.lpk") as f:
        for name, tensor in tensors.items():
            blocks = list(f.blocks(name, limit=5000))
            assert len(blocks) == max(1, -(-tensor.nbytes // 5000)) or name == "x"
            whole = torch.cat(blocks) if tensor.ndim else blocks[0]
            assert torch.equal(whole, tensor)
        assert len(list(f.blocks("x", limit=5000))) > 20


READ = """
import sys, torch, latentpack
with latentpack.open(sys.argv[1]) as f:
    print(sum(float(t.double().sum()) for t in f.values()))
"""


def test_concurrent_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "_KEPT_BYTES", 1 << 16)  # pages are given back all the time
    tensors = {str(i): randn(300, 300, seed=i) for i in range(12)}
    path = tmp_path / "x.lpk"
    latentpack.save(path, tensors)
    command = [sys.executable, "-c", READ, str(path)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with latentpack.open(path) as f, ThreadPoolExecutor(4) as pool:
        for name, tensor in pool.map(lambda name: (name, f[name]), [*tensors] * 8):
            assert torch.equal(tensor, tensors[name])
    sums = [float(process.communicate()[0]) for process in others]
    assert sums[0] == sums[1] == sum(float(t.double().sum()) for t in tensors.values())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.body = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight


def test_loading_into_a_module(tmp_path):
    torch.manual_seed(1)
    source, target = Tied(), Tied()
    path = tmp_path / "m.lpk"
    latentpack.save(path, source.state_dict())
    place = target.body.weight.data_ptr()
    assert latentpack.load_into(target, path) == ([], [])
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
    assert target.body.weight.data_ptr() == place and target.head.weight is target.embed.weight
    with torch.device("meta"):
        empty = Tied()
        empty.head.weight = empty.embed.weight
    latentpack.load_into(empty, path)
    assert torch.equal(empty.head.weight, source.head.weight)
    assert empty.head.weight is empty.embed.weight and empty.body.weight.requires_grad
    state = source.state_dict()
    del state["head.weight"]  # one name of a tied pair is enough
    latentpack.save(path, state, force=True)
    assert latentpack.load_into(Tied(), path) == ([], [])


def test_loading_what_does_not_fit_changes_nothing(tmp_path):
    source, target = Tied(), Tied()
    path = tmp_path / "m.lpk"
    state = source.state_dict()
    state["body.bias"] = torch.zeros(3)
    state["body.weight"] = state["body.weight"].half()
    state["extra"] = torch.zeros(1)
    del state["norm.bias"]
    latentpack.save(path, state)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ValueError) as error:
        latentpack.load_into(target, path)
    for word in ("(3,)", "torch.float16", "lacks 'extra'", "lacks 'norm.bias'"):
        assert word in str(error.value)
    assert all(torch.equal(before[n], t) for n, t in target.state_dict().items())
    state = source.state_dict()
    del state["norm.bias"]
    latentpack.save(path, {**state, "extra": torch.zeros(1)}, force=True)
    assert latentpack.load_into(target, path, strict=False) == (["norm.bias"], ["extra"])


def test_a_pretrained_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    if not GUTENBERG.is_dir():
        pytest.skip(f"{GUTENBERG} is not there: real weights are not part of the repository")
    assert run("pack", GUTENBERG, tmp_path / "packed").exit_code == 0
    with pytest.raises(ValueError, match="as another file here does"):  # three states of one model
        latentpack.open(tmp_path / "packed")
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes((GUTENBERG / name).read_bytes())
    assert run("pack", model).exit_code == 0
    want = transformers.AutoModelForCausalLM.from_pretrained(model)
    have = latentpack.load_pretrained(tmp_path / "model-packed")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(want(ids).logits, have(ids).logits)


def test_kill_9_leaves_nothing_under_the_final_name(tmp_path):
    source = tmp_path / "m.safetensors"
    save_file({str(i): randn(1 << 20, seed=i) for i in range(8)}, source)
    command = [sys.executable, "-m", "latentpack.scripts.pack", str(source), "--mode", "small"]
    process = subprocess.Popen(command)
    while not list(tmp_path.glob(".latentpack-*.tmp")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "m.lpk").exists()
    model_files.pack(source, tmp_path / "m.lpk", mode="fast")
    model_files.verify(source, tmp_path / "m.lpk")


def test_a_full_disk_is_told(tmp_path):
    source = tmp_path / "m.safetensors"
    save_file({"x": randn(1 << 18)}, source)
    code = (
        "import resource, signal, sys\n"
        "from latentpack.scripts.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        f"sys.argv = ['latentpack', 'pack', {str(source)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing was written" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_more_than_2_31_elements():
    # All chunks are one value: a packet of 64 KiB stands for 2 GiB, of which rows decode alone.
    n = (1 << 31) + 5
    head = bytes([16, 0, 0]) + bytes([1, 7]) * -(-n // 65536)
    body = Start(torch.int8, CODED, (n, 1)).put() + put_varint(len(head)) + head
    rows = Lossless(threads=1).decode_rows(Packet(None, body), (1 << 31) - 3, n)
    assert rows.shape == (8, 1) and rows.unique().tolist() == [7]
