"""What there is to know of a video's picture besides its samples, as it is stored."""

from __future__ import annotations

import struct
from typing import Any

from av.sidedata.sidedata import Type

from .video_frames import FULL, LIMITED, Layout, is_full_range, matrix_for_rgb
from .video_tracks import pair, stream_tags

UNKNOWN = 2  # H.273's number for it, in matrix, primaries and transfer
FIELD_ORDERS = {"tt": 2, "bb": 3, "tb": 4, "bt": 5}  # FFmpeg's names and numbers
_IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def describe_video(frame: Any, stream: Any, layout: Layout) -> dict[str, Any]:
    """The metadata "video" of a stream, by its first decoded frame.

    Returns:
        time_base: [numerator, denominator] in seconds.
        average_rate: of frames, as a fraction.
        matrix, primaries, transfer: H.273's numbers, left out where they are unknown.
        range: "full" or "limited"; left out where it is unknown.
        sample_aspect: width to height of a pixel, as a fraction; left out for 1.
        display_matrix: nine integers of ISO 14496-12, 16.16 and 2.30 in fixed point, which turn or
            mirror the picture when it is shown; left out where they don't.
        field_order: "tt", "bb", "tb" or "bt" of interlaced video.
        mastering_display: ten fractions: x and y of red, green, blue and white, least and most
            luminance in cd/m2 (SMPTE ST 2086).
        content_light: most and mean light level in cd/m2 (CTA 861.3).
        codec: FFmpeg's name of what the source was coded with.
        disposition: what the stream is for, in FFmpeg's names.
        tags: of the stream, such as "language".
    """
    info: dict[str, Any] = {"time_base": pair(stream.time_base)}
    if rate := pair(stream.average_rate or stream.guessed_rate):
        info["average_rate"] = rate
    info |= _colours(frame, layout)
    aspect = stream.sample_aspect_ratio
    if aspect and aspect > 0 and aspect != 1:
        info["sample_aspect"] = pair(aspect)
    if order := _field_order(frame, stream):
        info["field_order"] = order
    info |= _side_data(frame)
    info["codec"] = stream.codec_context.codec.canonical_name
    return info | stream_tags(stream)


def _colours(frame: Any, layout: Layout) -> dict[str, Any]:
    numbers = {
        "matrix": int(frame.colorspace),
        "primaries": int(frame.color_primaries),
        "transfer": int(frame.color_trc),
    }
    if layout.is_rgb:
        numbers["matrix"] = matrix_for_rgb(frame.height)
    found: dict[str, Any] = {k: v for k, v in numbers.items() if v != UNKNOWN}
    if layout.is_rgb:
        return found | {"range": "limited"}
    if is_full_range(frame):
        return found | {"range": "full"}
    return found | ({"range": "limited"} if frame.color_range == LIMITED else {})


def range_number(info: dict[str, Any]) -> int:
    """FFmpeg's number of the range, 0 for none."""
    return {"full": FULL, "limited": LIMITED}.get(str(info.get("range")), 0)


def _field_order(frame: Any, stream: Any) -> str | None:
    if not frame.interlaced_frame:
        return None
    number = stream.codec_context.field_order
    return next((k for k, v in FIELD_ORDERS.items() if v == number), "tt")


def _side_data(frame: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    data = {side.type: bytes(side) for side in frame.side_data if side.type in _READERS}
    for kind, (name, size, read) in _READERS.items():
        if len(data.get(kind, b"")) >= size and (value := read(data[kind])) is not None:
            found[name] = value
    return found


def _matrix(data: bytes) -> list[int] | None:
    matrix = struct.unpack("=9i", data[:36])
    return None if matrix == _IDENTITY else list(matrix)


def _mastering(data: bytes) -> list[list[int]] | None:
    """Ten fractions and whether primaries and luminance are known, in FFmpeg's struct."""
    numbers = struct.unpack("=22i", data[:88])
    if not (numbers[20] and numbers[21]) or not all(numbers[1:20:2]):
        return None
    return [list(numbers[i : i + 2]) for i in range(0, 20, 2)]


def _light(data: bytes) -> list[int]:
    return list(struct.unpack("=2I", data[:8]))


_READERS: dict[Any, tuple[str, int, Any]] = {
    Type.DISPLAYMATRIX: ("display_matrix", 36, _matrix),
    Type.MASTERING_DISPLAY_METADATA: ("mastering_display", 88, _mastering),
    Type.CONTENT_LIGHT_LEVEL: ("content_light", 8, _light),
}
