"""The codes of image/tokens are the same whatever reads them (DESIGN: portable parse)."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from latentpack.codecs.image.tokens import Tokens
from latentpack.codecs.image.tokens_prior import IntegerTokenPrior, TokenPrior, pass_numbers
from latentpack.codecs.transforms import integer
from latentpack.entropy.coder import Decoder, Encoder
from latentpack.entropy.models import categorical
from latentpack.entropy.tables import TableSet
from latentpack.kernels.errors import BitstreamError

SIDE = 96


@pytest.fixture(scope="module")
def stream(tmp_path_factory, write_tokens_weights):
    """Weights file, header, packets of a picture, and the codes in them."""
    path = write_tokens_weights(tmp_path_factory.mktemp("weights") / "w.lpkw")
    torch.manual_seed(1)
    noise = torch.rand(1, 3, SIDE // 8, SIDE // 8)
    x = torch.nn.functional.interpolate(noise, SIDE, mode="bicubic")[0].clamp(0, 1)
    codec = Tokens(path)
    x = (x * 255).to(torch.uint8)
    header, packets = codec.header(x), list(codec.encode(x))
    return path, header, packets, codec.parse(header, packets)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(stream, threads):
    path, header, packets, codes = stream
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(Tokens(path).parse(header, packets), codes)
    finally:
        torch.set_num_threads(before)


def fp64(a, b):
    return (a.double() @ b.double()).to(torch.int32)


def int64(a, b):
    return (a.long() @ b.long()).to(torch.int32)


@pytest.mark.parametrize("matmul", [fp64, int64])
def test_matmul_backends(stream, matmul, monkeypatch):
    path, header, packets, codes = stream
    monkeypatch.setattr(integer, "int_matmul", matmul)
    with torch.backends.mkldnn.flags(enabled=False):
        assert_same(Tokens(path).parse(header, packets), codes)


class NoisyDevice(TorchFunctionMode):
    """A machine whose every float operation is off by up to 1e-4.

    Matrix products and float64 are left alone: only the integer path uses them, on integers.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        noisy = "matmul" not in func.__name__ and not func.__name__.endswith("_")
        names = ("conv", "mul", "add", "sub", "div", "exp", "asinh", "leaky_relu")
        noisy = noisy and torch.is_tensor(out) and out.is_floating_point()
        if noisy and out.dtype != torch.float64:
            if any(name in func.__name__ for name in names):
                with torch._C.DisableTorchFunction():
                    out = out * (1 + 1e-4 * (2 * torch.rand_like(out) - 1))
        return out


def test_noise_in_every_float_operation(stream):
    path, header, packets, codes = stream
    codec = Tokens(path)
    exact = codec.decode(header, packets)
    with NoisyDevice():
        assert_same(codec.parse(header, packets), codes)
        noisy = codec.decode(header, packets)
    assert (noisy.float() - exact.float()).abs().max() <= 1


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_processors(stream, capability, tmp_path):
    """A subprocess whose libraries believe in an older CPU."""
    path, header, packets, codes = stream
    (tmp_path / "stream").write_bytes(pickle.dumps((header, packets)))
    code = (
        "import pickle, sys, pathlib\n"
        "from latentpack.codecs.image.tokens import Tokens\n"
        "header, packets = pickle.loads(pathlib.Path(sys.argv[2]).read_bytes())\n"
        "codes = Tokens(sys.argv[1]).parse(header, packets)\n"
        "pickle.dump([c.numpy() for c in codes], sys.stdout.buffer)\n"
    )
    root = Path(__file__).parents[1] / ".import"
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": {"default": "SSE41", "avx2": "AVX2"}[capability],
        "MKL_ENABLE_INSTRUCTIONS": "AVX2" if capability == "avx2" else "SSE4_2",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "stream")],
        capture_output=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert_same([torch.from_numpy(a) for a in pickle.loads(run.stdout)], codes)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
