"""The video of a page: several versions of a clip as a grid, in H.264 that every browser plays.

It is coded so finely that a person sees no difference to the frames (some 50 dB), as far as the
bound of its size allows; deeper samples are rounded to 8 bits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import av
import torch
from torch import Tensor

from latentpack.datasets.video_frames import frame_of, layout_of, planes_of
from latentpack.datasets.video_info import UNKNOWN
from latentpack.datasets.video_metrics import Colours, Meter
from latentpack.scripts.video_clips import Clip

MOST_BYTES = 48_000_000  # of a video; on the page it takes a third more
_MOST_PIXELS = 139_264 * 256  # of H.264's highest level
_BLOCK = 16  # of H.264: parts of the grid share none
_CRF = 8
_KEY_EVERY = 12  # frames, so that stepping back is quick
_BT709 = 1  # where a clip does not say its matrix: else browsers guess it from the size of the grid
_RANGES = {False: 1, True: 2}  # FFmpeg's numbers


class Carrier:
    """Writes the video, frame by frame.

    Attributes:
        columns: of the grid.
        tile_width: from one part to the next, in pixels.
        tile_height: the same down.

    Args:
        clip: that the versions are of.
        count: versions.

    Raises:
        ValueError: the grid would be too large for H.264.
    """

    def __init__(self, clip: Clip, count: int) -> None:
        self._clip = clip
        width, height = clip.format.width, clip.format.height
        self.tile_width, self.tile_height = _blocks(width), _blocks(height)
        self.columns = _columns(count, self.tile_width, self.tile_height)
        self._size = -(-count // self.columns) * self.tile_height, self.columns * self.tile_width
        if math.prod(self._size) > _MOST_PIXELS:
            raise ValueError(
                f"{clip.path}: {count} versions of {width}x{height} make a video that is too large "
                "for browsers; take fewer codecs"
            )
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = self._open()

    def _open(self) -> Any:
        clip = self._clip
        most = MOST_BYTES * 8 / max(1.0, clip.length.seconds or 0.0) / 1000
        stream: Any = self._container.add_stream(
            "libx264",
            clip.frame_rate,
            {
                "preset": "veryfast",
                "crf": f"{_CRF}",
                "bf": "0",
                "g": f"{_KEY_EVERY}",
                "x264-params": f"vbv-maxrate={most:.0f}:vbv-bufsize={most:.0f}",
            },
        )
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = clip.time_base
        colours = clip.colours
        stream.codec_context.colorspace = _BT709 if colours.matrix == UNKNOWN else colours.matrix
        stream.codec_context.color_range = _RANGES[colours.full_range]
        return stream

    def write(self, versions: Sequence[Sequence[Tensor]], pts: int) -> None:
        """Write the next frame of all versions, planes as they are; pts begin with 0."""
        grid = _grey(*self._size)
        for number, planes in enumerate(versions):
            row, column = divmod(number, self.columns)
            for target, plane in zip(grid, _of_8_bits(planes, self._clip.colours), strict=False):
                height, width = (
                    (self.tile_height, self.tile_width)
                    if target is grid[0]
                    else (self.tile_height // 2, self.tile_width // 2)
                )
                down = torch.arange(height).clamp(max=plane.shape[0] - 1)
                across = torch.arange(width).clamp(max=plane.shape[1] - 1)
                top, left = row * height, column * width
                # The last row and column are repeated, so that they stay as they are.
                target[top : top + height, left : left + width] = plane[down][:, across]
        frame = frame_of(tuple(grid), "yuv420p")
        frame.pts, frame.time_base = pts, self._clip.time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> bytes:
        """End the video and return the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def _blocks(side: int) -> int:
    return -(-side // _BLOCK) * _BLOCK


def _columns(count: int, width: int, height: int) -> int:
    """Of the grid that comes nearest to a square: decoders bound both sides."""
    return min(range(1, count + 1), key=lambda n: max(n * width, -(-count // n) * height))


def _grey(height: int, width: int) -> list[Tensor]:
    sizes = [(height, width)] + [(height // 2, width // 2)] * 2
    return [torch.full(size, 128, dtype=torch.uint8) for size in sizes]


def _of_8_bits(planes: Sequence[Tensor], colours: Colours) -> list[Tensor]:
    more = colours.bits - 8
    if not more:
        return list(planes)
    half = 1 << (more - 1)
    return [((plane.int() + half) >> more).clamp(max=255).byte() for plane in planes]


def carried_db(video: bytes, clip: Clip) -> float:
    """PSNR, YUV 6:1:1, of the original in a video of `Carrier`: what the page loses."""
    meter = Meter(Colours(8), ms_ssim=False)
    with av.open(io.BytesIO(video), "r") as container:
        decoded = container.decode(video=0)
        for frame, carried in zip(clip, decoded, strict=True):
            x = _of_8_bits(frame.planes, clip.colours)
            found = planes_of(carried, layout_of(carried.format))
            x_hat = [y[: z.shape[0], : z.shape[1]] for y, z in zip(found, x, strict=False)]
            meter.add(x, x_hat)
    return meter.clip().psnr_yuv
