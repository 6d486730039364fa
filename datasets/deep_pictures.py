"""Pictures of 16 bits a sample, which Pillow reduces to 8: PNG and TIFF, through FFmpeg.

Samples are uint16 [C, H, W] with all their bits: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import torch

_DEMUXERS = {"PNG": "png_pipe", "TIFF": "tiff_pipe"}
_CHANNELS = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}  # pixel formats less byte order
_PNG_START = 8 + 25  # signature and IHDR
_METRES_TO_INCH = 0.0254
# What FFmpeg writes beside the samples, from nothing that we know.
_UNKNOWN_CHUNKS = (b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"iCCP", b"eXIf")


def read_deep(file: BinaryIO, format: str) -> torch.Tensor | None:
    """The samples of a picture file.

    Args:
        file: at the start of the picture.
        format: as Pillow calls it.

    Returns:
        uint16 [C, H, W] as stored, not turned upright; None if the file has other samples, or
        is of a kind that can't be read like this.
    """
    if format not in _DEMUXERS:
        return None
    import av  # costs 0.1 s, for few pictures

    try:
        with av.open(io.BytesIO(file.read()), "r", format=_DEMUXERS[format]) as opened:
            frame = next(opened.decode(video=0))
    except (av.error.FFmpegError, StopIteration):
        return None
    name, order = frame.format.name[:-2], frame.format.name[-2:]
    if name not in _CHANNELS or order not in ("be", "le"):
        return None
    channels, plane = _CHANNELS[name], frame.planes[0]
    words = np.frombuffer(bytes(plane), ">u2" if order == "be" else "<u2")
    rows = words.reshape(-1, plane.line_size // 2)[: frame.height, : frame.width * channels]
    samples = rows.reshape(frame.height, frame.width, channels).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(samples, np.uint16))


def upright(x: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn [C, H, W] as EXIF's orientation, 1 to 8, says."""
    if orientation >= 5:
        x = x.transpose(1, 2)
    flips = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    samples = np.flip(x.numpy(), flips) if flips else x.numpy()
    return torch.from_numpy(np.ascontiguousarray(samples))


def to_8_bit(x: torch.Tensor) -> torch.Tensor:
    """Uint16 samples as uint8, scaled by 255 / 65535 and rounded."""
    levels = ((np.arange(65536) * 510 + 65535) // (2 * 65535)).astype(np.uint8)
    return torch.from_numpy(levels[x.numpy()])


def png_of(x: torch.Tensor, extras: dict[str, Any]) -> bytes:
    """A PNG file of 16 bits.

    Args:
        x: uint16 [C, H, W].
        extras: the options that Pillow's writer takes: icc_profile, exif, dpi.
    """
    import av

    channels, height, width = x.shape
    name = {count: name for name, count in _CHANNELS.items()}[channels] + "be"
    frame = av.VideoFrame(width, height, name)
    plane = frame.planes[0]
    rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size // 2), ">u2")
    rows[:height, : width * channels] = x.numpy().transpose(1, 2, 0).reshape(height, -1)
    plane.update(rows.tobytes())
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, name
    codec.time_base, codec.options = Fraction(1), {"pred": "mixed"}
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    kept = b"".join(body for kind, body in _chunks(data) if kind not in _UNKNOWN_CHUNKS)
    return data[:_PNG_START] + _described(extras) + kept


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks after IHDR: type, whole chunk."""
    at = _PNG_START
    while at < len(png):
        size = 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at : at + size]
        at += size


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _described(extras: dict[str, Any]) -> bytes:
    """Chunks of colour profile, resolution and EXIF."""
    chunks = b""
    if "icc_profile" in extras:
        profile = b"ICC Profile\0\0" + zlib.compress(extras["icc_profile"])
        chunks += _chunk(b"iCCP", profile)
    if "dpi" in extras:
        per_metre = (round(value / _METRES_TO_INCH) for value in extras["dpi"])
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if "exif" in extras:
        chunks += _chunk(b"eXIf", extras["exif"].removeprefix(b"Exif\0\0"))
    return chunks
