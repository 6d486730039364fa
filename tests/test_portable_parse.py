"""The same stream parses to the same symbols whatever computes it (DESIGN: portable parse)."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from latentpack.codecs.image import light_latents
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import FrozenLight
from latentpack.codecs.image.light_model import Size
from latentpack.codecs.transforms import integer
from latentpack.entropy.tables import TableSet

POSITION = 200
SIDE = 96


@pytest.fixture(scope="module")
def stream(tmp_path_factory, write_light_weights):
    """Weights file, coded latents of a picture, and the symbols in them."""
    path = write_light_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    torch.manual_seed(1)
    noise = torch.rand(1, 3, SIDE // 8, SIDE // 8)
    x = torch.nn.functional.interpolate(noise, SIDE, mode="bicubic")[0].clamp(0, 1)
    codec = Light(path)
    with torch.inference_mode():
        y = codec.analyse((x * 255).to(torch.uint8), (0, 0, SIDE, SIDE), POSITION)
        data = light_latents.code(
            codec.model, *light_latents.choose(codec.model, y, POSITION), POSITION
        )
        symbols = light_latents.parse(codec.model, data, SIDE // 16, SIDE // 16, POSITION)
    assert symbols[0].abs().sum() > 0 and symbols[1].abs().sum() > 0
    return path, data, symbols


def parse(path, data):
    with torch.inference_mode():
        return light_latents.parse(Light(path).model, data, SIDE // 16, SIDE // 16, POSITION)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(stream, threads):
    path, data, symbols = stream
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(parse(path, data), symbols)
    finally:
        torch.set_num_threads(before)


def test_onednn_off(stream):
    path, data, symbols = stream
    with torch.backends.mkldnn.flags(enabled=False):
        assert_same(parse(path, data), symbols)


def fp64(a, b):
    return (a.double() @ b.double()).to(torch.int32)


def int64(a, b):
    return (a.long() @ b.long()).to(torch.int32)


@pytest.mark.parametrize("matmul", [fp64, int64])
def test_matmul_backends(stream, matmul, monkeypatch):
    path, data, symbols = stream
    monkeypatch.setattr(integer, "int_matmul", matmul)
    assert_same(parse(path, data), symbols)


def test_batch_and_layout(stream):
    path, _, (z, _) = stream
    h_s = Light(path).model.h_s
    alone = h_s(z, POSITION)
    others = torch.randint(-127, 128, (2, *z.shape[1:]), dtype=torch.int8)
    assert torch.equal(h_s(torch.cat((others[:1], z, others[1:])), POSITION)[1:2], alone)
    assert torch.equal(h_s(z.contiguous(memory_format=torch.channels_last), POSITION), alone)


class NoisyDevice(TorchFunctionMode):
    """A machine whose every float operation is off by up to 1e-4.

    Matrix products and float64 are left alone: only the integer path uses them, on integers, where
    every machine is exact.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        names = ("conv", "mul", "add", "sub", "div", "exp", "asinh", "leaky_relu")
        noisy = any(n in func.__name__ for n in names) and "matmul" not in func.__name__
        if noisy and torch.is_tensor(out):
            floats = out.is_floating_point() and out.dtype != torch.float64
            if floats and not func.__name__.endswith("_"):
                with torch._C.DisableTorchFunction():
                    out = out * (1 + 1e-4 * (2 * torch.rand_like(out) - 1))
        return out


def test_noise_in_every_float_operation(stream):
    path, data, symbols = stream
    model = Light(path).model
    with torch.inference_mode():
        exact = light_latents.values(model, *symbols, POSITION)
        with NoisyDevice():
            got = parse(path, data)
            noisy = light_latents.values(model, *got, POSITION)
    assert_same(got, symbols)
    difference = (noisy - exact).abs().max()
    assert 0 < difference < 1e-2, "the noise must reach the values, and stay small in them"


@pytest.mark.parametrize("position", [0, 100, 448])
def test_golden_streams_parse_forever(position):
    state = load_file(Path(__file__).parent / "golden" / "image_light" / "parse.safetensors")
    model = FrozenLight(Size(8, 12, 1))
    model.tables = TableSet.from_bytes(state["tables"].numpy().tobytes())
    model.h_s.load_state_dict({n[4:]: v for n, v in state.items() if n.startswith("h_s.")})
    stream = state[f"{position}.stream"].numpy().tobytes()
    with torch.inference_mode():
        got = light_latents.parse(model, stream, 6, 4, position)
    assert_same(got, (state[f"{position}.z"], state[f"{position}.q"]))


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_processors(stream, capability, tmp_path):
    """A subprocess whose libraries believe in an older CPU."""
    path, data, symbols = stream
    (tmp_path / "stream").write_bytes(data)
    code = (
        "import pickle, sys, pathlib, torch\n"
        "from latentpack.codecs.image import light_latents\n"
        "from latentpack.codecs.image.light_frozen import load_weights\n"
        "model = load_weights(pathlib.Path(sys.argv[1]))\n"
        "data = pathlib.Path(sys.argv[2]).read_bytes()\n"
        f"z, q = light_latents.parse(model, data, {SIDE // 16}, {SIDE // 16}, {POSITION})\n"
        "pickle.dump((z.numpy(), q.numpy()), sys.stdout.buffer)\n"
    )
    isa = {"default": "SSE41", "avx2": "AVX2"}[capability]
    root = Path(__file__).parents[1] / ".import"
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": isa,
        "MKL_ENABLE_INSTRUCTIONS": "AVX2" if capability == "avx2" else "SSE4_2",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "stream")],
        capture_output=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr.decode()
    got = pickle.loads(run.stdout)
    assert_same([torch.from_numpy(a) for a in got], symbols)
