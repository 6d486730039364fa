"""The networks of `video/inr`: a clip as a decoder that draws frame t.

All work on packed frames: 2 x 2 samples of a plane are 4 channels, the two halved planes of 4:2:0
are one channel each, so that the finest stage has half the height and width of the picture.

    boosted   grids of every level, each frame's own, coded as integers
                 |        |        |
              stage -> stage -> stage -> ... -> stage 0       stage: conv, pixel shuffle, + grid,
                 |        |        |              |                  affine of the time t, GELU
              picture -> x2 + -> x2 + ... ->  picture         x2: bilinear
    hnerv     one small embedding of each frame -> (conv, pixel shuffle, GELU) x levels -> picture
    nerv      sines of the time t -> two dense layers -> the same

HNeRV (arXiv:2304.02633) has embeddings made by an encoder, which is not in the file (`Encoder`);
NeRV (arXiv:2110.13903) has none. What is boosted comes from Boosting-NeRV (arXiv:2402.18152; affine
by time, parameters spread over the stages; its sines learned more slowly here than GELU) and HiNeRV
(arXiv:2306.09818; grids at every level); pictures of each level, which add up, make decoding at a
lower resolution possible.

Shapes: B frames, C channels, H and W of a level; level 0 is the finest, level l has
ceil(H / 2^l) x ceil(W / 2^l) positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ARCHS = ("nerv", "hnerv", "boosted")
MAX_LEVELS = 7
MAX_CHANNELS = 255
_OCTAVES = 6  # sines of the time, in each of the networks that know the time
_NERV_OCTAVES = 20
_NERV_BASE = 1.25
_LEAST_KERNEL, _MOST_KERNEL = 1, 5  # of HNeRV's stages

Sizes = list[tuple[int, int]]
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """What a decoder is made of.

    Attributes:
        arch: one of ARCHS.
        widths: channels of each level, finest first; `levels + 1` of them. Those of "nerv" have one
            more: the hidden units of its dense layers.
        grids: channels of each frame's grids at each level, 0 for none.
        outputs: channels of a packed frame.
        height: of a packed frame.
        width: of a packed frame.
    """

    arch: str
    widths: tuple[int, ...]
    grids: tuple[int, ...]
    outputs: int
    height: int
    width: int

    @property
    def levels(self) -> int:
        """How often the picture is halved down to the coarsest level."""
        return len(self.grids) - 1

    @cached_property
    def sizes(self) -> Sizes:
        """Height and width of each level."""
        sizes = [(self.height, self.width)]
        for _ in range(self.levels):
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        return sizes

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters by name, in the order of the file."""
        make = {"nerv": _nerv_shapes, "hnerv": _hnerv_shapes, "boosted": _boosted_shapes}
        return make[self.arch](self)

    @property
    def count(self) -> int:
        """Parameters in all."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def _kernel(layout: Layout, level: int) -> int:
    """HNeRV's: small ones where channels are many."""
    if layout.arch == "nerv":
        return 3
    return min(_MOST_KERNEL, _LEAST_KERNEL + 2 * (layout.levels - 1 - level))


def _shuffled_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for level in range(layout.levels - 1, -1, -1):
        kernel, out = _kernel(layout, level), 4 * layout.widths[level]
        shapes[f"{level}.weight"] = (out, layout.widths[level + 1], kernel, kernel)
        shapes[f"{level}.bias"] = (out,)
    shapes["head.weight"] = (layout.outputs, layout.widths[0], 3, 3)
    shapes["head.bias"] = (layout.outputs,)
    return shapes


def _nerv_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    hidden, (height, width) = layout.widths[-1], layout.sizes[-1]
    stem = layout.widths[layout.levels] * height * width
    return {
        "stem0.weight": (hidden, 2 * _NERV_OCTAVES),
        "stem0.bias": (hidden,),
        "stem1.weight": (stem, hidden),
        "stem1.bias": (stem,),
        **_shuffled_shapes(layout),
    }


def _hnerv_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    top = layout.widths[layout.levels]
    return {
        "stem.weight": (top, layout.grids[-1], 1, 1),
        "stem.bias": (top,),
        **_shuffled_shapes(layout),
    }


def _boosted_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for level in range(layout.levels, -1, -1):
        width, grid = layout.widths[level], layout.grids[level]
        if level < layout.levels:
            shapes[f"{level}.up.weight"] = (4 * width, layout.widths[level + 1], 3, 3)
        if grid:
            shapes[f"{level}.grid.weight"] = (width, grid, 3, 3)
        shapes[f"{level}.bias"] = (width,)
        shapes[f"{level}.time.weight"] = (2 * width, 2 * _OCTAVES)
        shapes[f"{level}.picture.weight"] = (layout.outputs, width, 3, 3)
        shapes[f"{level}.picture.bias"] = (layout.outputs,)
    return shapes


