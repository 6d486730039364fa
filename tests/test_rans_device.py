"""rANS on a device against the definition, byte for byte.

The CUDA kernels run on the CPU (cuda_on_cpu), the Triton kernels in Triton's interpreter where
there is no GPU; where there is one, both run there as well.
"""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentpack.entropy.coder import Decoder, Encoder
from latentpack.entropy.tables import TableSet, default_gaussian_scales
from latentpack.kernels import cuda, rans, rans_device, rans_ref
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.rans_ref import Tables
from latentpack.tests import cuda_on_cpu
from latentpack.tests.test_rans import mutations, outcome, random_symbols, random_tables

HAS_TRITON = importlib.util.find_spec("triton") is not None
GAUSSIAN = TableSet.gaussian([0, *default_gaussian_scales()])
INT16_ENDS = [32767, -32768, 32766, -32767, 0, 1, -1]


class Place:
    """A backend and where its tensors are."""

    def __init__(self, backend, device):
        self.backend, self.device = backend, device
        self.few = backend == "triton" and device == "cpu"  # the interpreter takes its time

    def tensor(self, array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def encode(self, tables, symbols, index, lanes=None):
        """Lists of arrays to streams."""
        bounds = self.tensor(np.cumsum([0, *map(len, symbols)]))
        parts = (self.tensor(np.concatenate(a)) for a in (symbols, index))
        options = {"lanes": lanes, "backend": self.backend}
        return rans_device.encode(tables, *parts, bounds, **options)

    def decoder(self, tables, streams):
        """A decoder of bytes that lie between others, which may not be touched."""
        guard = 48
        data = b"\xff" * guard + b"".join(streams) + b"\xff" * guard
        data = np.frombuffer(bytearray(data), np.uint8)
        offsets = guard + np.cumsum([0, *map(len, streams)])
        arrays = self.tensor(data), self.tensor(offsets)
        return rans_device.Decoder(tables, *arrays, backend=self.backend)

    def get(self, decoder, index):
        """Rows, one list of arrays, to symbols, likewise."""
        ends = np.cumsum([0, *map(len, index)])
        got = decoder.get(self.tensor(np.concatenate(index)), self.tensor(ends))
        return np.split(got.cpu().numpy(), ends[1:-1])


# Triton's, of itself.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


@pytest.fixture(
    params=[
        pytest.param(("cuda", "cpu"), id="cuda-on-cpu"),
        pytest.param(
            ("triton", "cuda" if torch.cuda.is_available() else "cpu"),
            marks=pytest.mark.skipif(not HAS_TRITON, reason="no triton"),
            id="triton",
        ),
        pytest.param(
            ("cuda", "cuda"),
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
            id="cuda",
        ),
    ]
)
def place(request, monkeypatch):
    backend, device = request.param
    if (backend, device) == ("cuda", "cpu"):
        monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    return Place(backend, device)


@pytest.mark.parametrize("seed", range(24))
def test_streams_of_every_kind(place, seed):
    """Any precision, rows of any length, escapes, uncoded rows, lanes; decoded in two parts."""
    if place.few and seed > 3:
        pytest.skip("the interpreter takes the first of these")
    rng = np.random.default_rng(seed)
    precision = [16, 1, 12, *rng.integers(1, 17, 21)][seed]
    tables = random_tables(rng, int(precision), narrow=seed % 2 == 1, uncoded=seed % 3 == 0)
    sizes = [0, 1, *rng.integers(2, 70 if place.few else 2500, 3)]
    escapes = [0.02, 0.5, 0][seed % 3]
    symbols, index = zip(*(random_symbols(rng, tables, n, escapes) for n in sizes), strict=True)
    lanes = [None, 32, 16, 8, 4, 2, 1][seed % 7]
    coded = place.encode(tables, symbols, index, lanes)
    pairs = list(zip(symbols, index, strict=True))
    assert coded.to_bytes() == [rans_ref.encode(tables, s, i, lanes) for s, i in pairs]
    decoder = rans_device.Decoder(tables, *coded[:2], backend=place.backend)
    cuts = [int(rng.integers(0, n + 1)) for n in sizes]
    for part in (slice(None, k) for k in cuts), (slice(k, None) for k in cuts):
        parts = list(part)
        wanted = [s[p] for s, p in zip(symbols, parts, strict=True)]
        got = place.get(decoder, [i[p] for i, p in zip(index, parts, strict=True)])
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
    rans_device.check(decoder.finish())


def test_every_escape(place):
    tables = Tables(1, [0, -32768, 32767], [2, 2, 2], [1, 1] * 3)
    ends = [2**k + d for k in range(15) for d in (-1, 0, 1)]
    symbols = np.array([*INT16_ENDS, *ends, *(-e for e in ends)], np.int16)
    symbols = symbols[:: 9 if place.few else 1].repeat(3)
    index = np.tile(np.arange(3, dtype=np.uint8), len(symbols) // 3)
    for lanes in (4, 32) if place.few else (1, 8, 32):
        (stream,) = place.encode(tables, [symbols], [index], lanes).to_bytes()
        assert stream == rans_ref.encode(tables, symbols, index, lanes)
        decoder = place.decoder(tables, [stream])
        assert np.array_equal(place.get(decoder, [index])[0], symbols)
        assert decoder.finish().tolist() == [0]


def test_nothing_coded(place):
    nothing = np.zeros(0, np.int16), np.zeros(0, np.uint8)
    zeros = np.zeros(70, np.int16), np.zeros(70, np.uint8)
    symbols, index = zip(nothing, zeros, nothing, strict=True)
    assert place.encode(GAUSSIAN, symbols, index).to_bytes() == [b"", b"", b""]
    decoder = place.decoder(GAUSSIAN, [b""] * 3)
    assert not any(part.any() for part in place.get(decoder, index))
    rans_device.check(decoder.finish())
    index = [np.ones(3, np.uint8)] * 3
    place.get(decoder, index)
    assert decoder.finish().tolist() == [3, 3, 3]
    with pytest.raises(BitstreamError, match="stream 0: the coded stream is empty"):
        rans_device.check(decoder.finish())


class NoChain:
    """In place of a Triton kernel: heads alone, for thousands of symbols in the interpreter."""

    def __getitem__(self, grid):
        return lambda *arguments, **options: None


def test_lanes_follow_the_payload(place, monkeypatch):
    """The choice of `choose_lanes`, sampled where there are many symbols."""
    rng = np.random.default_rng(3)
    tables = Tables(16, [0, 0], [0, 2], [65535, 1])
    if place.few:
        from latentpack.kernels import rans_triton

        monkeypatch.setattr(rans_triton, "encode_chain", NoChain())
    for n in (600, 9000, 16384, 60000):
        index = (rng.random(n) < max(0.2, 600 / n)).astype(np.uint8)
        symbols = (rng.integers(20000, 32768, n) * index).astype(np.int16)
        (stream,) = place.encode(tables, [symbols], [index]).to_bytes()
        want = rans.encode(tables, symbols, index)
        assert stream[0] == want[0] > 0
        assert stream == want or place.few


def test_sessions(place):
    rng = np.random.default_rng(4)
    index = rng.integers(0, 65, 90).astype(np.uint8)
    symbols = (rng.normal(size=90) * index / 8).astype(np.int16)
    symbols[index == 0] = 0
    given = place.tensor(symbols.reshape(9, 10)), place.tensor(index.reshape(9, 10))
    want = rans.encode(GAUSSIAN, symbols, index, lanes=4)

    def encoder():
        session = Encoder(GAUSSIAN, lanes=4, backend=place.backend)
        copies = [t.clone() for t in given]
        session.put(copies[0][:3], copies[1][:3])
        session.put(copies[0][3:], copies[1][3:])
        copies[0].zero_()
        return session

    assert encoder().finish() == want
    coded = encoder().finish_on_device()
    for data in (coded, coded.data[: len(want)]):
        decoder = Decoder(GAUSSIAN, data, backend=place.backend)
        got = [decoder.get(given[1][0, 0]), decoder.get(given[1].reshape(-1)[1:])]
        assert got[0].shape == () and got[0].device.type == place.device
        assert torch.equal(torch.cat([got[0][None], got[1]]), given[0].reshape(-1))
        decoder.finish()
    decoder = Decoder(GAUSSIAN, coded, backend=place.backend)
    decoder.get(given[1][:8])
    with pytest.raises(BitstreamError, match="does not end cleanly"):
        decoder.finish()
    with pytest.raises(ValueError, match="not coded"):
        session = Encoder(GAUSSIAN, backend=place.backend)
        session.put(given[0] * 0 + 1, given[1] * 0)
        session.finish()
    with pytest.raises(ValueError, match="outside the rows"):
        session = Encoder(GAUSSIAN, backend=place.backend)
        session.put(given[0], given[1] * 0 + 65)
        session.finish()


def latents(rng, n):
    """y, means float32 [n]; scales float32 [n], some on boundaries; boundaries [64]."""
    levels = default_gaussian_scales()
    boundaries = np.sqrt(levels[1:] * levels[:-1]).astype(np.float32)
    boundaries = np.concatenate([[np.float32(0.08)], boundaries])
    scales = np.exp(rng.normal(-1, 1.5, n)).astype(np.float32)
    scales[:3] = boundaries[[0, 20, 63]]
    scales[3:6] = np.nextafter(boundaries[[0, 20, 63]], np.float32(99))
    scales[6:9] = 0, np.inf, -1
    means = rng.normal(0, 3, n).astype(np.float32)
    y = (means + rng.normal(size=n) * np.clip(scales, 0, 40)).astype(np.float32)
    y[9:13], means[9:13] = [0.5, 1.5, 2.5, -0.5], 0  # ties go to the even
    y[13:17] = [1e9, -1e9, np.inf, -np.inf]
    scales[9:17] = 5
    return y, means, scales, boundaries


def test_latents(place):
    """Quantisation, rows and means, both ways; scales or rows."""
    rng = np.random.default_rng(6)
    streams, n = (2, 40) if place.few else (3, 700)
    y, means, scales, boundaries = latents(rng, streams * n)
    row = np.searchsorted(boundaries, scales).astype(np.uint8)
    q = np.rint(np.clip(y - means, -32768, 32767)).astype(np.int16)
    q[row == 0] = 0
    both = zip(q.reshape(streams, n), row.reshape(streams, n), strict=True)
    want = [rans.encode(GAUSSIAN, *pair, lanes=16) for pair in both]
    given = [place.tensor(a.reshape(streams, n)) for a in (y, means, scales, row)]
    limits = place.tensor(boundaries)
    options = {"backend": place.backend}
    lanes = {"lanes": 16, **options}
    for index, more in ((given[3], {}), (given[2], {"boundaries": limits})):
        coded, y_hat = rans_device.encode_latents(
            GAUSSIAN, given[0], index, given[1], **more, **lanes
        )
        assert coded.to_bytes() == want
        assert np.array_equal(y_hat.cpu().numpy().ravel(), q + means)
    decoder = rans_device.Decoder(GAUSSIAN, *coded[:2], **options)
    first = decoder.get_latents(given[3][:, :20], given[1][:, :20])
    rest = decoder.get_latents(given[3][:, 20:], given[1][:, 20:])
    assert torch.equal(torch.cat([first, rest], 1), y_hat)
    rans_device.check(decoder.finish())
    q = np.where(row, np.rint(np.clip(y, -32768, 32767)), 0)
    coded, y_hat = rans_device.encode_latents(GAUSSIAN, given[0].double(), given[3], **lanes)
    assert np.array_equal(y_hat.cpu().numpy().ravel(), q)
    decoder = rans_device.Decoder(GAUSSIAN, *coded[:2], **options)
    assert torch.equal(decoder.get_latents(given[3]), y_hat)


@pytest.mark.parametrize("what", ["y", "means", "scales", "infinities"])
def test_latents_that_are_not_numbers(place, what):
    y, means, scales, boundaries = latents(np.random.default_rng(7), 100)
    bad = {"y": y, "means": means, "scales": scales, "infinities": means}[what]
    y[60], bad[60] = np.inf, np.inf if what == "infinities" else np.nan
    given = [place.tensor(a.reshape(2, 50)) for a in (y, scales, means)]
    coded, _ = rans_device.encode_latents(
        GAUSSIAN, *given, boundaries=place.tensor(boundaries), backend=place.backend
    )
    assert coded.status.tolist() == [0, 8]
    assert coded.offsets[1] == coded.offsets[2] > 0
    with pytest.raises(ValueError, match="stream 1: a latent, a mean or a scale is NaN"):
        coded.to_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_damaged_streams(place, seed):
    """All mutations of a stream in one launch: found, or really a stream of these tables."""
    if place.few and seed > 1:
        pytest.skip("the interpreter takes the first of these")
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, [12, 16, 5, 1, 9, 12][seed], seed % 2 == 0, seed % 3 == 0)
    symbols, index = random_symbols(rng, tables, 40 if place.few else 300)
    stream = rans.encode(tables, symbols, index, lanes=[1, 4, 32, 8, 2, 16][seed])
    changed = list(mutations(rng, stream, 12 if place.few else 120))
    decoder = place.decoder(tables, changed)
    got = place.get(decoder, [index] * len(changed))
    status = decoder.finish().tolist()
    for data, values, number in zip(changed, got, status, strict=True):
        expected = outcome(tables, data, index, None)
        assert (values.tolist() if number == 0 else None) == expected, number


def test_damage_one_by_one(place):
    tables = Tables(2, [0], [3], [2, 1, 1])
    state = rans_ref.LOWER.to_bytes(4, "little")
    low = rans_ref.LOWER
    cases = [
        (b"\x06", 9),
        (b"\x00\x00", 9),
        (b"\x00" + state + b"\x01", 9),
        (b"\x00" + bytes(4), 9),
        (b"", 3),
        (b"\x00" + state, 4),
        (b"\x00" + bytes.fromhex("04000800"), 10),
        (b"\x00" + ((low << 5 | 19) << 2 | 3).to_bytes(4, "little"), 5),
        (b"\x00" + ((low << 5 | 18) << 2 | 3).to_bytes(4, "little") + bytes(8), 6),
    ]
    decoder = place.decoder(tables, [data for data, _ in cases])
    place.get(decoder, [np.zeros(1, np.uint8)] * len(cases))
    assert decoder.finish().tolist() == [number for _, number in cases]
    decoder = place.decoder(tables, [b""])
    place.get(decoder, [np.full(1, 9, np.uint8)])
    with pytest.raises(ValueError, match="an index is outside the rows"):
        rans_device.check(decoder.finish())


def test_workspace(place):
    symbols, index = random_symbols(np.random.default_rng(8), GAUSSIAN, 66)
    given = place.tensor(symbols), place.tensor(index), place.tensor(np.array([0, 33, 66]))
    room = rans_device.workspace_bytes(66, 2)
    noise = torch.full((room,), 0xA5, dtype=torch.uint8, device=place.device)
    options = {"workspace": noise, "backend": place.backend}
    coded = rans_device.encode(GAUSSIAN, *given, **options)
    halves = [(symbols[s], index[s]) for s in (slice(0, 33), slice(33, 66))]
    assert coded.to_bytes() == [rans.encode(GAUSSIAN, *half) for half in halves]
    with pytest.raises(ValueError, match=f"workspace has {room - 1} bytes, expected {room}"):
        rans_device.encode(GAUSSIAN, *given, workspace=noise[:-1], backend=place.backend)


def test_wrong_arguments(place):
    symbols = torch.zeros(2, 3, dtype=torch.int16, device=place.device)
    index = symbols.to(torch.uint8)
    options = {"backend": place.backend}
    with pytest.raises(ValueError, match=r"symbols is torch\.int32, expected torch\.int16"):
        rans_device.encode(GAUSSIAN, symbols.int(), index, **options)
    with pytest.raises(ValueError, match=r"index is \[3, 2\], expected \[2, 3\]"):
        rans_device.encode(GAUSSIAN, symbols, index.T, **options)
    with pytest.raises(ValueError, match="index is on meta, expected"):
        rans_device.encode(GAUSSIAN, symbols, index.to("meta"), **options)
    with pytest.raises(ValueError, match="lanes is 3, expected a power of two"):
        rans_device.encode(GAUSSIAN, symbols, index, lanes=3, **options)
    with pytest.raises(ValueError, match=r"y is torch\.int16, expected floats"):
        rans_device.encode_latents(GAUSSIAN, symbols, index, **options)
    with pytest.raises(ValueError, match="expected at most 64"):
        limits = torch.zeros(65)
        rans_device.encode_latents(
            GAUSSIAN, symbols.float(), symbols.float(), boundaries=limits, **options
        )
    data = torch.zeros(0, dtype=torch.uint8, device=place.device)
    with pytest.raises(ValueError, match="symbols of 2 streams wanted, there are 1"):
        rans_device.Decoder(GAUSSIAN, data, **options).get(index)
    with pytest.raises(ValueError, match="expected uint8"):
        rans_device.Decoder(GAUSSIAN, data.int(), **options)
    with pytest.raises(ValueError, match="backend is 'abacus'"):
        rans_device.encode(GAUSSIAN, symbols, index, backend="abacus")


def test_without_a_gpu():
    symbols = torch.zeros(3, dtype=torch.int16)
    with pytest.raises(ValueError, match="the tensors are on cpu, expected a GPU"):
        rans_device.encode(GAUSSIAN, symbols, symbols.to(torch.uint8))


def test_compiles_for_a_gpu():
    try:
        code, _ = cuda.compile_source("rans.cu", "sm_80")
    except RuntimeError as error:
        if "no NVRTC" in str(error):
            pytest.skip(str(error))
        raise
    assert b"rans_encode" in code


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from latentpack.kernels import rans_triton as k

TYPES = {"*i64": "bounds offsets state", "*i32": "rows entries costs pairs places counts",
         "*i16": "symbols words out", "*u8": "index data slots",
         "*fp32": "y means scales boundaries y_hat"}
TYPES = {name: kind for kind, names in TYPES.items() for name in names.split()}
KERNELS = [
    (k.close_up, {"y", "means", "scales", "boundaries", "y_hat"}, {"BLOCK": 1024, "SEARCH": 0}),
    (k.close_up, {"symbols", "index"}, {"BLOCK": 1024, "SEARCH": 6}),
    (k.encode_chain, (), {"PRECISION": 12}),
    (k._pack, (), {"PIECES": 4, "BLOCK": 1024}),
    (k._begin, (), {}),
    (k._find_coded, {"out"}, {"BLOCK": 1024}),
    (k._decode_chain, {"y_hat", "means"}, {"PRECISION": 12}),
    (k._decode_chain, {"out"}, {"PRECISION": 16}),
]
for target in (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    for kernel, absent, given in KERNELS:
        constants = dict.fromkeys(absent) | given
        signature = {name: TYPES.get(name, "i32") for name in kernel.arg_names}
        signature |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, signature, constexprs=constants)
        warps = 8 if "BLOCK" in given else 1
        triton.compile(source, target=target, options={"num_warps": warps})
    print(target.backend)
"""


@pytest.mark.skipif(not HAS_TRITON, reason="no triton")
def test_triton_compiles_for_nvidia_and_amd(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "cuda\nhip\n", done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", rans_device.BACKENDS)
def test_in_a_graph(backend):
    """Captured once, replayed with other latents: nothing waits and nothing is kept."""
    rng = np.random.default_rng(9)
    place = Place(backend, "cuda")
    y = place.tensor(rng.normal(size=(4, 3000)).astype(np.float32))
    index = place.tensor(rng.integers(0, 65, (4, 3000)).astype(np.uint8))

    def round_trip():
        coded, y_hat = rans_device.encode_latents(GAUSSIAN, y, index, backend=backend)
        decoder = rans_device.Decoder(GAUSSIAN, *coded[:2], backend=backend)
        return y_hat, decoder.get_latents(index), decoder.finish()

    round_trip()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y_hat, decoded, status = round_trip()
    for _ in range(3):
        y.normal_()
        graph.replay()
        assert torch.equal(y_hat, decoded) and not status.any()
        assert torch.equal(y_hat, torch.where(index > 0, y.round(), 0))
