"""python scripts/bench_compressai.py [--quick] [--json] [--weights my.pth]: beside CompressAI.

The same model, picture and latents, through CompressAI's own coder and through latentpack's, one
thread, interleaved, CPU time. "entropy" is the way from latents, means and table indexes to bytes
and back (not for autoregressive models, where networks run between symbols); "with indexes" finds
the indexes as well. "encode" and "decode" go from picture to bytes and back.

Without --weights networks of the real sizes have random weights, with latents spread like those of
trained ones: times are those of trained networks, bytes are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from compressai.models import JointAutoregressiveHierarchicalPriors
from compressai.registry import MODELS
from torch import Tensor

from latentpack.codecs.image.compressai_checkpoint import load_checkpoint
from latentpack.codecs.image.compressai_model import Bridge, using
from latentpack.codecs.image.compressai_session import Decoding, Encoding
from latentpack.datasets.images import read_image
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.showcase import SAMPLE

Cases = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]  # CompressAI's call, and ours
Rows = list[dict[str, Any]]


def untrained(name: str, x: Tensor) -> Any:
    """A model of the size of CompressAI's lower qualities."""
    torch.manual_seed(0)
    sizes = {"mbt2018-mean": (128, 192), "mbt2018": (192, 192)}
    model = MODELS[name](*sizes[name]).eval()
    target = torch.logspace(0.8, -1.3, model.M)  # standard deviations of the channels
    last = model.entropy_parameters if name == "mbt2018" else model.h_s
    with torch.no_grad():
        _scale(model.g_a[-1], target / _spread(model.g_a(x)))
        _scale(model.h_a[-1], 2 / _spread(model.h_a(model.g_a(x))))
        _scale(last[-1], 0.3 * torch.cat((target, target)))
        last[-1].bias[: model.M] += target
    model.update()
    return model


def _spread(y: Tensor) -> Tensor:
    return y.std(dim=(0, 2, 3)) + 1e-6


def _scale(layer: Any, factor: Tensor) -> None:
    layer.weight *= factor[:, None, None, None]
    layer.bias *= factor


def entropy_cases(model: Any, bridge: Bridge, x: Tensor) -> Cases:
    """From latents, means and indexes to bytes and back; and the same from scales."""
    y = bridge.model.g_a(x)
    z = model.h_a(y)
    gaussian, bottleneck = model.gaussian_conditional, model.entropy_bottleneck
    own_gaussian, own_bottleneck = (
        bridge.model.gaussian_conditional,
        bridge.model.entropy_bottleneck,
    )
    z_hat = bottleneck.decompress(bottleneck.compress(z), z.shape[2:])
    scales, means = model.h_s(z_hat).chunk(2, 1)
    indexes, steps = gaussian.build_indexes(scales), own_gaussian.build_indexes(scales)

    def their_encode(indexes: Tensor = indexes) -> Any:
        return bottleneck.compress(z), gaussian.compress(y, indexes, means)

    strings = their_encode()

    def their_decode(indexes: Tensor = indexes) -> Any:
        bottleneck.decompress(strings[0], z.shape[2:])
        return gaussian.decompress(strings[1], indexes, means=means)

    def encode(steps: Tensor = steps) -> Any:
        session = Encoding(bridge.tables)
        with using(session):
            own_bottleneck.compress(z)
            own_gaussian.compress(y, steps, means)
        return session.finish(), session.checks

    (shift, streams), checks = encode()
    nothing = bridge.strings[0]

    def decode(steps: Tensor = steps) -> Any:
        session = Decoding(bridge.tables, shift, streams, checks, "")
        with using(session):
            own_bottleneck.decompress(nothing, z.shape[2:])
            y_hat = own_gaussian.decompress(nothing, steps, means=means)
        session.end()
        return y_hat

    if not torch.equal(decode(), their_decode()):
        raise RuntimeError("the two coders give other latents")

    def their_indexes() -> Tensor:
        found: Tensor = gaussian.build_indexes(scales)
        return found

    def own_steps() -> Tensor:
        found: Tensor = own_gaussian.build_indexes(scales)
        return found

    return {
        "entropy, encode": (their_encode, encode),
        "entropy, decode": (their_decode, decode),
        "entropy with indexes, encode": (
            lambda: their_encode(their_indexes()),
            lambda: encode(own_steps()),
        ),
        "entropy with indexes, decode": (
            lambda: their_decode(their_indexes()),
            lambda: decode(own_steps()),
        ),
    }