def initial(layout: Layout, generator: torch.Generator) -> Parameters:
    """Parameters to start from."""
    made = {}
    for name, shape in layout.shapes.items():
        if name.endswith("bias") or ".time." in name:
            made[name] = torch.zeros(shape)
            continue
        fan_in = math.prod(shape[1:])
        gain = 0.5 if "picture" in name else 1.0
        made[name] = torch.randn(shape, generator=generator) * gain / math.sqrt(fan_in)
    return made


def times_of(frames: int) -> Tensor:
    """When the frames of a group are, 0 at the first and 1 at the last: float32 [T]."""
    return torch.arange(frames) / max(1, frames - 1)


def time_waves(times: Tensor, octaves: int, base: float = 2.0) -> Tensor:
    """Sines and cosines of times 0 .. 1, float32 [B, 2 octaves]."""
    angles = times[:, None] * math.pi * base ** torch.arange(octaves)
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


def draw(
    layout: Layout, params: Parameters, grids: list[Tensor], times: Tensor, finest: int = 0
) -> list[Tensor]:
    """Frames from the networks.

    Args:
        layout: of the decoder.
        params: its parameters.
        grids: each level's [B, C, H, W], as they are put into the networks; C may be 0.
        times: of the frames, float32 [B], 0 at the first and 1 at the last.
        finest: the level to stop at.

    Returns:
        Pictures around 0 (samples less 0.5), [B, outputs, H, W] of each level from `finest` on, as
        far as the networks draw them: only of level 0 but for "boosted".
    """
    if layout.arch == "boosted":
        return _draw_boosted(layout, params, grids, times, finest)
    if layout.arch == "nerv":
        waves = time_waves(times, _NERV_OCTAVES, _NERV_BASE)
        x = F.gelu(F.linear(waves, params["stem0.weight"], params["stem0.bias"]))
        x = F.gelu(F.linear(x, params["stem1.weight"], params["stem1.bias"]))
        x = x.view(len(x), layout.widths[layout.levels], *layout.sizes[-1])
    else:
        x = F.gelu(F.conv2d(grids[-1], params["stem.weight"], params["stem.bias"]))
    for level in range(layout.levels - 1, -1, -1):
        height, width = layout.sizes[level]
        weight = params[f"{level}.weight"]
        x = F.conv2d(x, weight, params[f"{level}.bias"], padding=weight.shape[-1] // 2)
        x = F.gelu(F.pixel_shuffle(x, 2)[:, :, :height, :width])
    return [F.conv2d(x, params["head.weight"], params["head.bias"], padding=1)]


def _draw_boosted(
    layout: Layout, params: Parameters, grids: list[Tensor], times: Tensor, finest: int
) -> list[Tensor]:
    waves = time_waves(times, _OCTAVES)
    x: Tensor | None = None
    pictures: list[Tensor] = []
    for level in range(layout.levels, finest - 1, -1):
        size = layout.sizes[level]

        def take(name: str, level: int = level) -> Tensor:
            return params[f"{level}.{name}"]

        drawn = take("bias")[:, None, None]
        if x is not None:
            up = F.conv2d(x, take("up.weight"), padding=1)
            drawn = drawn + F.pixel_shuffle(up, 2)[:, :, : size[0], : size[1]]
        if layout.grids[level]:
            drawn = drawn + F.conv2d(grids[level], take("grid.weight"), padding=1)
        gain, offset = F.linear(waves, take("time.weight"))[:, :, None, None].chunk(2, 1)
        x = F.gelu(drawn * (1 + gain) + offset)
        picture = F.conv2d(x, take("picture.weight"), take("picture.bias"), padding=1)
        if pictures:
            picture = picture + double(pictures[0], size)
        pictures.insert(0, picture)
    return pictures


def double(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Twice the height and width, cut to a size."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x[:, :, : size[0], : size[1]]


class Encoder(nn.Module):
    """HNeRV's encoder: packed frames to embeddings of the coarsest level. Not in the file."""

    def __init__(self, layout: Layout, width: int = 48) -> None:
        """Make one for a decoder."""
        super().__init__()
        self.size = layout.sizes[-1]
        first = min(3, layout.levels)
        steps: list[nn.Module] = [nn.Conv2d(layout.outputs, width, 2**first, 2**first)]
        for _ in range(layout.levels - first):
            steps += [_Residual(width), nn.Conv2d(width, width, 2, 2)]
        steps += [_Residual(width), nn.Conv2d(width, layout.grids[-1], 1)]
        self.steps = nn.Sequential(*steps)
        self.stride = 2**layout.levels

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, H, W] to [B, C, H / stride, W / stride], rounded up."""
        height, width = (side * self.stride for side in self.size)
        x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")
        made: Tensor = self.steps(x)
        return made


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.mix = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mix(self.spread(x))
        return out
