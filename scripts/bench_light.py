"""python scripts/bench_light.py [--quick] [--json]: image/light stage by stage, beside its peers.

One picture, one thread, CPU time, all in turn. `mpx_per_s` is of the fastest call; `share` is what
a stage takes of its direction. CompressAI's hyperprior has random weights: the time of its networks
does not depend on them, that of its entropy coder does, and is less than with trained ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from latentpack.codecs.codec import Rate
from latentpack.codecs.image import light_latents
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import POSITIONS
from latentpack.datasets.images import read_image
from latentpack.datasets.picture_peers import peer
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.showcase import SAMPLE

_PEERS = ("jpeg", "webp", "avif")
_POSITION = POSITIONS // 2
Calls = dict[str, Callable[[], object]]


def picture(height: int, width: int) -> Tensor:
    """The sample photograph, repeated in mirror images to a size, uint8 [3, height, width]."""
    x = read_image(SAMPLE)[0].float()
    while x.shape[1] < height or x.shape[2] < width:
        x = F.pad(x, (0, x.shape[2] - 1, 0, x.shape[1] - 1), mode="reflect")
    return x[:, :height, :width].to(torch.uint8).contiguous()


def stages(x: Tensor) -> tuple[Calls, Calls]:
    """The stages of encoding and of decoding one tile, each on the result of the one before."""
    codec = Light()
    model, (height, width) = codec.model, x.shape[1:]
    box = (0, 0, height, width)
    y = codec.analyse(x, box, _POSITION)
    z, q, rows = light_latents.choose(model, y, _POSITION)
    data = light_latents.code(model, z, q, rows, _POSITION)
    y_hat = light_latents.values(model, z, q, _POSITION)
    t = torch.tensor([_POSITION / 64])
    h, w = y.shape[2:]
    rate = Rate(quality=100 * _POSITION / POSITIONS)
    header, packets = codec.header(x), list(codec.encode(x, rate))
    encoding: Calls = {
        "encode": lambda: list(codec.encode(x, rate)),
        "g_a": lambda: codec.analyse(x, box, _POSITION),
        "h_a, h_s, means": lambda: light_latents.choose(model, y, _POSITION),
        "entropy encoder": lambda: light_latents.code(model, z, q, rows, _POSITION),
    }
    decoding: Calls = {
        "decode": lambda: codec.decode(header, packets),
        "h_s, entropy decoder": lambda: light_latents.parse(model, data, h, w, _POSITION),
        "of that h_s": lambda: model.h_s(z, _POSITION),
        "means": lambda: light_latents.values(model, z, q, _POSITION),
        "g_s": lambda: model.g_s(y_hat, t),
    }
    return encoding, decoding


def peers(x: Tensor) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Encoding and decoding of each peer at the middle of its range, and of CompressAI's."""
    from compressai.zoo import bmshj2018_hyperprior

    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for name in _PEERS:
        coder = peer(name)
        step = coder.steps[len(coder.steps) // 2]
        data = coder.encode(x, step)
        found[name] = (
            functools.partial(coder.encode, x, step),
            functools.partial(coder.decode, data),
        )
    torch.manual_seed(0)
    model = bmshj2018_hyperprior(quality=3).eval()
    model.update()
    pixels = x[None].float() / 255
    coded = model.compress(pixels)
    found["compressai bmshj2018-hyperprior"] = (
        lambda: model.compress(pixels),
        lambda: model.decompress(**coded),
    )
    return found


def rows_of(
    codec: str, times: Mapping[str, list[float]], names: list[str], mpx: float
) -> list[dict[str, Any]]:
    """Rows of the table; the first name is the whole, the others its parts."""
    whole = min(times[names[0]])
    return [
        {
            "codec": codec,
            "stage": name,
            "mpx_per_s": mpx / min(times[name]),
            "share": min(times[name]) / whole,
        }
        for name in names
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A smaller picture and fewer rounds: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Time image/light and its peers."""
    torch.set_num_threads(1)
    x = picture(512, 768) if quick else picture(1024, 1024)
    mpx = x[0].numel() / 1e6
    with torch.inference_mode():
        encoding, decoding = stages(x)
        beside = peers(x)
        calls: Calls = {**encoding, **decoding}
        for name, (encode, decode) in beside.items():
            calls |= {f"{name} encode": encode, f"{name} decode": decode}
        times = interleaved(calls, 2 if quick else 7)
    rows = rows_of("latentpack image/light", times, list(encoding), mpx)
    rows += rows_of("latentpack image/light", times, list(decoding), mpx)
    for name in beside:
        for way in ("encode", "decode"):
            (row,) = rows_of(name, times, [f"{name} {way}"], mpx)
            rows.append(row | {"stage": way})
    show(f"image/light stage by stage, {x.shape[2]} x {x.shape[1]}, one thread", rows, as_json)


if __name__ == "__main__":
    main()
