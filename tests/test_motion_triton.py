"""The Triton kernel of motion, in Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from latentpack.kernels import motion_ref
from latentpack.kernels.motion_ref import Field

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
motion_triton = pytest.importorskip("latentpack.kernels.motion_triton", reason="no Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [(np.uint8, 8), (np.int16, 10), (np.float32, 0)]


def case(size, scale, references, kind, bits, reach):
    rng = np.random.default_rng(1)
    shape = tuple(-(-n // scale) for n in size)
    h, w = (-(-n * scale // 8) for n in shape)
    v = rng.integers(-reach, reach + 1, (2, h, w, 2)).astype(np.int16)
    mode = rng.integers(0, 3, (h, w)).astype(np.uint8)
    field = Field(v, mode) if references == 2 else Field(v[0].copy())
    if kind == np.float32:
        refs = rng.standard_normal((references, 2, *shape)).astype(kind)
    else:
        refs = rng.integers(0, 1 << bits, (references, 2, *shape)).astype(kind)
    return refs, field


def warped(refs, field, scale, bits):
    mode = None if field.mode is None else torch.from_numpy(field.mode).to(DEVICE)
    out = motion_triton.warp(
        torch.from_numpy(refs).to(DEVICE), torch.from_numpy(field.vectors).to(DEVICE), mode,
        scale=scale, bits=bits or 8,
    )  # fmt: skip
    return out.cpu().numpy()


@pytest.mark.parametrize(("kind", "bits"), CASES)
@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize(
    ("size", "scale", "reach"), [((1, 1), 1, 9), ((3, 10), 1, 70), ((3, 5), 2, 32767)]
)
def test_warp_equals_the_definition(size, scale, reach, references, kind, bits):
    refs, field = case(size, scale, references, kind, bits, reach)
    found = warped(refs, field, scale, bits)
    if kind == np.float32:
        expected = motion_ref.warp_float(list(refs), field, scale)
        assert np.allclose(found, expected, rtol=0, atol=1e-6)
        return
    # motion_ref.warp takes luma first: planes of half the size stand behind one.
    luma = [np.zeros((2 * refs.shape[2], 2 * refs.shape[3]), kind)] if scale == 2 else []
    for plane in (0, 1):
        expected = motion_ref.warp([[*luma, one[plane]] for one in refs], field, bits)[-1]
        assert found.dtype == np.int16 and np.array_equal(found[plane], expected)


def test_wrong_arguments():
    refs, field = case((9, 21), 1, 2, np.uint8, 8, 9)
    bad = [
        lambda: warped(refs[:1], field, 1, 8),
        lambda: warped(refs, field, 8, 8),
        lambda: warped(refs.astype(np.float64), field, 1, 8),
        lambda: warped(refs, field._replace(vectors=field.vectors.astype(np.int32)), 1, 8),
        lambda: warped(refs, field._replace(mode=field.mode[:1]), 1, 8),
    ]
    for call in bad:
        with pytest.raises(ValueError):
            call()


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from latentpack.kernels import motion_triton as k

POINTERS = ("references", "vectors", "modes", "taps", "out")
NUMBERS = ("planes", "rows", "columns", "h", "w", "up")
CONSTANTS = {"PARTS": 4, "TAPS_": 8, "SIDE": 8, "TWO": True, "BOTH": 2, "MOST": 16383}
for target, floats in ((GPUTarget("cuda", 90, 32), False), (GPUTarget("hip", "gfx942", 64), True)):
    ends = ("*fp32", "*fp32") if floats else ("*u8", "*i16")
    signature = dict(zip(POINTERS, (ends[0], "*i16", "*u8", "*i32", ends[1])))
    constants = CONSTANTS | {"FLOATS": floats}
    signature |= dict.fromkeys(NUMBERS, "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(k._warp, signature, constexprs=constants)
    made = triton.compile(source, target=target, options={"num_warps": 1})
    print(target.backend, len(made.asm["ptx" if target.backend == "cuda" else "hsaco"]) > 1000)
"""


def test_it_compiles_for_nvidia_and_amd(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "cuda True\nhip True\n", done.stderr[-2000:]
