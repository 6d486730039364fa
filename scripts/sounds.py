"""A sound in blocks to the packets of a .lpk file and back, or a stretch of it."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import torch
from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader, Writer, empty_size
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.codec_options import make_codec

_STRETCH_SECONDS = 20.0  # decoded at once where a codec gives stretches


def open_codec(codec: str | int, **options: Any) -> Any:
    """Make a sound codec; options that are None are left to it.

    Raises:
        ValueError: no such codec, not one for sounds, or it has no such option.
    """
    loaded = registry.load(codec)
    if not loaded.name.startswith("audio/"):
        raise ValueError(f"{loaded.name} is no codec for sounds; those are named audio/...")
    return make_codec(loaded, options)


def takes_integers(codec: str) -> bool:
    """Whether a sound codec wants samples as integers, of a number of bits."""
    return "bits" in registry.parameters(registry.load(codec))


def write_sound(
    file: BinaryIO,
    codec: Any,
    blocks: Iterator[Tensor],
    rate: Rate | None = None,
    metadata: dict[str, Any] | None = None,
) -> int:
    """Encode a sound into a file while it is read, and return the file's size.

    Args:
        file: binary; it is written from its position on.
        codec: from `open_codec`.
        blocks: [channels, n], one at least. With `max_bytes` all are held in memory.
        rate: None is the codec's default.
        metadata: for box M.

    Raises:
        ValueError: the codec does not take the samples or the rate.
    """
    first = next(blocks)
    header = codec.header(first)
    number = registry.codec_id(codec.name)
    rest = _chain(first, blocks)
    if rate is None:
        packets = codec.encode_blocks(rest)
    elif "rate" not in registry.parameters(type(codec).encode_blocks):
        raise ValueError(f"{codec.name} takes no {rate.name}: its size is what it is; leave it out")
    else:
        reserve = empty_size(number, header, metadata)
        whole = rate.name == "max_bytes"  # to be met, the length must be known
        signal = torch.cat(list(rest), dim=1) if whole else rest
        packets = (codec.encode if whole else codec.encode_blocks)(signal, rate, reserve)
    with Writer(file, number, header, metadata) as writer:
        for packet in packets:
            writer.write(packet)
    return writer.offset


def _chain(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest


def sound_blocks(
    reader: Reader,
    codec: Any,
    start: float = 0.0,
    duration: float | None = None,
    keep_going: bool = False,
) -> Iterator[Tensor]:
    """Decode a file, or a stretch of it, in blocks [channels, n].

    Args:
        reader: of the file; opened with recover=True to keep going.
        codec: from `open_codec`.
        start: seconds that are left out before.
        duration: seconds; None is all that follow.
        keep_going: leave damaged packets to the codec's concealment.

    Raises:
        BitstreamError: the file is damaged.
        ValueError: it was made with other weights.
    """
    if not start and duration is None:
        packets = _whole_packets(reader) if keep_going else reader.packets()
        yield from codec.decode_blocks(reader.params, packets)
        return
    rate = sample_rate_of(reader)
    first = round(start * rate)
    last = None if duration is None else first + round(duration * rate)
    if hasattr(codec, "decode_range"):
        yield from _ranges(reader, codec, first, last, round(_STRETCH_SECONDS * rate))
    else:
        yield from _stretch(reader, codec, first, last, keep_going)


def _ranges(
    reader: Reader, codec: Any, first: int, last: int | None, step: int
) -> Iterator[Tensor]:
    """By a codec that finds itself which packets a range needs."""
    while last is None or first < last:
        stop = first + step if last is None else min(first + step, last)
        block: Tensor = codec.decode_range(reader.params, reader.read, first, stop)
        yield block
        if block.shape[1] < stop - first:
            return
        first = stop


def _stretch(
    reader: Reader, codec: Any, first: int, last: int | None, keep_going: bool
) -> Iterator[Tensor]:
    """By a codec whose packets stand alone and are named by their first sample."""
    keys = [key for key in reader.keys() if type(key) is int]
    begin = max(0, bisect.bisect_right(keys, first) - 1)
    wanted = [key for key in keys[begin:] if last is None or key < last]
    packets = _whole_packets(reader, wanted) if keep_going else map(reader.read, wanted)
    at = wanted[0] if wanted else 0
    for block in codec.decode_blocks(reader.params, packets):
        stop = block.shape[1] if last is None else max(0, last - at)
        yield block[:, max(0, first - at) : stop]
        at += block.shape[1]


def _whole_packets(reader: Reader, keys: Iterable[Any] | None = None) -> Iterator[Packet]:
    """The packets that can be read; decoders find out which are missing between them."""
    for key in reader.keys() if keys is None else keys:
        try:
            packet = reader.read(key)
        except BitstreamError:
            continue
        yield packet


def sample_rate_of(reader: Reader) -> int:
    """Hz, of the sound in a file.

    Raises:
        BitstreamError: the header does not say it.
    """
    return _parameter(reader, "r", "sample rate")


def channels_of(reader: Reader) -> int:
    """How many channels the sound in a file has; BitstreamError where it does not say so."""
    return _parameter(reader, "c", "number of channels")


def _parameter(reader: Reader, name: str, what: str) -> int:
    value = reader.params.get(name)
    if type(value) is not int or value < 1:
        raise BitstreamError(f"the header's {what}, {name!r}, is {value!r}, expected 1 or more")
    return value
