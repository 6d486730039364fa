"""The Triton kernels of byte planes, in Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentpack.kernels import planes
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.planes import FLOAT
from latentpack.kernels.planes_cuda import SHAPES, Packed

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
planes_triton = pytest.importorskip("latentpack.kernels.planes_triton", reason="no Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNK_LOG2 = 12  # 32 lanes for every layout, and not too many steps for the interpreter


def array(n, width, seed=0):
    """Ordinary, constant, outlying and random values: every form and mode."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(n) * 0.02).astype(np.float32)
    x[4096:8192] = 1.5
    x[5::701] = 1e20
    x.view(np.uint32)[8192:12288] = rng.integers(0, 1 << 32, len(x[8192:12288]), np.uint32)
    return x.view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes()


def packed_of(data, layout, width, mode="segments", chunk_log2=CHUNK_LOG2):
    head, coded = planes.encode(data, width, layout, mode, chunk_log2=chunk_log2)
    return Packed.from_host(head, bytes(coded), len(data) // width, width, layout, DEVICE)


def decoded(packed, chunks=None):
    """The elements, written between bytes that must stay as they are."""
    size = packed.elements(chunks) * packed.width
    room = torch.full((size + 64,), 0xA5, dtype=torch.uint8, device=DEVICE)
    planes_triton.decode(packed, room[32 : 32 + size], chunks)
    assert (room[:32] == 0xA5).all() and (room[32 + size :] == 0xA5).all()
    return room[32 : 32 + size].cpu().numpy().tobytes()


@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_decode(layout, width):
    data = array(4096, width)
    packed = packed_of(data, layout, width)
    assert decoded(packed) == data
    packed.check()


@pytest.mark.parametrize("mode", ["fast", "tight"])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_modes_and_ranges(layout, width, mode):
    data = array(12_307, width)[4000 * width :][: 900 * width]
    packed = packed_of(data, layout, width, mode, 8)
    assert decoded(packed) == data
    packed.check()
    assert decoded(packed, (1, 3)) == data[256 * width : 768 * width]


@pytest.mark.parametrize("n", [0, 1, 65, 193])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_small_arrays_and_few_lanes(layout, width, n):
    data = array(n, width, n)
    assert decoded(packed_of(data, layout, width, "tight", 6)) == data


def test_damage_is_found_or_harmless():
    rng = np.random.default_rng(1)
    data = array(200, 2)
    head, coded = planes.encode(data, 2, FLOAT, "segments", chunk_log2=7)
    found = 0
    for trial in range(8):
        packed = Packed.from_host(head, bytes(coded), 200, 2, FLOAT, DEVICE)
        if trial % 2:
            packed.coded[int(rng.integers(len(coded)))] ^= 1 << int(rng.integers(8))
        else:  # of a device, where nobody has checked them
            row, column = int(rng.integers(2)), int(rng.integers(10))
            packed.records[row, column] = int(rng.integers(-(1 << 31), 1 << 31))
        out = decoded(packed)
        try:
            packed.check()
        except BitstreamError:
            found += 1
        assert len(out) == len(data)
    assert found > 2


def test_damage_is_named():
    data = array(4096, 2)
    packed = packed_of(data, FLOAT, 2)
    packed.coded[4096 + 200] ^= 1  # words of the stream, behind the rests
    decoded(packed)
    with pytest.raises(BitstreamError, match="chunk 0 of 1 has a coded stream that is damaged"):
        packed.check()
    packed.check()  # asked once, answered once


def test_arguments():
    packed = packed_of(array(5000, 2), FLOAT, 2)
    with pytest.raises(ValueError, match=r"expected uint8 \[10000\]"):
        planes_triton.decode(packed, torch.empty(9999, dtype=torch.uint8, device=DEVICE))
    with pytest.raises(ValueError, match="range of 0 to 2"):
        decoded(packed, (1, 3))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from latentpack.kernels import planes_triton as k

U8, I32, I64 = "*u8", "*i32", "*i64"
NAMES = ("coded", "used", "records", "slots", "out", "error", "first", "n", "tables", "chunks")
TYPES = (U8, I64, I32, I32, U8, I64, "i32", "i32", "i32", "i32")
for target in (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    constants = {"LAYOUT": 1, "WIDTH": 2, "CHUNK": 8192}
    signature = dict(zip(NAMES, TYPES)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(k._decode, signature, constexprs=constants)
    made = triton.compile(source, target=target, options={"num_warps": 1})
    print(target.backend, len(made.asm["ptx" if target.backend == "cuda" else "hsaco"]) > 1000)
"""


def test_it_compiles_for_nvidia_and_amd(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "cuda True\nhip True\n", done.stderr[-2000:]
