"""Clips made from photographs: pictures that move, in layers, the way films do.

A clip is one picture under a smooth path of pan, zoom, turn and tilt, bent a little by a flow that
swings. Parts of it, cut out along soft random borders, move more than the rest, as what is near
does; pieces of other pictures move across. Light may change, and there may be noise.

Pictures are low-passed to half their resolution and sampled at about every second pixel, so that a
frame is as sharp between the pixels of its picture as on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Numbers = NDArray[np.float64]
_HALF_BAND = (-1 / 32, 0.0, 9 / 32, 16 / 32, 9 / 32, 0.0, -1 / 32)
_KR, _KB = 0.2126, 0.0722  # BT.709
_MESH = 17  # nodes to a side at which a motion is computed; bilinear between them
_FIELD = 64  # samples to a side of what masks are cut from
_MOST = 512  # packed samples to a side of the part of a picture that is used at once


def pack(y: Tensor, uv: Tensor) -> Tensor:
    """Y [..., H, W] and UV [..., 2, H/2, W/2] -> [..., 6, H/2, W/2]: the phases of Y, U, V."""
    return torch.cat([functional.pixel_unshuffle(y.unsqueeze(-3), 2), uv], -3)


def to_video(rgb: Tensor) -> Tensor:
    """A photograph as packed 4:2:0 of BT.709 and limited range, ready to be moved.

    Args:
        rgb: uint8 [3, H, W], at least 2 to a side; of odd sides the last row or column is left out.

    Returns:
        uint8 [6, H/2, W/2], Y and UV each with the lower half of its frequencies only.
    """
    x = rgb[:, : rgb.shape[1] // 2 * 2, : rgb.shape[2] // 2 * 2].float()
    y = _KR * x[0] + (1 - _KR - _KB) * x[1] + _KB * x[2]
    u, v = (x[2] - y) / (2 - 2 * _KB), (x[0] - y) / (2 - 2 * _KR)
    luma = 16 + y * (219 / 255)
    chroma = 128 + torch.stack([u, v]) * (224 / 255)
    chroma = _low_pass(functional.avg_pool2d(chroma, 2))
    return pack(_low_pass(luma[None])[0], chroma).round().clamp(0, 255).byte()


def _low_pass(x: Tensor) -> Tensor:
    """[C, H, W] -> the same, of each direction the lower half of the frequencies."""
    kernel = torch.tensor(_HALF_BAND)
    x = functional.pad(x[:, None], (3, 3, 3, 3), "replicate")
    x = functional.conv2d(x, kernel.view(1, 1, 1, 7))
    return functional.conv2d(x, kernel.view(1, 1, 7, 1))[:, 0]


@dataclass(frozen=True)
class _Motion:
    """Where each frame looks: per frame, in samples of the clip and radians."""

    shift: Numbers  # [T, 2]
    zoom: Numbers  # [T], logarithm
    turn: Numbers  # [T]
    tilt: Numbers  # [T, 2], of a homography
    bend: Numbers  # [T, 2, MESH, MESH], elastic

    def nearer(self, factor: float) -> _Motion:
        """The same motion of what is nearer by a factor."""
        return _Motion(factor * self.shift, self.zoom, self.turn, self.tilt, self.bend)


def _motion(frames: int, generator: np.random.Generator, still: float) -> _Motion:
    """A random motion, with probability `still` none but that of details."""
    t = np.arange(frames) - (frames - 1) / 2

    def drift(chance: float, scale: float) -> Numbers:
        start, rate = generator.normal(0, 3 * scale), generator.normal(0, scale)
        return start + rate * t if generator.random() < chance else np.zeros(frames)

    speed = 0.0 if generator.random() < still else 10 ** generator.uniform(-1, 1.1)
    angle = generator.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    shift = velocity * t[:, None] + generator.normal(0, 0.05 * speed, 2) * t[:, None] ** 2
    moves = speed > 0
    if moves and generator.random() < 0.3:  # a hand that shakes
        shift = shift + generator.normal(0, generator.uniform(0.1, 0.8), (frames, 2))
    return _Motion(
        np.asarray(shift),
        drift(0.4 * moves, 0.008),
        drift(0.4 * moves, 0.006),
        np.stack([drift(0.3 * moves, 0.01) for _ in range(2)], 1),
        _bend(t, generator) if generator.random() < 0.4 else np.zeros((frames, 2, 1, 1)),
    )


def _bend(t: Numbers, generator: np.random.Generator) -> Numbers:
    """An elastic flow that swings, [T, 2, MESH, MESH]."""
    nodes = int(generator.integers(3, 7))
    fields = _smooth(generator.normal(size=(4, nodes, nodes)), _MESH).view(2, 2, _MESH, _MESH)
    phase = (generator.uniform(0.1, 0.8) * t)[:, None, None, None]
    size = 10 ** generator.uniform(-0.5, 0.6)
    a, b = fields.numpy().astype(np.float64)
    bend: Numbers = size * (a * np.cos(phase) + b * np.sin(phase))
    return bend


def _smooth(coarse: Numbers, size: int) -> Tensor:
    """[C, h, w] -> float [C, size, size] by cubic interpolation."""
    x = torch.from_numpy(coarse).float()[None]
    return functional.interpolate(x, (size, size), mode="bicubic", align_corners=True)[0]


@dataclass(frozen=True)
class _View:
    """A part of a packed picture, and where in it a clip looks before anything moves."""

    picture: Tensor  # uint8 [6, h, w]
    centre: Numbers  # [2], x and y in luma samples
    scale: float  # luma samples to a sample of the clip

    def grid(self, motion: _Motion, size: int) -> Tensor:
        """Where each sample of each frame comes from, float [T, 2, size, size] in [-1, 1]."""
        p = np.linspace(-size / 2, size / 2, _MESH)
        x, y = np.meshgrid(p, p)
        sine, cosine = (f(motion.turn)[:, None, None] for f in (np.sin, np.cos))
        tilt = motion.tilt[:, :, None, None] * (2 / size)
        depth = np.exp(motion.zoom)[:, None, None] / (1 + tilt[:, 0] * x + tilt[:, 1] * y)
        turned = np.stack([cosine * x - sine * y, sine * x + cosine * y], 1) * depth[:, None]
        moved = turned + motion.shift[:, :, None, None] + motion.bend
        height, width = self.picture.shape[1:]
        place = self.centre[:, None, None] + self.scale * moved
        place = place / np.array([width, height])[:, None, None] - 1
        # The nodes at the border lie on the outer edge of the outermost samples.
        nodes = torch.from_numpy(place).float()
        grid = functional.interpolate(
            nodes, (size + 1, size + 1), mode="bilinear", align_corners=True
        )
        return functional.avg_pool2d(grid, 2, 1)

    def render(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Y [T, 1, size, size] and UV [T, 2, size/2, size/2] of all frames."""
        x = self.picture.float()
        y = functional.pixel_shuffle(x[None, :4], 2)
        return _sample(y, grid), _sample(x[None, 4:], functional.avg_pool2d(grid, 2))


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    """[1, C, h, w] at the places [T, 2, H, W] -> [T, C, H, W]."""
    return functional.grid_sample(
        x.expand(len(grid), -1, -1, -1),
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )


