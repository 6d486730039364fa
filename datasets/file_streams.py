"""Which kinds of streams there are in a file: sound, and video that is no still picture."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

import av
import av.error
from av.stream import Disposition

# FFmpeg opens pictures as videos of a frame, by these formats and brands.
_PICTURE_FORMATS = ("image2", "gif", "apng", "webp", "ico", "jpegxl_anim")
_PICTURE_BRANDS = ("avif", "avis", "heic", "heix", "hevc", "heis", "mif1", "msf1")
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails


class Streams(NamedTuple):
    """What there is in a file."""

    sound: bool
    video: bool


def streams_in(file: BinaryIO) -> Streams:
    """What FFmpeg finds in a seekable file; its position stays."""
    start = file.tell()
    try:
        with av.open(file, "r", metadata_errors="replace") as container:
            return Streams(bool(container.streams.audio), _has_video(container))
    except (av.error.FFmpegError, ValueError, OSError):
        return Streams(False, False)
    finally:
        file.seek(start)


def _has_video(container: Any) -> bool:
    name = container.format.name
    brand = container.metadata.get("major_brand", "").strip()
    if name.endswith("_pipe") or name in _PICTURE_FORMATS or brand in _PICTURE_BRANDS:
        return False
    return any(not stream.disposition & _STILL for stream in container.streams.video)
