"""Sounds without loss: checks arguments and picks the fastest backend of this machine.

The bytes are defined in `sounds_ref`; every backend writes and reads exactly those. Coding releases
the interpreter lock.
"""

from collections.abc import Sequence

import numpy as np

from . import rans, sounds_ref
from .extension import compiled
from .sounds_channel_ref import EFFORTS, Channel, Samples

__all__ = ["MAX_CHANNELS", "MAX_EFFORT", "Channel", "Samples", "decode", "encode"]

MAX_EFFORT = len(EFFORTS) - 1
MAX_CHANNELS = 255
_LOWEST, _HIGHEST = -(1 << 31), (1 << 31) - 1


def encode(
    samples: Samples, channels: Sequence[Channel], effort: int = 1, *, backend: str | None = None
) -> bytes:
    """Code the channels of a sound.

    Args:
        samples: int32 [channels, length], contiguous, each in the range of its channel.
        channels: 1 to 255.
        effort: 0 to MAX_EFFORT, how much is computed; the decoder computes as much.
        backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

    Returns:
        The bytes: no length, no checksum.

    Raises:
        ValueError: a wrong dtype, shape, range, partner, effort or sample.
    """
    chosen = rans.pick(backend)
    if samples.dtype != np.int32 or samples.ndim != 2 or not samples.flags.c_contiguous:
        raise ValueError(f"samples are {samples.dtype} {samples.shape}, expected int32 [c, n]")
    _check(channels, samples.shape[0], samples.shape[1], effort)
    for i, (channel, row) in enumerate(zip(channels, samples, strict=True)):
        if row.size and not channel.low <= row.min() <= row.max() <= channel.high:
            raise ValueError(f"a sample of channel {i} is not in its range {channel[:2]}")
    if chosen == "ref":
        return sounds_ref.encode(samples.copy(), channels, effort)
    listed = [tuple(channel) for channel in channels]
    data: bytes = compiled().sounds_encode(samples, listed, effort, rans.ISAS.index(chosen))
    return data


def decode(
    data: bytes | bytearray | memoryview,
    channels: Sequence[Channel],
    length: int,
    effort: int = 1,
    *,
    backend: str | None = None,
) -> Samples:
    """The mirror of `encode`: int32 [channels, length].

    Damaged bytes decode to wrong samples, all in the range of their channel: callers keep a
    checksum.

    Raises:
        ValueError: a wrong length, range, partner or effort.
    """
    chosen = rans.pick(backend)
    _check(channels, len(channels), length, effort)
    if chosen == "ref":
        return sounds_ref.decode(bytes(data), channels, length, effort)
    samples = np.zeros((len(channels), length), np.int32)
    listed = [tuple(channel) for channel in channels]
    compiled().sounds_decode(data, samples, listed, effort, rans.ISAS.index(chosen))
    return samples


def _check(channels: Sequence[Channel], count: int, length: int, effort: int) -> None:
    if not 1 <= len(channels) <= MAX_CHANNELS or len(channels) != count or length < 0:
        raise ValueError(f"{len(channels)} channels for samples [{count}, {length}]")
    if not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort must be 0 to {MAX_EFFORT}, got {effort}")
    for i, (low, high, partner) in enumerate(channels):
        if not _LOWEST <= low <= high <= _HIGHEST:
            raise ValueError(f"channel {i} has the range {low} to {high}")
        if not 0 <= partner < count:
            raise ValueError(f"channel {i} has the partner {partner} of {count} channels")
