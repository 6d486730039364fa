"""python scripts/bench_fit.py [--quick] [--json] [PICTURE]: fitted pictures beside their peers.

Decoding of one picture, 512 x 512, one thread, all interleaved in one run: files of each preset
with the compiled kernels, and with the definition in NumPy (`kernels/fit_ref.py`; the rANS is
compiled there too), and an AVIF file of about the same size with Pillow. Both decoders of a file
give the same pixels.

Fitting: an iteration, forward and backward, of the compiled kernel and of plain torch.
"""

import functools
import statistics
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.image import fit_encoder, fit_networks, fit_parameters, fit_prior, fit_stream
from latentpack.codecs.image.fit import Fit
from latentpack.datasets.images import read_image
from latentpack.datasets.picture_peers import peer
from latentpack.kernels import fit_ref
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.pictures import decode_picture, encode_picture

SIDE = 512
SAMPLE = Path(__file__).parents[1] / "datasets" / "samples" / "crystal.webp"
_RATE = Rate(quality=40)
_LMBDA = 0.005


def picture(path: Path) -> Tensor:
    """The middle of a picture, uint8 [3, SIDE, SIDE]; it is repeated where it is smaller."""
    with path.open("rb") as file:
        x = read_image(file)[0]
    x = x[:3] if len(x) >= 3 else x[:1].expand(3, -1, -1)
    x = x.repeat(1, *(-(-SIDE // n) for n in x.shape[1:]))
    top, left = ((n - SIDE) // 2 for n in x.shape[1:])
    return x[:, top : top + SIDE, left : left + SIDE].contiguous()


def decode_by_definition(data: bytes) -> Tensor:
    """As `decode_picture`, with the context model and the synthesis in NumPy."""
    reader = Reader(data)
    (packet,) = reader.packets()
    opened = fit_stream.open_tile(fit_prior.load(), packet.body, 3)
    context = fit_parameters.context(opened.prior, opened.coded)
    grids = fit_ref.decode(context, opened.decoder.get, SIDE, SIDE, opened.mask)
    opened.decoder.finish()
    synthesis = fit_parameters.synthesis(opened.prior, opened.coded)
    return torch.from_numpy(fit_ref.synthesise(synthesis, grids))


def avif_of(x: Tensor, size: int) -> bytes:
    """The AVIF file that is nearest to a size."""
    coder = peer("avif")
    files = [coder.encode(x, step) for step in coder.steps]
    return min(files, key=lambda data: abs(len(data) - size))


def decoding(x: Tensor, presets: list[str], rounds: int) -> list[dict[str, Any]]:
    """Rows about the decoders."""
    cases: dict[str, Any] = {}
    sizes, macs = {}, {}
    for preset in presets:
        data = encode_picture(Fit(effort=0, preset=preset, threads=1), x, _RATE)
        codec = Fit(threads=1)
        if not torch.equal(decode_picture(data, codec)[0], decode_by_definition(data)):
            raise RuntimeError("the decoders of a file give different pixels")
        cases[f"fit {preset}"] = functools.partial(decode_picture, data, codec)
        cases[f"fit {preset}, NumPy"] = functools.partial(decode_by_definition, data)
        for name in (f"fit {preset}", f"fit {preset}, NumPy"):
            sizes[name] = len(data)
            macs[name] = fit_networks.PRESETS[preset].macs_per_pixel(3)
    if peer("avif").missing() is None:
        data = avif_of(x, sizes[f"fit {presets[-1]}"])
        cases["avif"] = functools.partial(peer("avif").decode, data)
        sizes["avif"] = len(data)
    times = interleaved(cases, rounds)
    return [
        {
            "decoder": name,
            "bpp": sizes[name] * 8 / SIDE**2,
            "mac_per_pixel": macs.get(name),
            "best_ms": 1e3 * min(spent),
            "median_ms": 1e3 * statistics.median(spent),
        }
        for name, spent in times.items()
    ]


def fitting(x: Tensor, presets: list[str], rounds: int) -> list[dict[str, Any]]:
    """Rows about an iteration of fitting."""
    cases: dict[str, Any] = {}
    target = x.float() / 255
    shapes = fit_networks.grid_shapes(SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(sum(r * c for r, c in shapes), generator=generator).numpy()
    for preset in presets:
        sizes = fit_networks.PRESETS[preset]
        params = fit_networks.initial(sizes, 3, generator).numpy()
        engines = {
            "compiled": fit_encoder.engine_for(sizes, target, threads=1),
            "torch": fit_encoder.TorchEngine(sizes, target, "cpu"),
        }
        for name, engine in engines.items():
            step = functools.partial(
                engine.step, latents, params, fit_encoder.objective_for(_LMBDA)
            )
            cases[f"{preset}, {name}"] = step
    times = interleaved(cases, rounds)
    return [
        {
            "iteration": name,
            "best_ms": 1e3 * min(spent),
            "median_ms": 1e3 * statistics.median(spent),
        }
        for name, spent in times.items()
    ]


@click.command()
@click.option("--quick", is_flag=True, help="One preset and fewer rounds: less than a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=SAMPLE)
def bench_fit(quick: bool, as_json: bool, path: Path) -> None:
    """Decoders of fitted pictures beside NumPy and AVIF; iterations of fitting beside torch."""
    torch.set_num_threads(1)
    x = picture(path)
    presets = ["best"] if quick else list(fit_networks.PRESETS)
    rounds = 2 if quick else 8
    iterations = fitting(x, presets, rounds)
    show("An iteration of fitting, 512 x 512, CPU time, 1 thread", iterations, False)
    title = f"Decoding a picture of 512 x 512, CPU time of {rounds} interleaved rounds, 1 thread"
    show(title, decoding(x, presets, rounds), as_json, iterations=iterations)


if __name__ == "__main__":
    bench_fit()
