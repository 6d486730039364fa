"""python scripts/bench_coder.py [--quick] [--json]: the indexed coder beside its peers.

Codes latents of a Gaussian whose scale changes from symbol to symbol, one thread, all coders
interleaved in one run. `overhead_percent` is what the real bytes exceed the cross-entropy at the
true scales by: tables, rounding of scales to rows, lanes and flush included.

With a GPU, a second table: the same latents there, as batches of streams, from float latents to
packed bytes and back, by device events, beside a copy of the float latents on the device.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

from latentpack.entropy import streams
from latentpack.entropy.coder import Decoder, Encoder
from latentpack.entropy.tables import TableSet, default_gaussian_scales
from latentpack.kernels import rans, rans_device
from latentpack.scripts.bench import interleaved, show

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Symbols [C, H, W] drawn from N(0, scales**2), rounded."""

    symbols: npt.NDArray[np.int16]
    scales: npt.NDArray[np.float64]

    @property
    def entropy_bits(self) -> float:
        """The cross-entropy of the symbols at the true scales."""
        edge = torch.from_numpy(np.abs(self.symbols).astype(np.float64))
        scale = torch.from_numpy(self.scales) * math.sqrt(2)
        low, high = (
            torch.special.erfc((edge - 0.5) / scale),
            torch.special.erfc((edge + 0.5) / scale),
        )
        return float(-torch.log2(torch.where(edge == 0, 1 - high, (low - high) / 2)).sum())


@dataclass(frozen=True)
class Coder:
    """One way to code a case: both directions, and the bytes."""

    name: str
    encode: Callable[[], Any]
    decode: Callable[[], Any]
    size: int


def latent(channels: int, height: int, width: int, log_scale: float) -> Case:
    """A latent whose log-scale is a channel's, plus a smooth field, plus white noise."""
    rng = np.random.default_rng(channels)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, height // 8 + 2, width // 8 + 2)))
    smooth = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=True
    )[0].numpy()
    log = log_scale + rng.normal(0, 1.1, (channels, 1, 1)) + 0.5 * smooth
    scales = np.exp(log + rng.normal(0, 0.35, (channels, height, width))).clip(0.11)
    symbols = np.rint(rng.normal(size=scales.shape) * scales).astype(np.int16)
    return Case(symbols, scales)


def ours(case: Case) -> list[Coder]:
    """Sessions of latentpack with every compiled backend."""
    levels = default_gaussian_scales()
    tables = TableSet.gaussian(levels)
    # The nearest level in the log domain.
    rows = np.searchsorted(np.sqrt(levels[1:] * levels[:-1]), case.scales).astype(np.uint8)
    coders = []
    for backend in rans.backends()[1:]:

        def encode(backend: str = backend) -> bytes:
            encoder = Encoder(tables, backend=backend)
            encoder.put(case.symbols, rows)
            return encoder.finish()

        data = encode()

        def decode(backend: str = backend, data: bytes = data) -> torch.Tensor:
            decoder = Decoder(tables, data, backend=backend)
            symbols = decoder.get(rows)
            decoder.finish()
            return symbols

        same(decode().numpy(), case)
        coders.append(Coder(f"latentpack {backend}", encode, decode, len(data)))
    return coders


def compressai(case: Case) -> list[Coder]:
    """GaussianConditional with its default table; then its C++ alone, with lists at hand."""
    from compressai.entropy_models import GaussianConditional
    from compressai.models.google import get_scale_table

    model = GaussianConditional(None)
    model.update_scale_table(get_scale_table(), force=True)
    model.update()
    y = torch.from_numpy(case.symbols.astype(np.float32))[None]
    rows = model.build_indexes(torch.from_numpy(case.scales.astype(np.float32)))[None]
    strings = model.compress(y, rows)
    same(model.decompress(strings, rows)[0].numpy(), case)
    tables = [t.tolist() for t in (model.quantized_cdf, model.cdf_length, model.offset)]
    symbols, index = y.flatten().int().tolist(), rows.flatten().int().tolist()
    inner = model.entropy_coder
    size = len(strings[0])
    return [
        Coder(
            "compressai",
            lambda: model.compress(y, rows),
            lambda: model.decompress(strings, rows),
            size,
        ),
        Coder(
            "compressai, C++ only",
            lambda: inner.encode_with_indexes(symbols, index, *tables),
            lambda: inner.decode_with_indexes(strings[0], index, *tables),
            size,
        ),
    ]


