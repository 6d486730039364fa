"""The interface of every codec: a signal and a rate go in, packets come out, and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

Buffer = bytes | bytearray | memoryview


class DamageWarning(UserWarning):
    """A damaged signal was decoded as far as it is whole, as the caller has asked."""


@dataclass(frozen=True)
class Packet:
    """A unit that can be stored, found and decoded by itself.

    Attributes:
        key: name or number by which a reader finds the packet; None when it needs none. Keys
            other than None are unique in a file; integers lie in [-2**64, 2**64).
        body: small or checked bytes; the container covers them with its checksum.
        bulk: bytes that start at a multiple of 16 in the file. The container does NOT check
            them: the codec keeps its checksums in `body`. Payloads below some 4 KiB are better
            off in `body`, where no padding is spent.
    """

    key: str | int | None
    body: bytes
    bulk: Buffer = b""


@dataclass(frozen=True)
class Bound:
    """The most that a packet can take.

    Attributes:
        key: of the packet.
        body: bytes of its body.
        bulk: bytes of its bulk.
    """

    key: str | int | None
    body: int
    bulk: int


# Given a packet's bound and the size of the body that is expected: memory for its bulk, best where
# it will be in the file.
Place = Callable[[Bound, int], memoryview]


@dataclass(frozen=True)
class Rate:
    """The one way to ask for a size or a quality: exactly one field is set.

    Attributes:
        quality: the codec's own scale, 0 to 100, more is better.
        bpp: bits per pixel of the original, whole file.
        kbps: 1000 bits per second, whole file.
        ratio: bytes of the original over bytes of the file.
        max_bytes: upper bound of the file's size.
        psnr: dB.

    >>> Rate.of(bpp=0.5)
    Rate(bpp=0.5)
    """

    quality: float | None = None
    bpp: float | None = None
    kbps: float | None = None
    ratio: float | None = None
    max_bytes: int | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one field is set, to a finite number in its range."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        names = ", ".join(f.name for f in fields(self))
        if len(given) != 1:
            raise ValueError(f"rate takes exactly one of {names}, got {sorted(given) or 'none'}")
        ((name, value),) = given.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"rate {name} must be a number, got {value!r}")
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "quality"):
            raise ValueError(f"rate {name} must be finite and above 0, got {value!r}")

    @classmethod
    def of(cls, **asked: float | None) -> Rate:
        """Make a rate from options of which one is not None: `Rate.of(bpp=0.3, psnr=None)`."""
        unknown = sorted(set(asked) - {f.name for f in fields(cls)})
        if unknown:
            names = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"rate has no {unknown[0]!r}; it takes one of {names}")
        return cls(**asked)  # type: ignore[arg-type]  # max_bytes is checked in __post_init__

    @property
    def name(self) -> str:
        """Which field is set."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def value(self) -> float:
        """The number that was asked for."""
        value: float = getattr(self, self.name)
        return value

    def __repr__(self) -> str:
        """Show the field that is set."""
        return f"Rate({self.name}={self.value!r})"


class Codec(ABC):
    """Turns a signal into packets and back.

    An instance carries options (mode, threads, device) and no state of a signal, so one instance
    serves any number of signals and threads. The module of a codec exports its class as `CODEC`.
    """

    name: ClassVar[str]
    deep: ClassVar[bool] = False  # pictures: whether 16 bits are taken, as uint16

    @abstractmethod
    def header(self, signal: Any) -> dict[str, Any]:
        """Return the parameters for box H: what `decode` must know before the first packet.

        Keys are str; values str, int, bytes, bool, None, float, or lists and maps of them.
        """

    @abstractmethod
    def encode(self, signal: Any, rate: Rate | None = None, reserve: int = 0) -> Iterator[Packet]:
        """Yield the packets of a signal, one at a time.

        Args:
            signal: what the codec takes.
            rate: the size or quality asked for.
            reserve: bytes that the file spends besides the packets' bodies and bulks, for
                codecs that can meet a size of the whole file.

        A codec that can make its bulks in given memory has a method `bounds(signal)` besides, an
        iterator of Bound, and takes a keyword `place`, a Place.

        Raises:
            ValueError: the signal or the kind of rate is not one that this codec takes.
        """

    @abstractmethod
    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Any:
        """Return the signal of these packets, which may be a part of what `encode` made.

        A codec that can decode in place takes a keyword `out` besides and returns it.

        Raises:
            BitstreamError: header or packets are damaged.
        """

    def needs(self, packet: Packet) -> str | int | None:
        """Return the key of the packet that `decode` must be given before this one, or None."""
        return None

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """Say what a packet holds without decoding it (no byte of the bulk is read).

        A tensor codec answers {"dtype": torch.dtype, "shape": tuple[int, ...]} at least.
        """
        return {}

    def verify(self, header: dict[str, Any], packet: Packet) -> None:
        """Raise BitstreamError if a packet is damaged, as far as can be seen without more data."""
        self.decode(header, [packet])
