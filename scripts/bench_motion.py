"""python scripts/bench_motion.py [--quick] [--json]: motion of blocks beside memcpy and PyTorch.

A picture of soft blobs that is shifted, rotated and noisy, one thread, all interleaved in one run.
Prediction: of one picture with the vectors of a search (`calm`), with a different vector for every
block (`wild`), of floats, of the mean of two; beside a copy of the bytes read and written, and
`torch.nn.functional.grid_sample`, which weights 4 (bilinear) or 16 (bicubic) samples in floating
point where these kernels weight 64. Search at every effort. Coding of the field that it found.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from latentpack.kernels import motion, rans
from latentpack.scripts.bench import interleaved, show

LMBDA = 0.01
Picture = npt.NDArray[np.uint8]


def pictures(height: int, width: int) -> tuple[Picture, Picture]:
    """A picture and what came of it, uint8 [height, width]."""
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.standard_normal((height + 64, width + 64)), 2)
    blobs = 128 + 40 * blobs / blobs.std()
    turned = ndimage.rotate(blobs, 1.2, reshape=False, mode="nearest")
    noisy = turned + rng.normal(0, 2, turned.shape)
    cut = np.s_[32 : 32 + height, 32 : 32 + width]
    moved = np.s_[29 : 29 + height, 37 : 37 + width]
    ref, current = (x.clip(0, 255).astype(np.uint8) for x in (blobs[cut], noisy[moved]))
    return np.ascontiguousarray(ref), np.ascontiguousarray(current)


def predictions(ref: Picture, calm: motion.Field) -> dict[str, Callable[[], object]]:
    """What to time of prediction."""
    height, width = ref.shape
    h, w = motion.blocks(height, width)
    rng = np.random.default_rng(1)
    wild = motion.Field(rng.integers(-80, 81, (h, w, 2)).astype(np.int16))
    both = motion.Field(np.stack([calm.vectors, wild.vectors]), np.full((h, w), 2, np.uint8))
    floats = ref[None].astype(np.float32) / 255
    deep = ref.astype(np.int16) << 2
    read, written = ref.copy(), np.empty_like(deep)
    per_sample = wild.vectors.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.float32) / 4
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y = (rows + per_sample[..., 0]) * 2 / (height - 1) - 1
    x = (columns + per_sample[..., 1]) * 2 / (width - 1) - 1
    grid = torch.from_numpy(np.stack([x, y], -1))[None]
    source = torch.from_numpy(floats)[None]

    def sampled(mode: str) -> torch.Tensor:
        return torch.nn.functional.grid_sample(
            source, grid, mode, padding_mode="border", align_corners=True
        )

    def copied() -> None:
        read[...] = ref
        written[...] = deep

    cases: dict[str, Callable[[], object]] = {
        "memcpy": copied,
        "grid_sample, bilinear": lambda: sampled("bilinear"),
        "grid_sample, bicubic": lambda: sampled("bicubic"),
    }
    for name in rans.backends()[1:]:
        warp = functools.partial(motion.warp, backend=name)
        cases |= {
            f"calm, {name}": functools.partial(warp, [[ref]], calm),
            f"wild, {name}": functools.partial(warp, [[ref]], wild),
            f"wild, 10 bits, {name}": functools.partial(warp, [[deep]], wild, 10),
            f"mean of two, {name}": functools.partial(warp, [[ref], [ref]], both),
            f"wild, floats, {name}": functools.partial(
                motion.warp_float, [floats], wild, backend=name
            ),
        }
    return cases


def rows_of(times: dict[str, list[float]], samples: int, base: str | None) -> list[dict[str, Any]]:
    """Speed in millions of luma samples a second, and what part of the base's that is."""
    return [
        {
            "case": name,
            "best_mpx_s": samples / min(spent) / 1e6,
            "median_mpx_s": samples / statistics.median(spent) / 1e6,
            "of_memcpy": min(times[base]) / min(spent) if base else None,
        }
        for name, spent in times.items()
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A small picture, few rounds: less than a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
def bench_motion(quick: bool, as_json: bool) -> None:
    """Prediction by motion beside memcpy and grid_sample; search; coding of fields."""
    torch.set_num_threads(1)
    height, width = (360, 640) if quick else (1080, 1920)
    rounds = 3 if quick else 9
    ref, current = pictures(height, width)
    calm = motion.search(current, [ref], LMBDA)
    warps = rows_of(interleaved(predictions(ref, calm), rounds), ref.size, "memcpy")
    about = f"{width} x {height}, CPU time of {rounds} interleaved rounds, 1 thread"
    show(f"Prediction of luma, {about}", warps, False)
    searches: dict[str, Callable[[], object]] = {}
    for effort in range(motion.EFFORTS):
        for count, refs in (("one reference", [ref]), ("two references", [ref, ref])):
            searches[f"{count}, effort {effort}"] = functools.partial(
                motion.search, current, refs, LMBDA, effort=effort
            )
    found = rows_of(interleaved(searches, 2 if quick else 3), ref.size, None)
    show(f"Search, {about}", found, False)
    data = motion.encode(calm)
    coding = rows_of(
        interleaved(
            {
                "encode": functools.partial(motion.encode, calm),
                "decode": functools.partial(motion.decode, data, height, width),
            },
            rounds,
        ),
        ref.size,
        None,
    )
    title = f"Coding of a field of {len(data)} bytes, {about}"
    show(title, coding, as_json, prediction=warps, search=found)


if __name__ == "__main__":
    bench_motion()
