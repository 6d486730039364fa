"""Compiles a .cu file of kernels/ for the CPU and launches its kernels; see cuda_on_cpu.h."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from latentpack.kernels import cuda

HERE = Path(__file__).parent
# Of preprocessed text: the header turns __global__ into an attribute.
KERNEL = re.compile(r'extern "C" __attribute__\(\(used\)\) void\s+(\w+)\(')
SHARED = re.compile(r"extern thread_local (?:alignas\(\d+\) )?(\w+) (\w+)\[\];")
FLAGS = ["-x", "c++", "-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-Wall", "-fwrapv"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable"]
ROOM = 256 << 10


class Module:
    """The kernels of a file, as `latentpack.kernels.cuda.Module`, run by the CPU.

    Attributes:
        order: "up" or "down", the order in which the threads of a block take turns.
    """

    multiprocessors = 2

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        self.order = "up"

    def launch(self, kernel, grid, block, arguments, shared=0):
        """Run a kernel to its end; RuntimeError where it breaks a rule of the device."""
        launch = getattr(self._library, f"launch_{kernel}")
        launch.restype = ctypes.c_char_p
        values = [cuda.as_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        sizes = [(ctypes.c_uint * 3)(*cuda.three(size)) for size in (grid, block)]
        upward = ctypes.c_int(self.order == "up")
        error = launch(*sizes, ctypes.c_size_t(shared), pointers, upward)
        if error is not None:
            raise RuntimeError(f"{kernel}: {error.decode()}")


@functools.cache
def load(name):
    """Compile kernels/`name`, or skip the test where there is no compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or not shutil.which(compiler):
        pytest.skip("no C++ compiler: CUDA sources do not run on this CPU")
    return compiled(compiler, (cuda.FOLDER / name).read_text(), name)


def compiled(compiler, source, name="a test's source"):
    """The module of a source text."""
    flags = [*FLAGS, *os.environ.get("LATENTPACK_CUDA_ON_CPU_FLAGS", "").split()]
    flags += [f"-I{HERE}", f"-I{cuda.FOLDER}"]

    def run(arguments, text):
        command = [compiler, *flags, *arguments, "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{name} does not compile for the CPU:\n{done.stderr[-4000:]}")
        return done.stdout

    text = run(["-E"], f'#include "cuda_on_cpu.h"\n#line 1 "{name}"\n{source}\n')
    with tempfile.TemporaryDirectory(prefix="latentpack-cuda-") as folder:
        library = Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
        run(["-o", str(library)], text + _launchers(text))
        return Module(library)  # the file may go: it is mapped into memory


def _launchers(source):
    """C++ that defines the dynamic shared memory and a launcher for each kernel."""
    shared = SHARED.findall(source)
    assert len(shared) <= 1, "one extern __shared__ array in a file"
    kind, room = shared[0] if shared else ("char", "no_shared_memory")
    lines = [f"alignas(128) thread_local {kind} {room}[{ROOM} / sizeof({kind})];"]
    for kernel in KERNEL.findall(source):
        lines.append(
            f'extern "C" const char* launch_{kernel}(const unsigned* grid, const unsigned* block, '
            "size_t shared, void** arguments, int upward) {\n"
            f"  return cuda_on_cpu::launch({kernel}, grid, block, shared, arguments, upward,\n"
            f"      reinterpret_cast<unsigned char*>({room}), sizeof({room}));\n}}"
        )
    return "\n".join(lines)
