"""The kinds of video files that are written, and how the picture is coded in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import av

NEAR_LOSSLESS_CRF = 12  # of x264, some 45 to 50 dB
_VP9_CRF, _AV1_CRF = 12, 15
Y4M = "y4m"


@dataclass(frozen=True)
class Encoder:
    """How FFmpeg's encoder of a name is asked for.

    Attributes:
        near_lossless: its options where nothing is said.
        lossless: its options without loss; None where it has no such.
        crf: the option that says the quality; "" where it has none.
        even: whether width and height must be.
    """

    near_lossless: Mapping[str, str] = field(default_factory=dict)
    lossless: Mapping[str, str] | None = None
    crf: str = "crf"
    even: bool = False


ENCODERS = {
    "ffv1": Encoder({"level": "3", "slicecrc": "1"}, {"level": "3", "slicecrc": "1"}, crf=""),
    "libx264": Encoder({"crf": str(NEAR_LOSSLESS_CRF)}, {"qp": "0"}, even=True),
    "libx265": Encoder({"crf": str(NEAR_LOSSLESS_CRF)}, {"x265-params": "lossless=1"}, even=True),
    "libvpx-vp9": Encoder(
        {"crf": str(_VP9_CRF), "b": "0", "row-mt": "1", "cpu-used": "4"},
        {"lossless": "1", "row-mt": "1", "cpu-used": "4"},
    ),
    "libsvtav1": Encoder({"crf": str(_AV1_CRF), "preset": "8"}, even=True),
    "mpeg4": Encoder({"q": "2"}, crf=""),
}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        muxer: FFmpeg's name of it.
        encoders: of which the first is taken that FFmpeg was built with and that takes the samples.
        negative: whether it can hold times below 0.
        piped: options of the muxer for files that can't seek.
        lost: what it can't hold, by the field of the video's description, in words.
    """

    muxer: str
    encoders: tuple[str, ...]
    negative: bool = False
    piped: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)


_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov"}
FORMATS = {
    "mkv": Format("matroska", ("ffv1",)),
    "webm": Format("webm", ("libvpx-vp9", "libsvtav1")),
    "mp4": Format("mp4", ("libx264", "mpeg4"), True, _FRAGMENTS),
    "mov": Format("mov", ("libx264", "mpeg4"), True, _FRAGMENTS),
    "ts": Format(
        "mpegts",
        ("libx264", "mpeg4"),
        lost={"display_matrix": "the rotation", "chapters": "the chapters"},
    ),
    Y4M: Format("", (), lost={"display_matrix": "the rotation", "chapters": "the chapters"}),
}
_ALIASES = {"m4v": "mp4", "qt": "mov", "mts": "ts", "m2ts": "ts", "mk3d": "mkv", "yuv4mpeg": Y4M}


def video_format(name: str) -> str:
    """The format of a name ("MKV") or suffix (".m4v"), a key of FORMATS.

    Raises:
        ValueError: video of this format can't be written.
    """
    key = name.strip().lower().removeprefix(".")
    found = _ALIASES.get(key, key)
    if found not in FORMATS:
        what = f"no video format {name!r}" if key else "no video format given"
        raise ValueError(f"{what}; can be written: {', '.join(sorted(FORMATS))}")
    return found


def suffixes() -> set[str]:
    """Of files that are read as video: {".mp4", ".mkv", ...}."""
    more = "mpg mpeg vob wmv asf flv f4v 3gp 3g2 ogv rm rmvb mxf dv m2v h264 hevc ivf divx gifv"
    return {"." + name for name in [*FORMATS, *_ALIASES, *more.split()]}


def choose_encoder(format_name: str, asked: str | None, pixels: str) -> tuple[str, bool]:
    """The name of the encoder for a format, and whether it takes the pixel format.

    Raises:
        ValueError: FFmpeg was built without it.
    """
    names = (asked,) if asked else FORMATS[format_name].encoders
    found = [n for n in names if n in av.codecs_available and av.Codec(n, "w").is_encoder]
    if not found:
        raise ValueError(f"FFmpeg was built without {' and '.join(names)}; write mkv or y4m")
    taking = [n for n in found if pixels in pixel_formats(n)]
    return (taking or found)[0], bool(taking)


def pixel_formats(encoder: str) -> list[str]:
    """FFmpeg's names of the pixel formats that an encoder takes."""
    return [str(f.name) for f in av.Codec(encoder, "w").video_formats or []]


def encoder_options(encoder: str, quality: Any) -> dict[str, str]:
    """For FFmpeg's encoder, what `quality` says: "lossless", a CRF, or None for nearly lossless.

    Raises:
        ValueError: it has no such quality.
    """
    known = ENCODERS.get(encoder, Encoder())
    if quality == "lossless":
        if known.lossless is None:
            raise ValueError(f"{encoder} has no lossless mode; write mkv, or mp4 by libx264")
        return dict(known.lossless)
    if quality is None:
        return dict(known.near_lossless)
    if not known.crf:
        raise ValueError(f"{encoder} takes no quality; write mp4 or webm")
    return dict(known.near_lossless) | {known.crf: f"{quality:g}"}
