"""Streams of `audio/rvq` for sounds on their way: a small header, then some bytes for each frame.

    encoder = codec.stream_encoder(channels=1, kbps=6)    decoder = codec.stream_decoder()
    data = encoder.push(samples)                          samples = decoder.push(data)
    data = encoder.finish()                               samples = decoder.finish()

    header  4 bytes "LPRV", 1 version, 8 digest of the weights, varint sample rate, 1 channels,
            1 layout, 1 codebooks of each coded channel, 4 checksum of all before
    frame   codes of each coded channel, packed; 15 bytes for 12 codebooks of 1024 codes

A frame that starts with the highest code is longer by a bit, and the last one by a number
(FORMAT.md, section 20.5). Frames have no checksum, what carries them has its own, and no prior,
whose frames need all those before. Codes and samples are those of a file with as many codebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..boxes import checksum
from ..fields import Cursor, get_varint, put_varint
from ..transforms.resample import LEAST_RATE, MOST_RATE, length, reach
from .rvq_decoder import SoundDecoder
from .rvq_encoder import Group, SoundEncoder
from .rvq_networks import Networks
from .rvq_packets import Coder, pack, unpack
from .rvq_search import trace
from .rvq_timing import Timing
from .sound import MOST_CHANNELS, to_float

_MAGIC = b"LPRV"
_VERSION = 1
_DROPPED_BITS = 16  # of the number in the last frame


@dataclass(frozen=True)
class StreamHeader:
    """What the start of a stream says.

    Attributes:
        digest: of the weights.
        sample_rate: in Hz.
        joint: two channels as mid and side.
        stages: codebooks of each coded channel.
    """

    digest: bytes
    sample_rate: int
    joint: bool
    stages: tuple[int, ...]

    def put(self) -> bytes:
        """The bytes."""
        start = _MAGIC + bytes([_VERSION]) + self.digest + put_varint(self.sample_rate)
        start += bytes([len(self.stages), self.joint, *self.stages])
        return start + checksum(start).to_bytes(4, "little")


def get_header(data: bytes) -> tuple[StreamHeader, int] | None:
    """The header at the start of a stream and its size; None if there is not all of it yet.

    Raises:
        BitstreamError: it is damaged, or no such stream.
    """
    if data[:4] != _MAGIC[: len(data)]:
        raise BitstreamError(f"the stream starts with {data[:4].hex(' ')}, not with {_MAGIC!r}")
    cursor = Cursor(memoryview(data), 0)
    try:
        cursor.take(4, "magic")
        version = cursor.take(1, "version")[0]
        digest = bytes(cursor.take(8, "digest"))
        sample_rate = get_varint(cursor, "sample rate")
        channels, joint = cursor.take(2, "channels and layout")
        stages = tuple(cursor.take(channels, "codebooks"))
        end = cursor.position
        stated = int.from_bytes(cursor.take(4, "checksum"), "little")
    except BitstreamError:
        if len(data) >= 5 + 8 + 9 + 2 + 255 + 4:
            raise
        return None
    if version != _VERSION:
        raise BitstreamError(f"the stream is of version {version}, this release knows {_VERSION}")
    if checksum(data[:end]) != stated:
        raise BitstreamError("the header of the stream is damaged: its checksum is another")
    legal = 1 <= channels <= MOST_CHANNELS and joint <= (channels == 2) and min(stages) > 0
    if not legal or not LEAST_RATE <= sample_rate <= MOST_RATE:
        raise BitstreamError(
            f"the stream has {channels} channels in layout {joint} at {sample_rate} Hz with "
            f"codebooks {stages}"
        )
    return StreamHeader(digest, sample_rate, bool(joint), stages), cursor.position


def stages_for(bytes_to_frame: float, channels: int, joint: bool, coder: Coder) -> tuple[int, ...]:
    """Codebooks of each coded channel of a stream; side gets half as many as mid.

    Raises:
        ValueError: not even one fits.
    """
    codes = int(bytes_to_frame + 1e-9) * 8 // coder.bits
    if codes < channels:
        raise ValueError(
            f"the rate leaves {bytes_to_frame:.1f} bytes to a frame, one codebook for each of "
            f"{channels} channels takes {-(-channels * coder.bits // 8)}; ask for more kbps"
        )
    if joint:
        side = max(1, codes // 3)
        return min(codes - side, coder.n_q), min(side, coder.n_q)
    return (min(codes // channels, coder.n_q),) * channels


class _Frames:
    """The frames of a stream in bits (FORMAT.md, section 20.5)."""

    def __init__(self, stages: tuple[int, ...], coder: Coder) -> None:
        self._stages, self._coder = stages, coder
        self._top = coder.codebook_size - 1  # the first code that says that there is more
        self._size = sum(stages) * coder.bits  # bits of the codes

    def put(self, codes: list[Tensor], dropped: int | None) -> bytes:
        """Codes [stages, 1] of each coded channel; samples to drop if the frame is the last."""
        bits, size = self._coder.bits, self._size
        value = int.from_bytes(pack(torch.cat(codes), bits), "big") >> -size % 8
        if dropped is not None:
            value |= ((self._top << 1 | 1) << _DROPPED_BITS | dropped) << size
            size += bits + 1 + _DROPPED_BITS
        elif value >> size - bits == self._top:
            below = size - bits
            value = self._top << below + 1 | value & (1 << below) - 1
            size += 1
        whole = -(-size // 8)
        return (value << 8 * whole - size).to_bytes(whole, "big")

    def get(self, data: bytes) -> tuple[list[Tensor], int | None, int] | None:
        """The mirror of `put`, and the size of the frame; None if it is not all there."""
        bits, size = self._coder.bits, self._size
        start = int.from_bytes(data[: bits // 8 + 1], "big")
        missing = 8 * (bits // 8 + 1 - len(data))
        start = start << missing if missing > 0 else start
        flag = start >> 8 * (bits // 8 + 1) - bits - 1  # the first code, and a bit
        marked = flag >> 1 == self._top and 8 * len(data) >= bits
        last = marked and bool(flag & 1)
        size += (bits + 1 + _DROPPED_BITS if last else 1) if marked else 0
        whole = -(-size // 8)
        if len(data) < max(whole, -(-(bits + marked) // 8)):
            return None
        value = int.from_bytes(data[:whole], "big")
        padding = 8 * whole - size
        if value & (1 << padding) - 1:
            raise BitstreamError("the padding behind a frame is not zero")
        value >>= padding
        dropped = value >> self._size & (1 << _DROPPED_BITS) - 1 if last else None
        if marked and not last:
            below = self._size - bits
            value = self._top << below | value & (1 << below) - 1
        value = (value & (1 << self._size) - 1) << -self._size % 8
        packed = value.to_bytes(-(-self._size // 8), "big")
        coder = self._coder
        codes = unpack(packed, sum(self._stages), 1, bits, coder.codebook_size)
        return list(torch.split(codes, list(self._stages))), dropped, whole


class StreamEncoder:
    """Samples to the bytes of a stream."""

    def __init__(self, networks: Networks, header: StreamHeader, beam: int) -> None:
        """Begin a stream; `beam` as for `Searcher.find`."""
        coder = Coder(networks.size.codebook_size, networks.size.n_q, None)
        self._header, self._waiting = header, header.put()
        self._timing = Timing(header.sample_rate, networks.size, 1)
        self._frames = _Frames(header.stages, coder)
        channels = len(header.stages)
        self._encoder = SoundEncoder(
            networks, self._timing, channels, header.joint, max(header.stages), beam
        )
        self._samples = 0
        self._open = True

    @property
    def latency(self) -> int:
        """Samples from one that goes in to the same one out of a decoder, at most."""
        return latency(self._timing)

    @property
    def kbps(self) -> float:
        """Of all frames but a few that take a byte more."""
        codes = torch.zeros(sum(self._header.stages), 1, dtype=torch.int64)
        size = len(self._frames.put([codes], None))
        return size * 8 * self._timing.size.frame_rate / 1000

    def push(self, x: Tensor) -> bytes:
        """Samples [C, n], any number -> the frames that they complete.

        Raises:
            ValueError: no such samples. RuntimeError: the stream is finished.
        """
        self._check_open()
        x = to_float(x, "stream_encoder")
        if len(x) != len(self._header.stages):
            raise ValueError(f"got {len(x)} channels, the stream has {len(self._header.stages)}")
        self._samples += x.shape[1]
        return self._take(b"".join(self._put(group) for group in self._encoder.push(x)))

    def finish(self) -> bytes:
        """The frames that the end completes.

        Raises:
            RuntimeError: the stream is finished.
        """
        self._check_open()
        self._open = False
        *groups, last = [*self._encoder.finish(), None]
        if groups:
            groups, last = groups[:-1], groups[-1]
        made = [self._put(group) for group in groups if group is not None]
        if last is not None:
            whole = samples_of(self._timing, last.number + 1)
            made.append(self._put(last, whole - self._samples))
        return self._take(b"".join(made))

    def _put(self, group: Group, dropped: int | None = None) -> bytes:
        pairs = zip(group.trees, self._header.stages, strict=True)
        return self._frames.put([trace(tree, n) for tree, n in pairs], dropped)

    def _take(self, data: bytes) -> bytes:
        """Bytes with the header before the first ones."""
        data, self._waiting = self._waiting + data, b""
        return data

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("the stream is finished; make a new stream_encoder")


class StreamDecoder:
    """The bytes of a stream to samples.

    Attributes:
        header: what the start says; None as long as it is not there.
        ended: whether the last frame was there.
    """

    def __init__(self, find: Callable[[bytes], Networks]) -> None:
        """Begin a stream; `find` gives the networks of a digest."""
        self.header: StreamHeader | None = None
        self.ended = False
        self._find = find
        self._data = b""
        self._decoder: SoundDecoder
        self._frames: _Frames
        self._timing: Timing
        self._left: int | None = None  # samples up to the end, once that is known

    @property
    def latency(self) -> int:
        """As that of the encoder; RuntimeError before the header."""
        self._check_begun()
        return latency(self._timing)

    def push(self, data: bytes | None) -> Tensor:
        """Decode what is there.

        Args:
            data: the next bytes, cut anywhere; None says that the next frame is lost: it is
                concealed, and bytes of a frame that was begun are thrown away.

        Returns:
            The samples that are complete, float [C, n]; [1, 0] before the header.

        Raises:
            BitstreamError: the header is damaged, or bytes follow the last frame.
            ValueError: the weights are not at hand. RuntimeError: a frame lost before the header.
        """
        if data is None:
            self._check_begun()
            self._data = b""
            return self._cut(self._decoder.conceal(0 if self.ended else 1))
        self._data += data
        if self.header is None and not self._begin():
            return torch.zeros(1, 0)
        assert self.header is not None
        made = [torch.zeros(len(self.header.stages), 0)]
        while not self.ended and (found := self._frames.get(self._data)) is not None:
            codes, dropped, size = found
            self._data = self._data[size:]
            if dropped is not None:
                self.ended = True
                whole = samples_of(self._timing, self._decoder.frames + 1)
                self._left = max(0, whole - dropped - self._decoder.next)
            made.append(self._cut(self._decoder.push(codes, self.header.joint, 1)))
        if self.ended and self._data:
            raise BitstreamError(f"{len(self._data)} bytes follow the last frame of the stream")
        return torch.cat(made, 1)

    def finish(self) -> Tensor:
        """The samples that were waiting for more, float [C, n]; call it when nothing more comes.

        A stream that was cut gives what its whole frames hold.
        """
        if self.header is None:
            return torch.zeros(1, 0)
        return self._cut(self._decoder.finish())

    def _begin(self) -> bool:
        """Read the header, if it is all there."""
        found = get_header(self._data)
        if found is None:
            return False
        header, size = found
        networks = self._find(header.digest)
        coder = Coder(networks.size.codebook_size, networks.size.n_q, None)
        if max(header.stages) > coder.n_q:
            raise BitstreamError(
                f"the stream has codebooks {header.stages}, its weights have {coder.n_q}"
            )
        self._data = self._data[size:]
        self._timing = Timing(header.sample_rate, networks.size, 1)
        self._frames = _Frames(header.stages, coder)
        self._decoder = SoundDecoder(networks, header.sample_rate, len(header.stages))
        self.header = header
        return True

    def _cut(self, x: Tensor) -> Tensor:
        """The samples of these that are before the end."""
        if self._left is not None:
            x = x[:, : self._left]
            self._left -= x.shape[1]
        return x

    def _check_begun(self) -> None:
        if self.header is None:
            raise RuntimeError("the stream has not begun; push its first bytes")


def samples_of(timing: Timing, frames: int) -> int:
    """Samples that so many code frames can stand for."""
    size = timing.size
    return length(max(0, frames * size.frame - size.hop), size.sample_rate, timing.sample_rate)


def latency(timing: Timing) -> int:
    """Samples by which a stream is late: a frame, a hop, and what changes of rate look ahead."""
    rate, own = timing.sample_rate, timing.size.sample_rate
    waits = timing.size.frame + timing.size.hop + reach(own, rate)
    return length(waits, own, rate) + reach(rate, own)