def _view(picture: Tensor, size: int, motion: _Motion, generator: np.random.Generator) -> _View:
    """A place in a picture from which a motion does not lead out, if there is one."""
    for axis in (1, 2):
        if (spare := picture.shape[axis] - _MOST) > 0:
            picture = picture.narrow(axis, int(generator.integers(spare + 1)), _MOST)
    room = 2 * np.array([picture.shape[2], picture.shape[1]])
    scale = min(generator.uniform(1.6, 2.3), room.min() / size)
    reach = scale * (0.55 * size + np.abs(motion.shift).max(0))
    low, high = np.minimum(reach, room / 2), np.maximum(room - reach, room / 2)
    return _View(picture, generator.uniform(low, high), scale)


def _cut(field: Tensor, grid: Tensor, generator: np.random.Generator) -> Tensor:
    """A mask [T, 1, size, size] that moves with the grid, 1 where the field is above 0."""
    steep = 10 ** generator.uniform(0.5, 1.6)
    return torch.sigmoid(steep * _sample(field[None], grid))


def moving_picture(
    draw: Callable[[], Tensor], frames: int, size: int, generator: np.random.Generator
) -> Tensor:
    """A clip of photographs in motion.

    Args:
        draw: gives a picture as `to_video` makes them, another one each time.
        frames: of the clip.
        size: side in samples of Y, even.
        generator: of all choices.

    Returns:
        float [frames, 6, size/2, size/2] between about 0 and 255, packed as in `pack`.
    """
    motion = _motion(frames, generator, still=0.2)
    view = _view(draw(), size, motion, generator)
    y, uv = view.render(view.grid(motion, size))
    for _ in range(generator.choice(3, p=(0.4, 0.4, 0.2))):
        near = motion.nearer(generator.uniform(1.2, 2.5))
        nodes = int(generator.integers(3, 9))
        field = _smooth(generator.normal(-0.3, 1, (1, nodes, nodes)), _FIELD)
        y, uv = _over(y, uv, view, field, near, generator)
    if generator.random() < 0.4:
        own = _motion(frames, generator, still=0.0)
        other = _view(draw(), size, own, generator)
        y, uv = _over(y, uv, other, _blob(other, size, generator), own, generator)
    return _light(pack(y[:, 0], uv), generator)


def _over(
    y: Tensor,
    uv: Tensor,
    view: _View,
    field: Tensor,
    motion: _Motion,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Lay what a field cuts out of a view over a clip."""
    grid = view.grid(motion, y.shape[2])
    mask = _cut(field, grid, generator)
    above_y, above_uv = view.render(grid)
    return torch.lerp(y, above_y, mask), torch.lerp(uv, above_uv, functional.avg_pool2d(mask, 2))


def _blob(view: _View, size: int, generator: np.random.Generator) -> Tensor:
    """A field, float [1, FIELD, FIELD], above 0 within a round piece with an uneven border."""
    height, width = view.picture.shape[1:]
    place = view.centre + view.scale * size * generator.uniform(-0.3, 0.3, 2)
    radius = view.scale * size * generator.uniform(0.08, 0.3, 2)
    p = (np.arange(_FIELD) + 0.5) * (2 / _FIELD)
    x, y = np.meshgrid((p * width - place[0]) / radius[0], (p * height - place[1]) / radius[1])
    uneven = _smooth(generator.normal(0, 0.4, (1, 12, 12)), _FIELD)
    return uneven + torch.from_numpy(1 - x * x - y * y).float().clamp(min=-4)


def _light(x: Tensor, generator: np.random.Generator) -> Tensor:
    """Change of exposure over the clip, and noise of a sensor."""
    if generator.random() < 0.2:
        gain = np.linspace(1, generator.uniform(0.8, 1.2), len(x)).astype(np.float32)
        x[:, :4] *= torch.from_numpy(gain)[:, None, None, None]
    if generator.random() < 0.4:
        noise = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        x += 10 ** generator.uniform(-0.5, 0.6) * torch.randn(x.shape, generator=noise)
    return x
