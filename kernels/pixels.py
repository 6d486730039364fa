"""Planes of pictures without loss: checks arguments and picks the fastest backend of this machine.

The bytes are defined in `pixels_ref`; every backend writes and reads exactly those. Coding releases
the interpreter lock.
"""

from collections.abc import Sequence

import numpy as np

from . import pixels_ref, rans
from .extension import compiled
from .pixels_numbers_ref import Samples
from .pixels_taps_ref import Plane

__all__ = ["MAX_ERROR", "MAX_PEAK", "Plane", "decode", "encode"]

MAX_PEAK = 65535
MAX_ERROR = 255
MAX_PLANES = 4


def encode(samples: Samples, planes: Sequence[Plane], *, backend: str | None = None) -> bytes:
    """Code the planes of a tile.

    Args:
        samples: uint16 [planes, height, width], contiguous, none above its plane's peak. With an
            error they become what `decode` returns.
        planes: how each is coded, 1 to 4; the number of links is at most that of planes before.
        backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

    Returns:
        The bytes: no length, no checksum.

    Raises:
        ValueError: a wrong dtype, shape, peak, error, link or sample.
    """
    chosen = rans.pick(backend)
    if samples.dtype != np.uint16 or samples.ndim != 3 or not samples.flags.c_contiguous:
        raise ValueError(f"samples are {samples.dtype} {samples.shape}, expected uint16 [p, h, w]")
    _check(planes, *samples.shape)
    for plane, rows in zip(planes, samples, strict=True):
        if int(rows.max()) > plane.peak:
            raise ValueError(f"a sample is {int(rows.max())}, above its peak {plane.peak}")
    if chosen == "ref":
        return pixels_ref.encode(samples, planes)
    _, height, width = samples.shape
    listed = [tuple(plane) for plane in planes]
    data: bytes = compiled().pixels_encode(samples, height, width, listed, rans.ISAS.index(chosen))
    return data


def decode(
    data: bytes | bytearray | memoryview,
    planes: Sequence[Plane],
    height: int,
    width: int,
    *,
    backend: str | None = None,
) -> Samples:
    """The mirror of `encode`: uint16 [planes, height, width].

    Damaged bytes decode to wrong samples, none above its peak: callers keep a checksum.

    Raises:
        ValueError: a wrong size, peak, error or link.
    """
    chosen = rans.pick(backend)
    _check(planes, len(planes), height, width)
    if chosen == "ref":
        return pixels_ref.decode(bytes(data), planes, height, width)
    samples = np.empty((len(planes), height, width), np.uint16)
    listed = [tuple(plane) for plane in planes]
    compiled().pixels_decode(data, samples, height, width, listed, rans.ISAS.index(chosen))
    return samples


def _check(planes: Sequence[Plane], count: int, height: int, width: int) -> None:
    if not 1 <= len(planes) <= MAX_PLANES or len(planes) != count or height < 1 or width < 1:
        raise ValueError(f"{len(planes)} planes for samples [{count}, {height}, {width}]")
    for i, (peak, error, links) in enumerate(planes):
        if not 1 <= peak <= MAX_PEAK or not 0 <= error <= MAX_ERROR:
            raise ValueError(f"plane {i} has peak {peak} and error {error}")
        if not 0 <= links <= min(i, 2):
            raise ValueError(f"plane {i} has {links} links, legal are 0 to {min(i, 2)}")