def constriction(case: Case) -> list[Coder]:
    """AnsCoder with a QuantizedGaussian per symbol; then one call per row, symbols sorted."""
    import constriction as library  # its submodules cannot be imported by name

    stack, QuantizedGaussian = library.stream.stack, library.stream.model.QuantizedGaussian
    top = int(np.abs(case.symbols).max())
    family = QuantizedGaussian(-top, top)
    symbols, scales = case.symbols.ravel().astype(np.int32), case.scales.ravel()
    means = np.zeros_like(scales)
    levels = default_gaussian_scales()
    rows = np.searchsorted(np.sqrt(levels[1:] * levels[:-1]), scales).astype(np.uint8)
    fixed = [QuantizedGaussian(-top, top, 0.0, level) for level in levels]

    def encode() -> Array:
        coder = stack.AnsCoder()
        coder.encode_reverse(symbols, family, means, scales)
        return coder.get_compressed()  # type: ignore[no-any-return]

    def encode_sorted() -> Array:
        coder = stack.AnsCoder()
        order = np.argsort(rows, kind="stable")
        parts = np.split(symbols[order], np.cumsum(np.bincount(rows, minlength=len(levels))))
        for model, part in zip(fixed[::-1], parts[-2::-1], strict=True):
            coder.encode_reverse(part, model)
        return coder.get_compressed()  # type: ignore[no-any-return]

    data, data_sorted = encode(), encode_sorted()

    def decode() -> Array:
        return stack.AnsCoder(data).decode(family, means, scales)  # type: ignore[no-any-return]

    def decode_sorted() -> Array:
        coder = stack.AnsCoder(data_sorted)
        counts = np.bincount(rows, minlength=len(levels)).tolist()
        parts = [coder.decode(model, n) for model, n in zip(fixed, counts, strict=True)]
        out = np.empty_like(symbols)
        out[np.argsort(rows, kind="stable")] = np.concatenate(parts)
        return out

    same(decode(), case)
    same(decode_sorted(), case)
    return [
        Coder("constriction", encode, decode, data.nbytes),
        Coder("constriction, sorted", encode_sorted, decode_sorted, data_sorted.nbytes),
    ]


def same(decoded: Array, case: Case) -> None:
    """A benchmark of a coder that loses symbols is worth nothing."""
    if not np.array_equal(decoded.ravel(), case.symbols.ravel()):
        raise RuntimeError("a coder gave back other symbols than it was given")


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """Every coder on one case, the best of all rounds."""
    coders = [*ours(case), *compressai(case), *constriction(case)]
    calls = {f"{c.name} {way}": getattr(c, way) for c in coders for way in ("encode", "decode")}
    best = {name: min(times) for name, times in interleaved(calls, rounds).items()}
    bits = case.entropy_bits
    size = case.symbols.size
    label = f"{bits / size:.2f} bit, {bits / 8192:.0f} KiB"
    base = {way: best[f"compressai {way}"] for way in ("encode", "decode")}
    return [
        {
            "codec": coder.name,
            "case": label,
            "encode_msym_s": size / best[f"{coder.name} encode"] / 1e6,
            "decode_msym_s": size / best[f"{coder.name} decode"] / 1e6,
            "overhead_percent": 100 * (8 * coder.size / bits - 1),
            "encode_vs_compressai": base["encode"] / best[f"{coder.name} encode"],
            "decode_vs_compressai": base["decode"] / best[f"{coder.name} decode"],
        }
        for coder in coders
    ]


def fixed_cost(rounds: int) -> dict[str, float]:
    """Microseconds for one symbol: a session of ours and a call of CompressAI's."""
    case = Case(np.ones((1, 1, 1), np.int16), np.ones((1, 1, 1)))
    # One symbol corrupts CompressAI's heap: it gets two.
    coders = [ours(case)[-1], compressai(latent(1, 1, 2, 0.0))[0]]
    calls = {f"{c.name} {way}": getattr(c, way) for c in coders for way in ("encode", "decode")}
    return {name: 1e6 * min(times) for name, times in interleaved(calls, rounds).items()}


