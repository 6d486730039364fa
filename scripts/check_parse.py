"""python scripts/check_parse.py FILE.lpk...: whether video parses to the same integers everywhere.

Parses each file as it is here, and again with other numbers of threads, without oneDNN, with values
rounded to bfloat16 and with noise in every operation of floats, two groups of pictures at once, and
in processes whose libraries believe in older CPUs; on a GPU too where there is one and the codec
can. Of codecs whose `parse` gives the integers of a group these are compared, of others the decoded
samples, which then must be equal to the last bit. Prints a digest for each file: another machine
must print the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import xxhash
from torch.overrides import TorchFunctionMode

from latentpack.codecs import registry
from latentpack.codecs.container import Reader
from latentpack.codecs.video.gop_times import read_times
from latentpack.codecs.video.gops import parse_header
from latentpack.scripts.bench import show
from latentpack.scripts.codec_options import make_codec

_NOISE = 1e-4
_EXACT = 1 << 24  # below it float32 holds all integers
_FLOAT_OPERATIONS = ("conv", "mul", "add", "sub", "div", "exp", "relu", "silu", "norm", "interp")
_OLDER = {"avx2": "AVX2", "default": "SSE41"}  # torch's name of a capability, oneDNN's
Digests = list[tuple[int, str]]  # of each group: how many integers, and their digest


def integers(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """All integers in what a codec's `parse` gave, in order.

    Raises:
        ValueError: there is a float among them, or what is no number.
    """
    if isinstance(value, torch.Tensor):
        value = value.cpu().numpy()
    if isinstance(value, (bool, int)):
        value = np.array(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iub":
            raise ValueError(
                f"a parse gave values of {value.dtype}, which machines may round apart"
            )
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from integers([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, dict):
        yield from integers(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from integers(part)
    elif value is not None:
        raise ValueError(f"a parse gave {type(value).__name__}, expected integers")


def digests(data: bytes, at_once: int = 1, **options: Any) -> Digests:
    """Of each group of pictures of a file: how many integers it holds, and their digest.

    Args:
        data: the file.
        at_once: groups that are parsed at the same time.
        options: of the codec, as far as it has them.
    """
    reader = Reader(data)
    loaded = registry.load(reader.codec_id)
    known = registry.parameters(loaded)
    codec: Any = make_codec(loaded, {n: v for n, v in options.items() if n in known})
    params = reader.params
    format, most = parse_header(params, codec.read_format)
    packets = [packet for packet in reader.packets() if isinstance(packet.key, int)]

    def one(body: bytes) -> tuple[int, str]:
        times, payload = read_times(body, most)
        parse = codec.parse if hasattr(codec, "parse") else codec.decode_gop
        with torch.inference_mode():
            found = parse(params, payload, format, len(times.pts))
            return _digest(list(found))

    bodies = [packet.body for packet in packets]
    if at_once == 1:  # here: modes and numbers of threads are a thread's own
        return [one(body) for body in bodies]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, bodies))


def _digest(value: Any) -> tuple[int, str]:
    hashed, count = xxhash.xxh3_128(), 0
    for array in integers(value):
        hashed.update(np.ascontiguousarray(array.astype("<i8")).tobytes())
        count += array.size
    return count, hashed.hexdigest()


class OtherFloats(TorchFunctionMode):
    """A machine whose operations of floats give other results.

    What is exact on every machine stays: matrix products and float64, which only the integer path
    uses, on integers, and results that are whole numbers below 2**24.

    Args:
        change: result -> what the other machine gets.
    """

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._change = change

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__
        changed = any(part in name for part in _FLOAT_OPERATIONS) and "matmul" not in name
        if changed and isinstance(out, torch.Tensor) and not name.endswith("_"):
            with torch._C.DisableTorchFunction():
                if out.dtype == torch.float32 and not _is_whole(out):
                    return self._change(out)
        return out


def _is_whole(x: torch.Tensor) -> bool:
    return bool(((x == x.round()) & (x.abs() < _EXACT)).all())


def _noisy(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + _NOISE * (2 * torch.rand_like(x) - 1))


def _rounded(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().to(x.dtype)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_older_cpu(paths: Sequence[Path], capability: str) -> list[Digests]:
    """The digests of files in a process whose libraries believe in an older CPU.

    Args:
        paths: of the files.
        capability: "avx2" or "default".
    """
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": _OLDER[capability],
        "MKL_ENABLE_INSTRUCTIONS": "AVX2" if capability == "avx2" else "SSE4_2",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    code = "import sys; from latentpack.scripts.check_parse import tell; tell(sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, env=environment)
    if run.returncode:
        raise RuntimeError(f"parsing as an older CPU failed: {run.stderr.decode()[-300:]}")
    return [[(count, digest) for count, digest in file] for file in json.loads(run.stdout)]


def tell(paths: Sequence[str]) -> None:
    """Print the digests of files as JSON, for another process."""
    with _threads(1):
        print(json.dumps([digests(Path(path).read_bytes()) for path in paths]))


def matrix(path: Path, subprocesses: bool = True) -> dict[str, Digests]:
    """The digests of a file under all conditions; the first is how it is.

    Args:
        path: of the file.
        subprocesses: also as older CPUs.
    """
    data = path.read_bytes()
    found: dict[str, Digests] = {}
    for count in (1, 2):
        with _threads(count):
            found[f"{count} thread{'s' if count > 1 else ''}"] = digests(data, threads=count)
    with _threads(1):
        found["two groups at once"] = digests(data, at_once=2)
        with torch.backends.mkldnn.flags(enabled=False):
            found["without oneDNN"] = digests(data)
        for name, change in {"bfloat16": _rounded, "noise of 1e-4": _noisy}.items():
            with OtherFloats(change):
                found[name] = digests(data)
    if subprocesses:
        for capability in _OLDER:
            (found[f"CPU as {capability}"],) = as_older_cpu([path], capability)
    if torch.cuda.is_available():
        found["GPU"] = digests(data, device="cuda")
    return found


def differing(found: dict[str, Digests]) -> list[str]:
    """The conditions under which a group differs from the first."""
    first = next(iter(found.values()))
    return [name for name, these in found.items() if these != first]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def check_parse(paths: tuple[Path, ...], as_json: bool) -> None:
    """Parse videos in every way there is here; fails where integers differ."""
    rows = []
    for path in paths:
        found = matrix(path)
        first = next(iter(found.values()))
        whole = xxhash.xxh3_128_hexdigest("".join(digest for _, digest in first).encode())
        wrong = differing(found)
        rows.append(
            {
                "file": path.name,
                "codec": registry.codec_name(Reader(path.read_bytes()).codec_id),
                "groups": len(first),
                "integers": sum(count for count, _ in first),
                "digest": whole,
                "conditions": len(found),
                "differ": ", ".join(wrong) or "none",
            }
        )
    show("Integers of videos under all conditions", rows, as_json)
    if any(row["differ"] != "none" for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    check_parse()
