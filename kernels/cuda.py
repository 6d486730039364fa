"""CUDA C++ at run time: compiles a .cu file of this folder with NVRTC and launches its kernels.

The machine code is kept on disk (`$XDG_CACHE_HOME/latentpack`, else `~/.cache/latentpack`) under a
digest of the source, its headers, the architecture and the compiler. NVRTC and the driver are
reached through `cuda.bindings`, which torch's CUDA builds bring along; both are imported when they
are used. A launch goes to torch's current stream and waits for nothing.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
STATIC_SHARED = 48 << 10  # what a block may have without asking
_INCLUDE = re.compile(r'^#include "([\w.]+)"', re.MULTILINE)

Size = int | tuple[int, ...]

_of_thread = threading.local()


def three(size: Size) -> tuple[int, int, int]:
    """The three sizes of a grid or a block."""
    sizes = size if isinstance(size, tuple) else (size,)
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


def as_argument(value: Any) -> Any:
    """A kernel's argument: ctypes objects as they are; tensors and NumPy arrays as pointers."""
    if hasattr(value, "data_ptr"):
        return ctypes.c_void_p(value.data_ptr())
    if hasattr(value, "ctypes"):
        return ctypes.c_void_p(value.ctypes.data)
    if value is None:
        return ctypes.c_void_p(0)
    return value


def sources(name: str) -> dict[str, str]:
    """The text of a file of this folder and of the headers it includes, by name."""
    found: dict[str, str] = {}
    wanted = [name]
    while wanted:
        file = wanted.pop()
        if file not in found:
            found[file] = (FOLDER / file).read_text(encoding="utf-8")
            wanted += _INCLUDE.findall(found[file])
    return found


def compile_source(name: str, arch: str) -> tuple[bytes, str]:
    """Machine code of a .cu file, and what the compiler says about it.

    Args:
        name: a file of this folder.
        arch: "sm_80", "sm_90", ...

    Raises:
        RuntimeError: there is no NVRTC, or the file does not compile.
    """
    nvrtc = _nvrtc()
    files = sources(name)
    text = files.pop(name)
    headers, names = list(files.values()), list(files)
    program = _checked(
        nvrtc.nvrtcCreateProgram(
            text.encode(),
            name.encode(),
            len(headers),
            [header.encode() for header in headers],
            [header.encode() for header in names],
        )
    )
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v"]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
    _checked(nvrtc.nvrtcGetProgramLog(program, log))
    said = log.decode(errors="replace").rstrip("\0 \n")
    if error:
        raise RuntimeError(f"{name} does not compile for {arch}:\n{said}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code, said


def machine_code(name: str, arch: str) -> bytes:
    """What `compile_source` makes, from the disk if it has been there before."""
    version = ".".join(map(str, _checked(_nvrtc().nvrtcVersion())))
    digest = hashlib.sha256(f"{arch} {version}".encode())
    for file, text in sorted(sources(name).items()):
        digest.update(f"\0{file}\0{text}".encode())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "latentpack" / f"{name.removesuffix('.cu')}-{digest.hexdigest()[:32]}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        code, _ = compile_source(name, arch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(code)
        part.replace(path)
    except OSError:
        pass  # a home that can't be written to: compiled again next time
    return code


class Module:
    """The kernels of a file on a device.

    Attributes:
        multiprocessors: of the device.
    """

    def __init__(self, name: str, device: int) -> None:
        import torch

        major, minor = torch.cuda.get_device_capability(device)
        code = machine_code(name, f"sm_{major}{minor}")
        self._device = device
        self.multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        with torch.cuda.device(device):
            _enter(device)
            self._module = _checked(_driver().cuModuleLoadData(code))
        self._kernels: dict[str, Any] = {}
        self._shared: dict[str, int] = {}

    def launch(
        self, kernel: str, grid: Size, block: Size, arguments: Sequence[Any], shared: int = 0
    ) -> None:
        """Start a kernel on torch's current stream of the device.

        Args:
            kernel: its name.
            grid: blocks, as a number or up to three; nothing starts if it is 0.
            block: threads of a block.
            arguments: tensors (their pointer is passed; they must stay alive as torch's own
                operands) and ctypes objects, of exactly the types of the parameters.
            shared: bytes of dynamic shared memory.

        Raises:
            RuntimeError: the driver refuses.
        """
        import torch

        driver = _driver()
        blocks, threads = three(grid), three(block)
        if 0 in blocks:
            return
        values = [as_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        with torch.cuda.device(self._device):
            _enter(self._device)
            if kernel not in self._kernels:
                name = kernel.encode()
                self._kernels[kernel] = _checked(driver.cuModuleGetFunction(self._module, name))
            function = self._kernels[kernel]
            if shared > max(STATIC_SHARED, self._shared.get(kernel, 0)):
                attribute = driver.CUfunction_attribute
                what = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                _checked(driver.cuFuncSetAttribute(function, what, shared))
                self._shared[kernel] = shared
            stream = torch.cuda.current_stream(self._device).cuda_stream
            address = ctypes.addressof(pointers)
            _checked(driver.cuLaunchKernel(function, *blocks, *threads, shared, stream, address, 0))


def load(name: str, device: Any) -> Module:
    """The kernels of a file of this folder on a torch device; compiled and loaded once."""
    import torch

    which = torch.device(device)
    if which.type != "cuda":
        raise ValueError(f"device is {which}, expected a CUDA device")
    index = torch.cuda.current_device() if which.index is None else which.index
    return _load(name, index)


@functools.cache
def _load(name: str, index: int) -> Module:
    return Module(name, index)


def _enter(device: int) -> None:
    """Let the driver know torch's context in this thread: torch makes it when it is used."""
    import torch

    known: set[int] = _of_thread.__dict__.setdefault("devices", set())
    if device not in known:
        torch.cuda.current_stream(device).query()
        known.add(device)


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise RuntimeError(
            f"no NVRTC: {error}. pip install cuda-bindings, or a CUDA torch"
        ) from error
    return nvrtc


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise RuntimeError(f"no CUDA driver: {error}. pip install cuda-bindings") from error
    return driver


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call returns beside its error; RuntimeError if there was one."""
    error, *values = result
    if int(error):
        raise RuntimeError(f"{type(error).__name__} {error.name}")
    return values[0] if len(values) == 1 else tuple(values)
