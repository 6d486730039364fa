"""The bytes of a packet of `audio/rvq` (FORMAT.md, section 20.2), in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..fields import Cursor, get_varint, put_varint

MOST_STAGES = 64
_PRIOR = 0x80  # of a head: the codes went through the prior
_STAGES = 0x7F


class Prior(Protocol):
    """What codes codes in fewer bits."""

    def encode(self, codes: Tensor) -> bytes:
        """int64 [k, T] -> bytes."""
        ...

    def decode(self, data: bytes, k: int, frames: int) -> Tensor:
        """The mirror; BitstreamError for other bytes."""
        ...


@dataclass(frozen=True)
class Coder:
    """How codes become bytes.

    Attributes:
        codebook_size: of every stage.
        n_q: the most stages.
        prior: None codes each code in the same number of bits.
    """

    codebook_size: int
    n_q: int
    prior: Prior | None

    @property
    def bits(self) -> int:
        """Of a code without the prior."""
        return max(1, (self.codebook_size - 1).bit_length())

    def put(self, codes: Tensor) -> tuple[int, bytes]:
        """int64 [k, T] -> head and bytes, by the shorter way."""
        head, data = len(codes), pack(codes, self.bits)
        if self.prior is not None:
            coded = self.prior.encode(codes)
            if len(coded) < len(data):
                return head | _PRIOR, coded
        return head, data

    def get(self, head: int, data: bytes, frames: int) -> Tensor:
        """The mirror of `put`."""
        if not head & _PRIOR:
            return unpack(data, head, frames, self.bits, self.codebook_size)
        if self.prior is None:
            raise BitstreamError("the codes went through a prior, the weights have none")
        return self.prior.decode(data, head & _STAGES, frames)


def pack(codes: Tensor, bits: int) -> bytes:
    """int64 [k, T] -> bytes: frame by frame, highest bit first, zeros up to a byte."""
    rows = codes.t().numpy()[..., None] >> np.arange(bits - 1, -1, -1)
    return np.packbits((rows & 1).astype(np.uint8).reshape(-1)).tobytes()


def unpack(data: bytes, k: int, frames: int, bits: int, codebook_size: int) -> Tensor:
    """The mirror of `pack`.

    Raises:
        BitstreamError: not so many bytes, a code outside the codebook, or padding that is not zero.
    """
    count = k * frames * bits
    if len(data) != -(-count // 8):
        raise BitstreamError(f"{k} x {frames} codes take {-(-count // 8)} bytes, got {len(data)}")
    found = np.unpackbits(np.frombuffer(data, np.uint8))
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
    codes = found[:count].reshape(frames, k, bits) @ weights
    if found[count:].any():
        raise BitstreamError("the padding behind the codes is not zero")
    if codes.size and int(codes.max()) >= codebook_size:
        raise BitstreamError(f"code {int(codes.max())} is outside a codebook of {codebook_size}")
    return torch.from_numpy(codes.T.copy())


@dataclass(frozen=True)
class Body:
    """What a packet says.

    Attributes:
        samples: of the sound that it stands for.
        joint: two channels coded as mid and side.
        codes: of each coded channel, int64 [k, T]; None is silence.
        frames: T.
    """

    samples: int
    joint: bool
    codes: Sequence[Tensor | None]
    frames: int

    def put(self, coder: Coder) -> bytes:
        """The bytes."""
        heads, streams = bytearray(), []
        for codes in self.codes:
            head, data = (0, b"") if codes is None else coder.put(codes)
            heads.append(head)
            if head:
                streams.append(data)
        layout = bytes([self.joint]) if len(self.codes) == 2 else b""
        sized = b"".join(put_varint(len(data)) + data for data in streams[:-1])
        return put_varint(self.samples) + layout + heads + sized + b"".join(streams[-1:])


def get_body(data: bytes, channels: int, coder: Coder, frames_of: Callable[[int], int]) -> Body:
    """Read a packet.

    Args:
        data: its body.
        channels: of the sound.
        coder: the one that it was written with.
        frames_of: from samples to code frames; raises BitstreamError for a wrong number.

    Raises:
        BitstreamError: the bytes are not those of such a packet.
    """
    cursor = Cursor(memoryview(data), 0)
    samples = get_varint(cursor, "samples of a packet")
    frames = frames_of(samples)
    layout = cursor.take(1, "layout")[0] if channels == 2 else 0
    if layout > 1:
        raise BitstreamError(f"layout of a packet is {layout}, expected 0 or 1")
    heads = bytes(cursor.take(channels, "heads of channels"))
    for head in heads:
        if head & _STAGES > coder.n_q or head == _PRIOR:
            raise BitstreamError(
                f"a channel's head is {head:#04x}; {coder.n_q} codebooks are there"
            )
    last = max((i for i, head in enumerate(heads) if head), default=-1)
    codes: list[Tensor | None] = []
    for i, head in enumerate(heads):
        if not head:
            codes.append(None)
            continue
        size = cursor.left if i == last else get_varint(cursor, "size of codes")
        codes.append(coder.get(head, bytes(cursor.take(size, "codes")), frames))
    if cursor.left:
        raise BitstreamError(f"{cursor.left} bytes follow the packet of silence")
    return Body(samples, bool(layout), codes, frames)


def describe(data: bytes, channels: int) -> dict[str, Any]:
    """What the first bytes of a packet say: samples, and codebooks of each coded channel."""
    cursor = Cursor(memoryview(data), 0)
    samples = get_varint(cursor, "samples of a packet")
    layout = cursor.take(1, "layout")[0] if channels == 2 else 0
    heads = bytes(cursor.take(channels, "heads of channels"))
    return {
        "samples": samples,
        "joint": bool(layout),
        "codebooks": [head & _STAGES for head in heads],
        "prior": any(head & _PRIOR for head in heads),
    }
