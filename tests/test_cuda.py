"""CUDA sources: they compile for the devices we know, and the CPU that runs them is a fair one."""

import ctypes
import shutil

import numpy as np
import pytest

from latentpack.kernels import cuda
from latentpack.tests import cuda_on_cpu

SOURCES = sorted(path.name for path in cuda.FOLDER.glob("*.cu"))

KERNELS = r"""
extern __shared__ unsigned room[];

extern "C" __global__ void __launch_bounds__(128) sums(const unsigned* in, unsigned* out, int n) {
  __shared__ unsigned parts[4];
  const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
  unsigned v = i < n ? in[i] : 0;
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  if (lane == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = parts[0] + parts[1] + parts[2] + parts[3];
}
extern "C" __global__ void intrinsics(unsigned* out) {
  const unsigned lane = threadIdx.x;
  const unsigned odd = __ballot_sync(~0u, lane & 1);
  unsigned v = odd ^ __shfl_up_sync(~0u, lane, 1) << 8 ^ __popc(odd & ((1u << lane) - 1)) << 16;
  if (lane < 8) v += __shfl_down_sync(0xFFu, lane, 1, 8) + __reduce_add_sync(0xFFu, lane);
  v ^= __byte_perm(0x33221100, 0x77665544, 0x7250) ^ __funnelshift_r(lane, 1, 4) ^ __clz(lane);
  out[lane] = v + __match_any_sync(~0u, lane / 3) + __ffs(lane);
}
// Each warp waits for the one with the smaller ticket.
extern "C" __global__ void look_back(unsigned* ticket, volatile unsigned* sums) {
  const unsigned lane = threadIdx.x & 31;
  unsigned own = 0;
  if (lane == 0) own = atomicAdd(ticket, 1u);
  own = __shfl_sync(~0u, own, 0);
  while (own && !__any_sync(~0u, sums[own - 1])) __nanosleep(20);
  if (lane == 0) sums[own] = own + (own ? sums[own - 1] : 1);
}
extern "C" __global__ void race(unsigned* out) {
  room[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = room[threadIdx.x ^ 1];
}
extern "C" __global__ void beyond(int at) { room[at] = 1; }
extern "C" __global__ void nobody() {
  if (threadIdx.x < 8) __syncwarp();
  else __syncthreads();
}
extern "C" __global__ void different() {
  if (threadIdx.x < 8) __syncwarp();
  else __ballot_sync(~0u, 1);
}
extern "C" __global__ void gone() {
  if (threadIdx.x < 8) return;
  __syncwarp();
}
"""


@pytest.fixture(scope="module")
def compiled():
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    return cuda_on_cpu.compiled(compiler, KERNELS)


@pytest.fixture
def module(compiled):
    compiled.order = "up"
    return compiled


# Of an older device one file, because compiling all takes a minute.
COMPILED = [(name, "sm_90") for name in SOURCES] + [("planes_tables.cu", "sm_80")]


@pytest.mark.parametrize(("name", "arch"), COMPILED)
def test_sources_compile(name, arch):
    pytest.importorskip("cuda.bindings.nvrtc", reason="no NVRTC: pip install cuda-bindings")
    code, said = cuda.compile_source(name, arch)
    assert code[:4] == b"\x7fELF"
    spills = [line for line in said.splitlines() if "spill stores" in line]
    assert spills and all("0 bytes spill stores, 0 bytes spill loads" in s for s in spills), said


def test_machine_code_is_kept(tmp_path, monkeypatch):
    pytest.importorskip("cuda.bindings.nvrtc", reason="no NVRTC: pip install cuda-bindings")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda, "FOLDER", tmp_path)
    (tmp_path / "a.cu").write_text('#include "b.cuh"\nextern "C" __global__ void k() { f(); }')
    (tmp_path / "b.cuh").write_text("__device__ void f() {}")
    code = cuda.machine_code("a.cu", "sm_90")
    (kept,) = (tmp_path / "latentpack").iterdir()
    kept.write_bytes(b"kept")
    assert cuda.machine_code("a.cu", "sm_90") == b"kept" != code
    (tmp_path / "b.cuh").write_text("__device__ void f() { __syncthreads(); }")
    assert cuda.machine_code("a.cu", "sm_90") != b"kept"
    (tmp_path / "b.cuh").write_text("__device__ void f() { nonsense }")
    with pytest.raises(RuntimeError, match=r"(?s)a.cu does not compile for sm_90.*nonsense"):
        cuda.machine_code("a.cu", "sm_90")


def test_a_device_is_asked_for():
    with pytest.raises(ValueError, match="device is cpu, expected a CUDA device"):
        cuda.load("planes.cu", "cpu")


@pytest.mark.parametrize("order", ["up", "down"])
def test_blocks_barriers_and_warps(module, order):
    module.order = order
    values = np.arange(300, dtype=np.uint32)
    out = np.zeros(3, np.uint32)
    module.launch("sums", 3, 128, [values, out, ctypes.c_int(300)])
    assert out.tolist() == [values[i : i + 128].sum() for i in (0, 128, 256)]
    many = np.zeros(32, np.uint32)
    module.launch("look_back", 4, 256, [np.zeros(1, np.uint32), many])
    assert many.tolist() == [1 + i * (i + 1) // 2 for i in range(32)]


def test_intrinsics(module):
    out = np.zeros(32, np.uint32)
    module.launch("intrinsics", 1, 32, [out])
    for lane in range(32):
        odd = 0xAAAAAAAA
        v = odd ^ max(lane - 1, 0) << 8 ^ bin(odd & ((1 << lane) - 1)).count("1") << 16
        if lane < 8:
            v = v + min(lane + 1, 7) + 28 & 0xFFFFFFFF
        v ^= 0x77225500 ^ ((1 << 32 | lane) >> 4 & 0xFFFFFFFF) ^ 32 - lane.bit_length()
        match = sum(1 << i for i in range(32) if i // 3 == lane // 3)
        assert out[lane] == v + match + (lane & -lane).bit_length() & 0xFFFFFFFF


def test_races_show_in_one_of_the_orders(module):
    out = np.zeros((2, 32), np.uint32)
    for row, module.order in zip(out, ("up", "down"), strict=True):
        module.launch("race", 1, 32, [row], shared=128)
    assert not np.array_equal(out[0], out[1])


@pytest.mark.parametrize(
    ("kernel", "arguments", "message"),
    [
        ("beyond", [ctypes.c_int(2)], "beyond its size"),
        ("nobody", [], "nobody can go on"),
        ("different", [], "different warp intrinsics"),
        ("gone", [], "lanes that are gone"),
    ],
)
def test_broken_rules_are_errors(module, kernel, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        module.launch(kernel, 1, 32, arguments, shared=8)