def measure(name: str, model: Any, x: Tensor, rounds: int) -> Rows:
    """All rows of one model."""
    bridge = Bridge(model)
    height, width = x.shape[2:]
    theirs = model.compress(x)
    shift, checks, streams = bridge.encode(x)

    def decode() -> Tensor:
        return bridge.decode(shift, checks, streams, height, width, "")

    def their_decode(coded: Any = theirs) -> Tensor:
        x_hat: Tensor = model.decompress(coded["strings"], coded["shape"])["x_hat"]
        return x_hat

    cases: Cases = {
        "encode": (lambda: model.compress(x), lambda: bridge.encode(x)),
        "decode": (their_decode, decode),
    }
    if not isinstance(model, JointAutoregressiveHierarchicalPriors):
        cases = entropy_cases(model, bridge, x) | cases
    calls = {f"{what} {who}": pair[who] for what, pair in cases.items() for who in (0, 1)}
    times = interleaved(calls, rounds)
    typical = {what: 1e3 * statistics.median(seconds) for what, seconds in times.items()}
    rows = [
        _row(name, f"{what}, ms", *(typical[f"{what} {who}"] for who in (0, 1))) for what in cases
    ]
    if "entropy, encode" in cases:
        both = [
            sum(typical[f"entropy, {way} {who}"] for way in ("encode", "decode")) for who in (0, 1)
        ]
        rows.append(_row(name, "entropy, both ways, ms", *both))
    model.g_a = bridge.model.g_a  # the same latents, to the last bit
    theirs = model.compress(x)
    sizes = _size(theirs["strings"]), 1 + _size(checks) + _size(streams)
    difference = (their_decode(theirs) - decode().clamp(0, 1)).abs().max().item()
    return [*rows, _row(name, "bytes", *sizes), _row(name, "largest difference", difference, None)]


def _row(name: str, what: str, theirs: float, ours: float | None) -> dict[str, Any]:
    times = None if ours is None else theirs / ours
    return {"model": name, "what": what, "compressai": theirs, "latentpack": ours, "times": times}


def _size(strings: Any) -> int:
    return len(strings) if isinstance(strings, bytes) else sum(_size(part) for part in strings)


@click.command()
@click.option("--quick", is_flag=True, help="A smaller picture, one round: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
@click.option("--weights", multiple=True, type=click.Path(path_type=Path), help="A checkpoint.")
def main(quick: bool, as_json: bool, weights: tuple[Path, ...]) -> None:
    """Compare CompressAI with itself through latentpack."""
    torch.set_num_threads(1)
    side = 256 if quick else 512
    picture = read_image(SAMPLE)[0][None, :3] / 255
    repeats = -(-side // min(picture.shape[2:]))
    x = picture.repeat(1, 1, repeats, repeats)[:, :, :side, :side].contiguous()
    rows: Rows = []
    with torch.no_grad():
        found = {str(path.name): load_checkpoint(path).eval() for path in weights}
        for model in found.values():
            model.update()  # type: ignore[operator]
        models = found or {name: untrained(name, x) for name in ("mbt2018-mean", "mbt2018")}
        for name, model in models.items():
            rows += measure(name, model, x, 1 if quick else 3)
    show(f"CompressAI and the same through latentpack, {side}x{side}", rows, as_json)


if __name__ == "__main__":
    main()
