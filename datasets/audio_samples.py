"""Samples as FFmpeg decodes them, to tensors [C, n] of the dtype that is asked for."""

from __future__ import annotations

import re
import struct
from typing import Any

import av
import torch
from torch import Tensor

INTEGERS = {torch.int16: 16, torch.int32: 32}
_MANY = 8  # planes from which PyAV reads beyond the end of FFmpeg's list of them
_PLACE = {"u8": 8, "s16": 16, "s32": 32}  # bits of the integers that FFmpeg decodes to


def source_bits(codec: Any, sample_format: str) -> int:
    """Bits of a sample in a file, 8 to 64: PyAV does not say what FFmpeg knows about it."""
    place = _PLACE.get(sample_format.removesuffix("p"))
    if place is None:
        return 64 if sample_format.startswith("dbl") else 32
    named = {"pcm_s24le": 24, "pcm_s24be": 24, "pcm_s24daud": 24}.get(codec.name)
    return min(place, named or _stated_bits(codec.name, codec.extradata or b"") or place)


def _stated_bits(codec: str, header: bytes) -> int | None:
    """What the headers of lossless formats say; at least 4."""
    stated = 0
    if codec == "flac" and len(header) >= 14:  # STREAMINFO: 5 bits across two bytes
        stated = ((struct.unpack_from(">H", header, 12)[0] >> 4) & 31) + 1
    elif codec == "alac" and len(header) >= 18:
        stated = header[17]
    elif codec == "tta" and len(header) >= 10:
        stated = struct.unpack_from("<H", header, 8)[0]
    return stated if stated >= 4 else None


def is_float(sample_format: str) -> bool:
    """Whether samples of a format of FFmpeg's are floating point."""
    return sample_format.removesuffix("p") not in _PLACE


def settle_layout(context: Any) -> None:
    """Give a decoder that is not open yet a layout of FFmpeg's own numbering.

    PyAV copies a layout that lists its channels one by one as if it held no pointer, and frees the
    list with each copy.
    """
    layout = context.layout  # asked for once: the one copy that may free the list
    count = layout.nb_channels
    context.layout = plain_layout(layout.name, count) or f"{count} channels"


def plain_layout(name: str, channels: int) -> str | None:
    """A name of a layout, if FFmpeg knows it as a whole, and it has so many channels."""
    if not re.fullmatch(r"[a-z0-9.() ]{1,32}", name) or name.endswith("channels"):
        return None
    try:
        return name if av.AudioLayout(name).nb_channels == channels else None
    except ValueError:
        return None


def frame_samples(frame: av.AudioFrame) -> Tensor:
    """The samples of a frame, [C, n], as they were decoded: uint8, int16, int32 or float."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MANY:
        frame = _packed(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, frame.layout.nb_channels).T
    return torch.from_numpy(samples)


def _packed(frame: av.AudioFrame) -> av.AudioFrame:
    """The same samples, interleaved."""
    name = frame.format.name.removesuffix("p")
    converter = av.AudioResampler(name, frame.layout, frame.sample_rate)
    (packed,) = converter.resample(frame)
    return packed


def to_float(x: Tensor) -> Tensor:
    """float32 in [-1, 1] (floating point may lie outside), of decoded samples [C, n].

    Raises:
        ValueError: there is NaN or infinity.
    """
    if x.is_floating_point():
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the samples hold NaN or infinity; repair or cut the file")
        return x.to(torch.float32, memory_format=torch.contiguous_format)
    x = x.contiguous()
    if x.dtype == torch.uint8:
        return (x.to(torch.float32) - 128) / 128
    return x.to(torch.float32) / 2.0 ** (8 * x.dtype.itemsize - 1)


def to_integers(x: Tensor, dtype: torch.dtype, bits: int) -> Tensor:
    """Integers of a number of bits, right-aligned, of decoded samples [C, n].

    Integers of more bits are not rounded: `bits` is at least that of the source. Floating point is
    rounded, and clipped where it lies outside of [-1, 1).
    """
    if x.is_floating_point():
        top = 2.0 ** (bits - 1)
        return (x.double() * top).round_().clamp_(-top, top - 1).to(dtype).contiguous()
    place = 8 * x.dtype.itemsize
    wide = x.to(torch.int32) - 128 if x.dtype == torch.uint8 else x.to(torch.int32)
    return (
        (wide >> (place - bits) if bits < place else wide << (bits - place)).to(dtype).contiguous()
    )


def place(x: Tensor, bits: int | None, target: int) -> Tensor:
    """int32 of `target` bits, right-aligned and rounded, of float [-1, 1) or integers of `bits`."""
    if bits is None:
        return to_integers(x, torch.int32, target)
    x = x.to(torch.int32)
    if target >= bits:
        return x << (target - bits)
    shift = bits - target
    top = (1 << (target - 1)) - 1
    return ((x.to(torch.int64) + (1 << (shift - 1))) >> shift).clamp_(max=top).to(torch.int32)


def from_integers(x: Tensor, bits: int) -> Tensor:
    """float32 in [-1, 1) of integers of a number of bits."""
    return x.to(torch.float32) / 2.0 ** (bits - 1)
