"""`audio/lossless`: sounds of 8 to 32 bits, bit for bit.

Nothing is trained and no weights are needed: encoder and decoder learn alike from what is already
coded, see `kernels/sounds_ref.py` (with its papers).

    blocks -> segments of some seconds, each a packet by itself:
        samples -> per channel: constant? like another? unused low bits? few values? -> numbers
            -> filters predict -> mixture of experts -> arithmetic coder -> bytes

Packet key = number of its first sample, so a time is found in the index; body as in
`lossless_packets.py`. What is learned starts anew with each packet: a damaged one costs its own
seconds, packets are coded in threads, and memory does not grow with the length.

Parameters in the header: "c" = channels, "r" = sample rate in Hz, "b" = bits of a sample, "w" =
bytes of a decoded sample (2: int16, 4: int32).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels import sounds
from ...kernels.errors import BitstreamError
from ..codec import Codec, DamageWarning, Packet, Rate
from ..fields import Cursor
from ..threads import in_order
from . import lossless_packets
from .lossless_packets import MAX_SAMPLES

MAX_RATE = (1 << 32) - 1  # Hz
MAX_GAP = 1 << 28  # missing samples, all channels together, that silence is put for
_DTYPES = {2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class Shape:
    """What the header says of a sound."""

    channels: int
    sample_rate: int
    bits: int
    dtype: torch.dtype


class Lossless(Codec):
    """Sounds, int16 or int32 [C, N]: 1 to 255 channels, any length, any sample rate.

    Takes no rate: the size is what it is. Sounds of 24 bits are int32 from -2**23 to 2**23 - 1.
    """

    name = "audio/lossless"

    def __init__(
        self,
        bits: int | None = None,
        sample_rate: int | None = None,
        effort: int = 1,
        seconds: float = 5.0,
        threads: int | None = None,
        keep_going: bool = False,
    ) -> None:
        """Set the options.

        Args:
            bits: of a sample, 8 to 32; None = 16 for int16, and for int32 24 if the (first block
                of the) sound fits, else 32.
            sample_rate: in Hz; an encoder must know it.
            effort: 0, 1 or 2: how much is computed, by the decoder too.
            seconds: of a packet. Each starts to learn anew: against 20 seconds, 5 take 0.1 % more
                bytes and 1 takes 0.2 to 0.4 %.
            threads: packets at once; None = one per core.
            keep_going: decode silence for packets that are damaged or missing, with a warning that
                says how much that is (DamageWarning).
        """
        if bits is not None and (type(bits) is not int or not 8 <= bits <= 32):
            raise ValueError(f"bits must be 8 to 32, got {bits!r}")
        if sample_rate is not None and (
            type(sample_rate) is not int or not 1 <= sample_rate <= MAX_RATE
        ):
            raise ValueError(f"sample_rate must be 1 to {MAX_RATE} Hz, got {sample_rate!r}")
        if type(effort) is not int or not 0 <= effort <= sounds.MAX_EFFORT:
            raise ValueError(f"effort must be 0 to {sounds.MAX_EFFORT}, got {effort!r}")
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds must be above 0, got {seconds!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be 1 or more, or None for all cores; got {threads}")
        self.bits, self.sample_rate = bits, sample_rate
        self.effort, self.seconds, self.keep_going = effort, seconds, keep_going
        self.threads = threads or os.cpu_count() or 1

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec. The signal may be the first block of a sound."""
        shape = self._shape(signal)
        return {
            "c": shape.channels,
            "r": shape.sample_rate,
            "b": shape.bits,
            "w": 2 if shape.dtype == torch.int16 else 4,
        }

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec."""
        if rate is not None:
            raise ValueError(f"audio/lossless takes no rate, got {rate}; leave it out")
        self._shape(signal)
        return self.encode_blocks([signal])

    def encode_blocks(self, blocks: Iterable[Tensor]) -> Iterator[Packet]:
        """Yield the packets of a sound that comes in blocks.

        Args:
            blocks: int16 or int32 [C, n] of any lengths n, all of the dtype, channels and bits of
                the first, with which `header` must have been called.

        Raises:
            ValueError: a block is not like the first or has samples of more bits.
        """

        def job(segment: tuple[int, int, NDArray[Any]]) -> Packet:
            start, bits, samples = segment
            body = lossless_packets.encode(samples.astype(np.int32), bits, self.effort)
            return Packet(start, body)

        yield from in_order(job, self._segments(blocks), self.threads)

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec. Returns int16 or int32 [C, N]."""
        shape = _parse_header(header)
        blocks = list(self.decode_blocks(header, packets))
        try:
            return torch.cat([torch.zeros(shape.channels, 0, dtype=shape.dtype), *blocks], 1)
        except RuntimeError:
            raise BitstreamError("the sound does not fit into memory") from None

    def decode_blocks(self, header: dict[str, Any], packets: Iterable[Packet]) -> Iterator[Tensor]:
        """Yield the samples of these packets, in as many blocks: int16 or int32 [C, n].

        The packets may start anywhere in the sound.

        Raises:
            BitstreamError: the header, or, unless we keep going, a packet is damaged or missing.
        """
        shape = _parse_header(header)

        def job(packet: Packet) -> tuple[Packet, Tensor | BitstreamError]:
            try:
                samples = lossless_packets.decode(packet.body, shape.channels, shape.bits)
            except BitstreamError as error:
                return packet, error
            return packet, torch.from_numpy(samples).to(shape.dtype)

        at: int | None = None
        damaged: tuple[Packet, BitstreamError] | None = None
        for packet, found in in_order(job, packets, self.threads):
            start = packet.key
            if not isinstance(start, int) or not 0 <= start < 1 << 63:
                raise BitstreamError(f"a packet has the key {start!r}, not that of a sample")
            if at is not None and start != at:
                problem = f"the packet after sample {at} starts at {start}"
                if not self.keep_going or start < at or (start - at) * shape.channels > MAX_GAP:
                    raise BitstreamError(problem)
                yield from _silence(shape, at, start, damaged[1] if damaged else problem)
            damaged, at = None, start
            if isinstance(found, Tensor):
                yield found
                at += found.shape[1]
            elif self.keep_going:
                damaged = packet, found
            else:
                raise found
        if damaged and at is not None:
            yield from _silence(shape, at, at + _stated(damaged[0], shape), damaged[1])

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """See Codec: the first sample of a packet and how many follow, per channel."""
        cursor = Cursor(memoryview(packet.body), 0)
        head = lossless_packets.read_head(cursor, _parse_header(header).channels)
        return {"start": packet.key, "samples": head.length}

    def _shape(self, signal: Tensor) -> Shape:
        if signal.dtype not in _DTYPES.values() or signal.ndim != 2:
            floats = (
                "; floats are kept by tensor/lossless, or round them"
                if signal.dtype.is_floating_point
                else ""
            )
            raise ValueError(
                "audio/lossless takes a sound as int16 or int32 [channels, samples], got "
                f"{signal.dtype} {list(signal.shape)}{floats}"
            )
        if not 1 <= len(signal) <= sounds.MAX_CHANNELS:
            raise ValueError(f"a sound has 1 to {sounds.MAX_CHANNELS} channels, got {len(signal)}")
        if self.sample_rate is None:
            raise ValueError("audio/lossless must know the sample_rate, in Hz")
        bits = self.bits or (16 if signal.dtype == torch.int16 else 24 if _fits(signal, 24) else 32)
        if signal.dtype == torch.int16 and bits > 16:
            raise ValueError(f"bits is {bits}, but int16 has 16; give int32")
        if not _fits(signal, bits):
            low, high = signal.min().item(), signal.max().item()
            raise ValueError(f"samples from {low} to {high} do not fit into bits={bits}")
        return Shape(len(signal), self.sample_rate, bits, signal.dtype)

    def _segments(self, blocks: Iterable[Tensor]) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """First sample, bits and samples of every packet."""
        shape: Shape | None = None
        parts: list[NDArray[Any]] = []
        start = held = length = 0
        for block in blocks:
            if shape is None:
                shape = self._shape(block)
                length = _segment(self.seconds, shape)
            if block.dtype != shape.dtype or block.shape[:-1] != (shape.channels,):
                raise ValueError(
                    f"a block is {block.dtype} {list(block.shape)}, the first has "
                    f"{shape.channels} channels of {shape.dtype}"
                )
            if not _fits(block, shape.bits):
                raise ValueError(f"a sample in a later block does not fit into {shape.bits} bits")
            rest = block.cpu().numpy()
            while held + rest.shape[1] >= length:
                whole = np.concatenate([*parts, rest[:, : length - held]], 1)
                yield start, shape.bits, whole
                rest = rest[:, length - held :]
                start, held, parts = start + length, 0, []
            if rest.size:
                parts.append(rest)
                held += rest.shape[1]
        if parts and shape:
            yield start, shape.bits, np.concatenate(parts, 1)