def test_golden_streams_parse_forever(shape):
    state = load_file(Path(__file__).parent / "golden" / "image_tokens" / "parse.safetensors")
    prior = IntegerTokenPrior((32, 16, 16))
    prior.load_state_dict({n[6:]: v for n, v in state.items() if n.startswith("prior.")})
    tables = TableSet.from_bytes(state["tables"].numpy().tobytes())
    name = f"{shape[0]}x{shape[1]}"
    levels = [state[f"{name}.{level}.codes"] for level in range(3)]
    for level in range(3):
        decoder = Decoder(tables, state[f"{name}.{level}.stream"].numpy().tobytes())
        got = prior.get(decoder, levels[:level], tuple(levels[level].shape))
        decoder.finish()
        assert torch.equal(got, levels[level])


def test_passes_by_hand():
    assert pass_numbers(3, 3).tolist() == [[0, 2, 0], [3, 1, 3], [0, 2, 0]]


@pytest.fixture
def prior():
    torch.manual_seed(0)
    prior = TokenPrior((32, 16, 16))
    with torch.no_grad():
        for level in prior.levels:
            level.head.weight += torch.randn_like(level.head.weight) * 0.2
    return prior


def random_levels(h, w):
    sizes = ((32, h, w), (16, 2 * h, 2 * w), (16, 2 * h, 2 * w))
    return [torch.randint(k, (h, w)) for k, h, w in sizes]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2)])
def test_codes_come_back(prior, shape):
    frozen, tables = prior.freeze(), categorical.freeze()
    levels = random_levels(*shape)
    for i in range(3):
        encoder = Encoder(tables)
        frozen.put(encoder, levels[: i + 1])
        decoder = Decoder(tables, encoder.finish())
        assert torch.equal(frozen.get(decoder, levels[:i], tuple(levels[i].shape)), levels[i])
        decoder.finish()


def test_training_form_prices_what_the_frozen_form_writes(prior):
    frozen, tables = prior.freeze(), categorical.freeze()
    levels = random_levels(40, 40)
    batch = [level[None] for level in levels]
    for i in range(3):
        encoder = Encoder(tables)
        frozen.put(encoder, levels[: i + 1])
        with torch.no_grad():
            bits = sum(prior.rate_bits(batch, i, torch.tensor([p])).sum() for p in range(4))
        assert len(encoder.finish()) * 8 == pytest.approx(float(bits), rel=0.01)


def test_a_position_sees_only_what_is_parsed_before_it(prior):
    """Codes of later passes and of higher levels do not matter."""
    frozen = prior.freeze()
    levels = random_levels(3, 3)
    passes = pass_numbers(6, 6)
    known = passes < 2
    changed = torch.where(known, levels[1], (levels[1] + 5) % 16)
    lower = frozen._lower(levels[:1])
    assert torch.equal(
        frozen.level(1).features(lower, levels[1], known),
        frozen.level(1).features(lower, changed, known),
    )


def test_prior_learns_what_its_neighbours_say():
    """Codes that repeat in blocks cost less than log2 K; those of a constant picture next to
    nothing."""
    torch.manual_seed(0)
    prior = TokenPrior((16, 8))
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(60):
        coarse = torch.randint(16, (8, 4, 4))
        fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2) % 8
        number = torch.randint(4, (8,))
        costs = [prior.rate_bits([coarse, fine], level, number).mean() for level in (0, 1)]
        optimizer.zero_grad()
        sum(costs).backward()
        optimizer.step()
    assert float(costs[0].detach()) == pytest.approx(4, abs=0.5)
    assert float(costs[1].detach()) < 1


def test_escapes_in_a_packet_are_damage(stream):
    path, header, packets, _ = stream
    encoder = Encoder(categorical.freeze())
    count = (SIDE // 32) ** 2 * 5
    encoder.put(torch.full((count,), 9, dtype=torch.int16), torch.full((count,), 127).byte())
    damaged = type(packets[0])(0, encoder.finish())
    with pytest.raises(BitstreamError):
        Tokens(path).parse(header, [damaged, *packets[1:]])
