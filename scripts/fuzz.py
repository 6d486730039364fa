"""python scripts/fuzz.py [TARGET ...] [--count N] [--sanitize]: damaged input for every decoder.

Each target makes whole streams, then damages them: bits, bytes, cuts, joins, and, where a stream
has checksums, damage behind checksums that were made right again. A decoder must answer with
BitstreamError or ValueError, or with symbols; anything else (a crash, another exception) ends the
run, with the case in a file. `--sanitize` compiles the kernels with AddressSanitizer and
UndefinedBehaviorSanitizer first, and runs everything on that build.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
BUILT = "LATENTPACK_FUZZ_BUILD"  # the sanitized extension, told to the process that uses it
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1"

# A stream's parts as they are, and what decodes such parts.
Parts = list[bytes]
Seed = tuple[Parts, Callable[[Parts], object]]


def container() -> Iterator[Seed]:
    """Whole files of several tensors, through the public function; all they hold is checked."""
    import torch

    import latentpack

    x = {"a": torch.randn(3000).bfloat16(), "b": torch.arange(40), "c": torch.zeros(9)}

    def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
        return not torch.equal(a, b)

    def decode(parts: Parts) -> object:
        y = latentpack.decode(parts[0], threads=1)
        if not isinstance(y, dict) or [*y] != [*x] or any(map(differ, x.values(), y.values())):
            raise RuntimeError("a damaged file was taken for a whole one")
        return y

    for mode in ("fast", "tight", "small"):
        yield [latentpack.encode(x, mode=mode, threads=1)], decode


def planes() -> Iterator[Seed]:
    """Arrays of every layout and mode on every backend; head and coded bytes apart."""
    import numpy as np

    from latentpack.kernels import planes as kernel
    from latentpack.kernels import rans

    rng = np.random.default_rng(1)
    values = (rng.normal(size=6000) * 0.02).astype(np.float32)
    upper = values.view(np.uint16)[1::2].copy()
    upper[::37] = rng.integers(0, 1 << 16, len(upper[::37]))
    arrays = {
        (kernel.FLOAT, 2): upper.tobytes(),
        (kernel.FLOAT, 4): values.tobytes(),
        (kernel.NIBBLES, 1): (upper >> 6).astype(np.uint8).tobytes(),
        (kernel.BYTE_PLANES, 1): rng.normal(0, 20, 6000).astype(np.int8).tobytes(),
        (kernel.BYTE_PLANES, 2): values.astype(np.float16).tobytes(),
        (kernel.BYTE_PLANES, 8): np.arange(700, dtype=np.int64).tobytes(),
    }
    for ((layout, width), data), mode, chunk_log2 in itertools.product(
        arrays.items(), kernel.MODES, (8, 12)
    ):
        head, coded = kernel.encode(data, width, layout, mode, chunk_log2=chunk_log2)
        n = len(data) // width
        for backend in rans.backends()[1:]:
            yield [head, bytes(coded)], _planes_decoder(n, width, layout, backend)


def delta() -> Iterator[Seed]:
    """Differences from a base in every width, on every backend, behind checksums that are right."""
    import numpy as np

    from latentpack.kernels import delta as kernel
    from latentpack.kernels import rans

    class Trusting(kernel.Decoder):
        def _checked(self, record: Any, i: int) -> tuple[memoryview, memoryview]:
            middle = record.start + record.stream
            return self._coded[record.start : middle], self._coded[middle : middle + record.raw]

    rng = np.random.default_rng(1)
    for width, shift, bits in ((1, 3, 4), (2, 7, 8), (4, 23, 8), (8, 0, 0)):
        base = rng.normal(0, 3000, 900).astype(np.int64).astype(f"i{width}").view(f"u{width}")
        moves = (rng.geometric(0.1, 900) ** 2).astype(base.dtype)
        for rate, backend in itertools.product((0.005, 0.5), rans.backends()[1:]):
            moved = np.where(rng.random(900) < rate, base + moves, base)
            new, old = moved.astype(base.dtype).tobytes(), base.tobytes()
            measured = kernel.measure(new, old, width, [kernel.ULP, kernel.XOR], shift, bits)

            def decode(
                parts: Parts,
                base: Any = base,
                layout: tuple[int, ...] = (width, shift, bits),
                backend: str = backend,
            ) -> object:
                decoder = Trusting(parts[0], parts[1], len(base), *layout, backend=backend)
                out = np.empty_like(base)
                decoder.decode(base, out)
                return out

            yield [*kernel.encode(measured, new, old)], decode


def _planes_decoder(n: int, width: int, layout: int, backend: str) -> Callable[[Parts], object]:
    from latentpack.kernels import planes as kernel

    def decode(parts: Parts) -> object:
        head = _sealed(parts[0], parts[1], n, width, layout)
        decoder = kernel.Decoder(head, parts[1], n, width, layout, backend=backend)
        out = bytearray(n * width)
        decoder.decode(out)
        return out

    return decode


def _sealed(head: bytes, coded: bytes, n: int, width: int, layout: int) -> bytes:
    """The head with checksums that are right again, so that damage behind them is met."""
    from latentpack.kernels import planes_head_ref, planes_ref
    from latentpack.kernels.errors import BitstreamError

    try:
        *_, records = planes_head_ref.parse(head, len(coded), n, width, layout)
    except BitstreamError:
        return head
    for record in records:
        if record.form != planes_head_ref.FORM_CONST:
            new = planes_ref.checksum(coded[record.start : record.start + record.size])
            old = record.checksum.to_bytes(4, "little")
            head = head.replace(old, new.to_bytes(4, "little"), 1)
    return head


def rans() -> Iterator[Seed]:
    """Indexed streams of every number of lanes and several precisions; no checksum guards them."""
    import numpy as np

    from latentpack.entropy.tables import TableSet
    from latentpack.kernels import rans as kernel

    rng = np.random.default_rng(2)
    scales = [0.0, *np.geomspace(0.11, 32, 63)]
    index = rng.integers(0, 64, 3000).astype(np.uint8)
    symbols = np.rint(rng.normal(size=3000) * np.array(scales)[index]).astype(np.int16)
    symbols[index > 0] += np.where(rng.random(3000) < 0.01, 900, 0).astype(np.int16)[index > 0]
    for precision, lanes in itertools.product((10, 12, 16), (1, 4, 32)):
        tables = TableSet.gaussian(scales, precision)
        data = kernel.encode(tables, symbols, index, lanes=lanes)
        for backend in kernel.backends()[1:]:

            def decode(parts: Parts, tables: TableSet = tables, backend: str = backend) -> object:
                decoder = kernel.Decoder(tables, parts[0], backend=backend)
                found = decoder.get(index)
                decoder.finish()
                return found

            yield [data], decode


def channels() -> Iterator[Seed]:
    """Blocks of every element size and number of lanes into strided arrays; without checksums."""
    import numpy as np

    from latentpack.entropy.tables import TableSet
    from latentpack.kernels import channels as kernel
    from latentpack.kernels import rans

    rng = np.random.default_rng(3)
    tables = TableSet.from_pmfs([rng.random(n) for n in (40, 90, 200)], [0, 20, 0])
    for width, lanes in itertools.product((1, 2, 4), (1, 16, 32)):
        x = np.frombuffer(rng.bytes(3 * 70 * 8 * width), f"u{width}").reshape(3, 70, 8)
        layout = kernel.BYTE_PLANES if width == 1 else kernel.FLOAT
        classes = rng.integers(0, 3, 24 if width == 1 else 12).astype(np.uint8)
        tops = np.full(0 if width == 1 else 24, 140, np.uint8)
        part = kernel.Part(x.transpose(1, 0, 2), classes, tops)
        room = bytearray(10 * part.elements.nbytes)
        size = kernel.encode(tables, layout, [part, part], room, lanes=lanes)
        data = bytes(room[:size])
        for backend in rans.backends()[1:]:

            def decode(
                block: Parts,
                data: bytes = data,
                part: kernel.Part = part,
                layout: int = layout,
                backend: str = backend,
            ) -> object:
                out = [part._replace(elements=np.zeros_like(part.elements)) for _ in "kvkv"]
                whole = (data, out[:2])  # beside it, as two are decoded at once
                kernel.decode(tables, layout, [(block[0], out[2:]), whole], backend=backend)
                return out

            yield [data], decode


def fit() -> Iterator[Seed]:
    """Tiles of image/fit as a whole, and grids behind a context model; no checksum guards them."""
    import numpy as np

    from latentpack.codecs.image import fit_networks, fit_parameters, fit_prior, fit_stream
    from latentpack.kernels import fit as kernel
    from latentpack.kernels import rans

    rng = np.random.default_rng(3)
    priors, tables = fit_prior.load(), fit_prior.tables()
    prior = priors.at("fast", 3, 0)
    delta = rng.integers(-3, 4, fit_networks.count(fit_networks.PRESETS["fast"], 3))
    coded = fit_parameters.Coded(prior.q, 0 * prior.q, delta)
    grids = [rng.integers(-9, 10, shape).astype(np.int16) for shape in kernel.grid_shapes(19, 24)]
    whole = fit_stream.write(fit_stream.Tile(prior, 9, coded, grids), None)
    yield [whole[:3], whole[3:]], lambda parts: fit_stream.read(priors, b"".join(parts), 3, 19, 24)

    context = fit_parameters.context(prior, coded)
    stream = rans.encode(tables, *kernel.symbols(context, grids))
    for backend in rans.backends()[1:]:

        def decode(parts: Parts, backend: str = backend) -> object:
            decoder = rans.Decoder(tables, parts[0], backend=backend)
            return kernel.decode(context, decoder, 19, 24, [True] * 7)

        yield [stream], decode


def kv() -> Iterator[Seed]:
    """Whole pages of caches and their tables, through the public functions; all is checked."""
    import torch

    from latentpack.codecs.tensor.kv import KVTables, calibrate, decode_pages, encode_pages

    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        k, v = (torch.randn(2, 40, 2, 16).to(dtype) for _ in "kv")
        tables = calibrate([(k, v)], classes=4)

        def decode(parts: Parts, k: torch.Tensor = k, v: torch.Tensor = v) -> object:
            out = decode_pages(parts[0], KVTables.from_bytes(parts[1]), threads=1)
            for a, b in zip(out, (k, v), strict=True):
                if not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                    raise RuntimeError("damaged pages were taken for whole ones")
            return out

        yield [encode_pages(k, v, tables, page=16), tables.to_bytes()], decode


def sounds() -> Iterator[Seed]:
    """Packets of audio/lossless; samples are checked."""
    import numpy as np
    import torch

    from latentpack.codecs.audio.lossless import Lossless
    from latentpack.codecs.codec import Packet
    from latentpack.kernels.errors import BitstreamError

    rng = np.random.default_rng(4)
    tone = np.rint(9000 * np.sin(np.arange(120) / 9) + rng.normal(0, 30, (2, 120)))
    codec = Lossless(sample_rate=8000, threads=1)
    few = np.where(rng.random((2, 120)) < 0.1, 5000, tone // 900 * 107)
    known = [torch.from_numpy(samples.astype(np.int16)) for samples in (tone, few, tone // 9 * 8)]

    def decode(parts: Parts) -> object:
        packet = Packet(0, parts[0])
        if codec.describe(header, packet)["samples"] > 10000:
            raise BitstreamError("legal, but takes seconds")
        out = codec.decode(header, [packet])
        if not any(torch.equal(out, x) for x in known):
            raise RuntimeError("a damaged packet was taken for a whole one")
        return out

    for x in known:
        header = codec.header(x)
        (whole,) = codec.encode(x)
        yield [whole.body], decode


TARGETS: dict[str, Callable[[], Iterator[Seed]]] = {
    "channels": channels,
    "container": container,
    "delta": delta,
    "fit": fit,
    "kv": kv,
    "planes": planes,
    "rans": rans,
    "sounds": sounds,
}


def damaged(parts: Parts, others: Parts, rng: random.Random) -> Parts:
    """The parts with one to three mutations."""
    parts = list(parts)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        i = rng.randrange(len(parts))
        data = bytearray(parts[i])
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                data[at : at + 8] = rng.randbytes(8)
            case 6:
                data[at:] = others[i % len(others)][at:]
        parts[i] = bytes(data)
    return parts


def fuzz(name: str, count: int, seed: int) -> tuple[int, int]:
    """Run one target; how many cases were rejected, and how many gave a result."""
    rng = random.Random(f"{name} {seed}")
    seeds = list(TARGETS[name]())
    rejected = 0
    for case in range(count):
        parts, decode = rng.choice(seeds)
        broken = damaged(parts, rng.choice(seeds)[0], rng)
        try:
            decode(broken)
        except ValueError:
            rejected += 1
        except Exception:
            where = Path(tempfile.gettempdir()) / f"latentpack-fuzz-{name}-{seed}-{case}.bin"
            where.write_bytes(b"".join(len(p).to_bytes(4, "little") + p for p in broken))
            print(f"{name}: case {case} of seed {seed} is in {where}", file=sys.stderr)
            raise
    return rejected, count - rejected


def build(folder: Path) -> Path:
    """Compile the kernels with sanitizers; the extension's path."""
    code = "from setuptools import setup; setup()"
    env = {**os.environ, "CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS, "PYTHONPATH": ""}
    command = [sys.executable, "-c", code, "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(folder / "objects")]
    # GCC's own headers warn by the thousand in this mode: its words count if it fails.
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if made.returncode:
        raise click.ClickException(f"the kernels don't compile:\n{made.stderr[-3000:]}")
    return next(folder.rglob("_cpp*.so"))


def sanitized(arguments: list[str]) -> int:
    """Run this script again on kernels with sanitizers; its exit code."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ,
            BUILT: str(build(Path(folder))),
            "LD_PRELOAD": found,
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        }
        return subprocess.run([sys.executable, __file__, *arguments], env=env).returncode


def use(path: str) -> None:
    """Make `latentpack.kernels._cpp` the extension at this path."""
    name = "latentpack.kernels._cpp"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module


@click.command()
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option("--count", default=10_000, show_default=True, help="Mutations for each target.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other mutations.")
@click.option("--sanitize", is_flag=True, help="Compile the kernels with ASan and UBSan first.")
def main(targets: tuple[str, ...], count: int, seed: int, sanitize: bool) -> None:
    """Feed damaged streams to decoders; all of them unless some are named."""
    if sanitize:
        arguments = [*targets, "--count", str(count), "--seed", str(seed)]
        raise SystemExit(sanitized(arguments))
    if path := os.environ.get(BUILT):
        use(path)
    for name in targets or TARGETS:
        began = time.perf_counter()
        rejected, decoded = fuzz(name, count, seed)
        print(
            f"{name}: {count} mutations, {rejected} rejected, {decoded} decoded, "
            f"{time.perf_counter() - began:.0f} s{', sanitized' if path else ''}"
        )


if __name__ == "__main__":
    main()