CODEC = Lossless


def _fits(samples: Tensor, bits: int) -> bool:
    if not samples.numel() or 8 * samples.element_size() <= bits:
        return True
    limit = 1 << (bits - 1)
    return -limit <= int(samples.min()) <= int(samples.max()) < limit


def _segment(seconds: float, shape: Shape) -> int:
    """Samples of a packet."""
    most = MAX_SAMPLES // shape.channels
    return max(1, round(min(seconds * shape.sample_rate, most)))


def _silence(
    shape: Shape, start: int, stop: int, problem: BitstreamError | str
) -> Iterator[Tensor]:
    """What stands for samples that are lost."""
    text = f"{problem}; samples {start} to {stop} are silence instead"
    warnings.warn(text, DamageWarning, stacklevel=3)
    most = MAX_SAMPLES // shape.channels
    for at in range(start, stop, most):
        yield torch.zeros(shape.channels, min(most, stop - at), dtype=shape.dtype)


def _stated(packet: Packet, shape: Shape) -> int:
    """The samples of a damaged packet, if they can still be read."""
    try:
        return lossless_packets.read_head(Cursor(memoryview(packet.body), 0), shape.channels).length
    except BitstreamError:
        return 0


def _parse_header(header: dict[str, Any]) -> Shape:
    fields: list[Any] = [header.get(name) for name in "crbw"]
    channels, sample_rate, bits, width = fields
    if (
        any(type(field) is not int for field in fields)
        or not 1 <= channels <= sounds.MAX_CHANNELS
        or not 1 <= sample_rate <= MAX_RATE
        or width not in _DTYPES
        or not 8 <= bits <= 8 * width
    ):
        raise BitstreamError(f"header fields c, r, b, w are {fields}")
    return Shape(channels, sample_rate, bits, _DTYPES[width])
