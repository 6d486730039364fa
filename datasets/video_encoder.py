"""Code the picture of a video file that is written, by FFmpeg's encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from .video_formats import ENCODERS, Encoder, choose_encoder, encoder_options, pixel_formats
from .video_frames import frame_of, pixel_format
from .video_info import FIELD_ORDERS, UNKNOWN, range_number
from .video_tracks import fraction, set_stream_tags

_FRAME_DURATION = 1 << 8  # flag of an encoder that passes durations on
_LEAST_SLICED = 16  # pixels, below which FFV1 finds no way to cut a picture into its slices


@dataclass(frozen=True)
class WriterOptions:
    """How the picture is coded in a file.

    Attributes:
        encoder: FFmpeg's name of it; None is the format's usual one.
        quality: "lossless", or the encoder's CRF; None is lossless for FFV1, else nearly so.
        preset: of the encoder, for those that have them.
        threads: of the encoder; None leaves it to FFmpeg.
    """

    encoder: str | None = None
    quality: float | str | None = None
    preset: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Picture:
    """What all frames of a video have in common.

    Attributes:
        width: in pixels.
        height: in pixels.
        bits: of a sample.
        colours: 1 grey, 3 for 4:2:0.
        info: what else is known, as `video_info.describe_video` has it.
    """

    width: int
    height: int
    bits: int
    colours: int
    info: Mapping[str, Any]

    @property
    def half(self) -> tuple[int, int]:
        """Height and width of U and V."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    def check(self, planes: Any) -> None:
        """Raise ValueError for planes that are not of this kind."""
        shapes = [(self.height, self.width), self.half, self.half][: self.colours]
        dtype = torch.uint8 if self.bits == 8 else torch.int16
        if [(x.dtype, tuple(x.shape)) for x in planes] != [(dtype, s) for s in shapes]:
            found = ", ".join(f"{x.dtype} {list(x.shape)}" for x in planes)
            raise ValueError(
                f"a frame has planes {found}; the file is {self.width}x{self.height} with "
                f"{self.bits} bits and {self.colours} colours"
            )


class PictureEncoder:
    """Makes packets of frames.

    Attributes:
        name: of FFmpeg's encoder.
        notes: what it can't hold, in words.
    """

    def __init__(self, format_name: str, picture: Picture, options: WriterOptions) -> None:
        """Choose the encoder, and what becomes of pictures that it doesn't take.

        Raises:
            ValueError: none takes them.
        """
        self._picture, self._options = picture, options
        self.notes: list[str] = []
        self._pixels = pixel_format(picture.bits, picture.colours)
        self.name, taken = choose_encoder(format_name, options.encoder, self._pixels)
        self._coding = encoder_options(self.name, options.quality)
        self._grey_as_colour = picture.colours == 1 and not taken
        if self._grey_as_colour:
            self._pixels = pixel_format(picture.bits, 3)
            self.notes.append(f"{self.name} has no grey; the picture gets colours, all grey")
        if self._pixels not in pixel_formats(self.name):
            raise ValueError(
                f"{self.name} takes no {self._pixels} ({picture.bits} bits); write mkv, which "
                "keeps it"
            )
        even = ENCODERS.get(self.name, Encoder()).even
        height, width = picture.height, picture.width
        self._padded = height + height % 2 * even, width + width % 2 * even
        if self._padded != (height, width):
            self.notes.append(
                f"{format_name} by {self.name} holds even sizes only; {width}x{height} becomes "
                f"{self._padded[1]}x{self._padded[0]}, the edge repeated; mkv keeps it"
            )

    def add_to(self, container: Any, base: Fraction) -> Any:
        """Add a stream to a file that is to be written; `base` is that of the frames' times."""
        info = self._picture.info
        rate = info.get("average_rate")
        stream = container.add_stream(
            self.name,
            rate=fraction(rate, "average_rate") if rate else Fraction(25),
            options=self._encoder_options(),
        )
        context = stream.codec_context
        context.width, context.height = self._padded[1], self._padded[0]
        context.pix_fmt, context.time_base = self._pixels, base
        context.flags |= _FRAME_DURATION
        context.thread_type = "AUTO"
        if self._options.threads is not None:
            context.thread_count = self._options.threads
        if self.name == "ffv1":
            context.gop_size = 1  # every frame by itself, so that any can be sought
        for name, key in (
            ("colorspace", "matrix"),
            ("color_primaries", "primaries"),
            ("color_trc", "transfer"),
        ):
            value = info.get(key, UNKNOWN)
            setattr(context, name, value if type(value) is int and 0 <= value < 256 else UNKNOWN)
        context.color_range = range_number(dict(info))
        if "sample_aspect" in info:
            context.sample_aspect_ratio = fraction(info["sample_aspect"], "sample_aspect")
        if order := FIELD_ORDERS.get(str(info.get("field_order"))):
            context.field_order = order
        matrix = info.get("display_matrix")
        if isinstance(matrix, list) and len(matrix) == 9:
            stream.set_display_matrix(matrix)
        set_stream_tags(stream, info)
        stream.time_base = base
        self._stream, self._base = stream, base
        return stream

    def encode(self, frame: Any, offset: int = 0) -> Any:
        """Packets of a frame that is shown `offset` units earlier; None ends the stream."""
        if frame is None:
            return self._stream.encode(None)
        found = frame_of(self._planes(frame.planes), self._pixels, self._padded)
        found.pts, found.time_base, found.duration = frame.pts - offset, self._base, frame.duration
        return self._stream.encode(found)

    def _planes(self, planes: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if not self._grey_as_colour:
            return planes
        middle = 1 << self._picture.bits - 1
        grey = torch.full(self._picture.half, middle, dtype=planes[0].dtype)
        return planes[0], grey, grey

    def _encoder_options(self) -> dict[str, str]:
        options = dict(self._coding)
        if self.name == "ffv1" and min(self._padded) < _LEAST_SLICED:
            options["slices"] = "1"
        if self._options.preset is not None:
            options["preset"] = self._options.preset
        light, mastering = (
            self._picture.info.get("content_light"),
            self._picture.info.get("mastering_display"),
        )
        if not light and not mastering:
            return options
        if self.name not in ("libx264", "libx265"):
            self.notes.append(f"{self.name} can't hold the light levels of HDR; mp4 can")
            return options
        name = self.name[3:] + "-params"
        parts = [options[name]] if name in options else []
        if light:
            key = "cll" if self.name == "libx264" else "max-cll"
            parts.append(f"{key}={int(light[0])},{int(light[1])}")
        if mastering:
            parts.append("mastering-display=" + _mastering(mastering))
        return options | {name: ":".join(parts)}


def _mastering(fractions: Any) -> str:
    """SMPTE ST 2086 as x264 and x265 take it: in units of 0.00002 and of 0.0001 cd/m2."""
    values = [fraction(pair, "mastering_display") for pair in fractions]
    if len(values) != 10:
        raise ValueError(f"mastering_display has {len(values)} fractions, expected 10")
    red, green, blue, white = (
        f"({round(x * 50000)},{round(y * 50000)})"
        for x, y in zip(values[0:8:2], values[1:8:2], strict=True)
    )
    least, most = (round(v * 10000) for v in values[8:])
    return f"G{green}B{blue}R{red}WP{white}L({most},{least})"