def latents(case: Case, rounds: int) -> dict[str, float]:
    """Million latents a second from floats and scales to a stream: ours, and with torch's ops."""
    levels = default_gaussian_scales()
    tables = TableSet.gaussian(levels)
    limits = torch.from_numpy(np.sqrt(levels[1:] * levels[:-1]).astype(np.float32))
    y, scales = (torch.from_numpy(a.astype(np.float32))[None] for a in (case.symbols, case.scales))
    means = torch.full_like(y, 0.25)
    y += means

    def fused() -> bytes:
        coded, _ = streams.encode_latents(tables, y, scales, means, boundaries=limits)
        return coded.to_bytes()[0]

    def in_steps() -> bytes:
        rows = torch.bucketize(scales, limits, out_int32=True).to(torch.uint8)
        q = (y - means).round().clamp(-(2**15), 2**15 - 1)
        _ = q + means
        encoder = Encoder(tables)
        encoder.put(q.to(torch.int16), rows)
        return encoder.finish()

    if fused() != in_steps():
        raise RuntimeError("two ways to code latents differ")
    times = interleaved({"encode_latents": fused, "torch and a session": in_steps}, rounds)
    return {name: y.numel() / min(seconds) / 1e6 for name, seconds in times.items()}


def event_seconds(call: Callable[[], object], rounds: int) -> float:
    """The median of a call on the GPU's own clock."""
    event: Any = torch.cuda.Event
    times: list[float] = []
    for _ in range(rounds + 3):
        began, ended = (event(enable_timing=True) for _ in range(2))
        began.record()
        call()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended) / 1e3)
    return statistics.median(times[3:])


def measure_gpu(
    case: Case,
    batch: int,
    rounds: int,
    device: str = "cuda",
    seconds: Callable[[Callable[[], object], int], float] = event_seconds,
) -> list[dict[str, Any]]:
    """Both device backends on a batch of one case, a stream for each item."""
    levels = default_gaussian_scales()
    tables = TableSet.gaussian(levels)
    limits = torch.from_numpy(np.sqrt(levels[1:] * levels[:-1]).astype(np.float32)).to(device)
    y, scales = (
        torch.from_numpy(part.astype(np.float32)).to(device).expand(batch, -1, -1, -1).contiguous()
        for part in (case.symbols, case.scales)
    )
    rows = torch.bucketize(scales, limits).to(torch.uint8)
    copy = seconds(y.clone, rounds)
    found = []
    for backend in rans_device.BACKENDS:

        def encode(backend: str = backend) -> tuple[streams.Coded, torch.Tensor]:
            options: dict[str, Any] = {"boundaries": limits, "backend": backend}
            return streams.encode_latents(tables, y, scales, **options)

        coded, y_hat = encode()

        def decode(
            backend: str = backend, coded: streams.Coded = coded
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return streams.decode_latents(tables, coded, rows, backend=backend)

        decoded, status = decode()
        streams.check(status)
        same(decoded[0].cpu().numpy(), case)
        if not torch.equal(decoded, y_hat):
            raise RuntimeError("the streams of a batch differ")
        times = seconds(encode, rounds), seconds(decode, rounds)
        found.append(
            {
                "backend": backend,
                "case": f"{case.entropy_bits / case.symbols.size:.2f} bit",
                "streams": batch,
                "encode_msym_s": y.numel() / times[0] / 1e6,
                "decode_msym_s": y.numel() / times[1] / 1e6,
                "encode_ms": 1e3 * times[0],
                "decode_ms": 1e3 * times[1],
                "encode_vs_copy": copy / times[0],
                "decode_vs_copy": copy / times[1],
            }
        )
    return found


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: less than a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
def bench_coder(quick: bool, as_json: bool) -> None:
    """Indexed Gaussian latents: speed and overhead beside CompressAI and constriction."""
    torch.set_num_threads(1)
    rounds = 4 if quick else 20
    cases = [latent(192, 32, 48, -1.7), latent(320, 32, 48, -0.65), latent(1024, 32, 32, 0.1)]
    rows = [row for case in cases for row in measure(case, rounds)]
    gpu = []
    if torch.cuda.is_available():
        gpu = [row for case in cases for n in (1, 16, 64) for row in measure_gpu(case, n, rounds)]
        show("Latents on the GPU, from floats to packed streams and back", gpu, False)
    title = f"Indexed coding, 1 thread, best CPU time of {rounds} interleaved rounds"
    extra = {"fixed_cost_us": fixed_cost(rounds), "latents_msym_s": latents(cases[1], rounds)}
    show(title, rows, as_json, **extra, gpu=gpu)


if __name__ == "__main__":
    bench_coder()
