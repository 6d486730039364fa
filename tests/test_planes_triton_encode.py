"""The Triton encoder of byte planes against the reference, in the interpreter without a GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentpack.kernels import planes, planes_segments_ref
from latentpack.kernels.planes import FLOAT
from latentpack.kernels.planes_cuda import SHAPES

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
encoder = pytest.importorskip("latentpack.kernels.planes_triton_encode", reason="no Triton")
from latentpack.kernels import planes_triton  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def array(n, width, seed=0):
    """A chunk of weights with outliers, a constant chunk, random bits."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(n) * 0.02).astype(np.float32)
    x[5::701] = 1e20
    x[4096:8192] = 1.5
    x.view(np.uint32)[8192:] = rng.integers(0, 1 << 32, len(x[8192:]), np.uint32)
    return x.view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes()


def encoded(data, layout, width):
    """As the device codes it."""
    elements = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(DEVICE)
    return encoder.encode(elements, width, layout, 12)


def same_as_reference(data, layout, width):
    packed = encoded(data, layout, width)
    head, coded = planes.encode(data, width, layout, "segments", chunk_log2=12, backend="ref")
    assert encoder.to_host(packed) == (head, bytes(coded))
    return packed


@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_the_bytes_of_the_reference(layout, width, monkeypatch):
    monkeypatch.setattr(planes_segments_ref, "SEGMENT_LOG2", 12)  # small segments, quickly coded
    packed = same_as_reference(array(8_301, width), layout, width)
    assert len(packed.tables) == 3
    assert {0, 1, 2} >= set(packed.records[:, 0].tolist()) >= {1, 2}


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129])
def test_small_arrays(n):
    for layout, width in SHAPES if n < 3 else [(FLOAT, 2)]:
        same_as_reference(array(n, width, n), layout, width)


def test_nothing():
    packed = encoder.encode(torch.empty(0, dtype=torch.uint8, device=DEVICE), 2, FLOAT)
    assert encoder.to_host(packed) == (bytes([13, 0, 0]), b"")


def test_planes_that_are_constant_or_do_not_pay():
    # Equal exponents and free mantissas; free exponents and equal mantissas; everything free.
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 1 << 16, 300, np.uint16)
    for mask, value in ((0x807F, 0x3F80), (0x7F80, 0x0015), (0xFFFF, 0)):
        same_as_reference((bits & mask | value).astype("<u2").tobytes(), FLOAT, 2)


def test_counts_that_need_every_step_of_the_rule():
    # Many symbols that occur once push the sum above 4096, which the frequent one pays for.
    symbols = np.concatenate([np.full(2000, 7), np.arange(256)]).astype(np.uint8)
    same_as_reference(symbols.tobytes(), planes.BYTE_PLANES, 1)


def test_it_is_decoded_where_it_is():
    data = array(500, 2)
    packed = encoded(data, FLOAT, 2)
    out = torch.empty(len(data), dtype=torch.uint8, device=DEVICE)
    planes_triton.decode(packed, out)
    packed.check()
    assert out.cpu().numpy().tobytes() == data


def test_arguments():
    with pytest.raises(ValueError, match="multiple of 2 bytes"):
        encoder.encode(torch.zeros(3, dtype=torch.uint8), 2, FLOAT)
    with pytest.raises(ValueError, match="12 to 14"):
        encoder.encode(torch.zeros(4, dtype=torch.uint8), 2, FLOAT, 15)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from latentpack.kernels import planes_triton_encode as k

TYPES = dict(
    data="*u8", coded="*u8", tops="*i32", counts="*i32", entries="*i32", log="*i32", tables="*u16",
    words="*i16", states="*i32", records="*i32", sizes="*i64", n="i32", chunks="i32",
    segments="i32",
)
CONSTANTS = {"LAYOUT": 1, "WIDTH": 2, "CHUNK": 8192}
for kernel in (k.find_window, k.count_symbols, k.normalise, k._code, k._place):
    constants = {name: c for name, c in CONSTANTS.items() if name in kernel.arg_names}
    signature = {name: TYPES.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("hip", "gfx942", 64), options={"num_warps": 1})
    print(len(made.asm["hsaco"]) > 1000)
"""


def test_it_compiles_for_amd(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "True\n" * 5, done.stderr[-3000:]
