"""Frames of PyAV as planes of 4:2:0 or grey, and back, without a way through RGB."""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import av.error
import numpy as np
import torch
from av.video.reformatter import Interpolation
from torch import Tensor

MOST_BITS = 10  # of a sample that is read
_MIDDLE = {8: "", 9: "9le", 10: "10le", 12: "12le", 14: "14le"}
_NATIVE = {
    f"{name}{end}": (bits, colours)
    for bits, end in _MIDDLE.items()
    if bits <= MOST_BITS
    for name, colours in (("yuv420p", 3), ("gray", 1))
} | {"yuvj420p": (8, 3)}
# The same samples in another order.
_REPACKED = {"nv12": "yuv420p", "nv21": "yuv420p", "p010le": "yuv420p10le", "p010be": "yuv420p10le"}
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
LIMITED, FULL = 1, 2  # FFmpeg's numbers of ranges
BT709, SMPTE170M = 1, 6  # H.273's numbers of matrices
_HD_HEIGHT = 720  # from which on RGB becomes YUV by BT.709


class Layout(NamedTuple):
    """How the samples of a pixel format are taken.

    Attributes:
        source: FFmpeg's name of the pixel format.
        name: of that to which it is converted; the same where it is taken as it is.
        bits: of a sample.
        colours: 1 grey, 3 for 4:2:0.
        loss: what the conversion changes, in words; "" if nothing.
        is_rgb: whether the source is, so that it gets a matrix and limited range.
    """

    source: str
    name: str
    bits: int
    colours: int
    loss: str
    is_rgb: bool


def layout_of(format: Any) -> Layout:
    """How an `av.VideoFormat` is taken."""
    source = str(format.name)
    name = _REPACKED.get(source, source)
    if name.endswith("be") and name[:-2] + "le" in _NATIVE:
        name = name[:-2] + "le"
    if name in _NATIVE:
        return Layout(source, name, *_NATIVE[name], "", False)
    parts = [c for c in format.components if not c.is_alpha]
    deepest = max((c.bits for c in parts), default=8)
    bits = min(MOST_BITS, max(8, deepest))
    is_rgb = bool(format.is_rgb or format.has_palette or source.startswith("xyz"))
    grey = len(parts) == 1 and not format.has_palette
    name = ("gray" if grey else "yuv420p") + _MIDDLE[bits]
    if source.startswith("yuvj") and bits == 8:
        name = "yuvj420p"
    kind = "grey" if grey else "4:2:0"
    loss = f"{source} becomes {kind} at {bits} bits"
    if len(parts) < len(format.components):
        loss += ", without its transparency"
    return Layout(source, name, bits, 1 if grey else 3, loss, is_rgb)


def matrix_for_rgb(height: int) -> int:
    """H.273's number of the matrix by which RGB of a size becomes YUV."""
    return BT709 if height >= _HD_HEIGHT else SMPTE170M


def planes_of(frame: Any, layout: Layout) -> tuple[Tensor, ...]:
    """The planes of an `av.VideoFrame` of the layout's source.

    They share the frame's memory where its rows follow each other without gaps; don't write to
    them.

    Returns:
        Y [H, W], and for colours U and V [ceil(H / 2), ceil(W / 2)]: uint8, or int16 for more than
        8 bits.

    Raises:
        ValueError: FFmpeg can't convert it.
    """
    if layout.name != layout.source:
        frame = _converted(frame, layout)
    dtype = np.uint8 if layout.bits == 8 else np.int16
    height, width = frame.height, frame.width
    half = (height + 1) // 2, (width + 1) // 2
    shapes = [(height, width), half, half][: layout.colours]
    return tuple(
        _plane(plane, *shape, dtype) for plane, shape in zip(frame.planes, shapes, strict=False)
    )


def _plane(plane: Any, height: int, width: int, dtype: type[np.generic]) -> Tensor:
    row = plane.line_size // np.dtype(dtype).itemsize
    x = np.frombuffer(plane, dtype, row * height).reshape(height, row)[:, :width]
    return torch.from_numpy(np.ascontiguousarray(x))


def _converted(frame: Any, layout: Layout) -> Any:
    source = target = FULL if is_full_range(frame) else LIMITED
    matrix: dict[str, Any] = {}
    if layout.is_rgb:
        source, target = FULL, LIMITED
        matrix = {"dst_colorspace": "ITU709" if frame.height >= _HD_HEIGHT else "SMPTE170M"}
    try:
        return frame.reformat(
            format=layout.name,
            src_color_range=source,
            dst_color_range=target,
            interpolation=_SCALING,
            **matrix,
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{layout.source} can't be converted to {layout.name}: {error}") from None


def is_full_range(frame: Any) -> bool:
    """Whether the samples of a frame take all values, and not those of TV."""
    return bool(frame.format.name.startswith("yuvj") or frame.color_range == FULL)


def pixel_format(bits: int, colours: int) -> str:
    """FFmpeg's name of the pixel format of planes.

    Raises:
        ValueError: it has none for so many bits.
    """
    if bits not in _MIDDLE:
        known = ", ".join(map(str, _MIDDLE))
        raise ValueError(f"bits is {bits}; frames of video files have {known}")
    return ("gray" if colours == 1 else "yuv420p") + _MIDDLE[bits]


def frame_of(planes: tuple[Tensor, ...], name: str, padded: tuple[int, int] | None = None) -> Any:
    """An `av.VideoFrame` of planes.

    Args:
        planes: Y [H, W], and for colours U and V.
        name: of the pixel format, which `pixel_format` gives.
        padded: height and width that the frame gets, the last row and column repeated.
    """
    height, width = padded or planes[0].shape
    frame: Any = av.VideoFrame(width, height, name)
    for plane, source in zip(frame.planes, planes, strict=True):
        x = source.numpy()
        row = plane.line_size // x.itemsize
        target = np.frombuffer(plane, x.dtype, row * plane.height).reshape(plane.height, row)
        target[: x.shape[0], : x.shape[1]] = x
        target[: x.shape[0], x.shape[1] : plane.width] = x[:, -1:]
        target[x.shape[0] :, : plane.width] = target[x.shape[0] - 1, : plane.width]
    return frame
