"""How many codebooks a packet gets, so that the file is no larger than was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..codec import Rate
from ..container import packet_size
from .rvq_packets import Coder
from .rvq_timing import Timing

_INDEX = 17  # bytes of box I and of its offset in E, but for its entries
_UNNAMED = 8  # bytes of the empty packet that a reserve holds already
_HEADS = 24  # bytes of a packet besides codes, at most but for channels


class Budget:
    """Bytes that are there for the packets so far; what one leaves is there for the next."""

    def __init__(
        self, pace: float, reserve: int, samples: int | None, rest: Callable[[int], int]
    ) -> None:
        """Begin a file.

        Args:
            pace: bytes to a sample.
            reserve: bytes of the file with an empty packet.
            samples: of the whole sound; None if that is not known.
            rest: bytes that the packets behind the one of a number can do with: what is kept.
        """
        self._pace, self._whole, self._rest = pace, samples, rest
        self._spent = reserve - _UNNAMED + _INDEX
        self._samples = 0
        self._last = 1  # stages of the packet before

    @property
    def exceeded(self) -> int:
        """Bytes of a whole file that is larger than asked for; 0 of any other."""
        whole = self._samples == self._whole
        return self._spent if whole and self._spent > self._samples * self._pace else 0

    def choose(self, number: int, samples: int, most: int, code: Callable[[int], bytes]) -> bytes:
        """The body of a packet with the most codebooks that there are bytes for, or with one.

        Args:
            number: key of the packet.
            samples: that it stands for.
            most: codebooks.
            code: makes a body with so many.
        """
        self._samples += samples
        end = self._samples if self._whole is None else self._whole
        left = min(self._samples * self._pace, end * self._pace - self._rest(number)) - self._spent
        bodies: dict[int, bytes] = {}

        def cost(stages: int) -> int:
            if stages not in bodies:
                bodies[stages] = code(stages)
            return packet_size(number, len(bodies[stages]))

        stages = min(self._last, most)
        while stages > 1 and cost(stages) > left:
            stages -= 1
        while stages < most and cost(stages + 1) <= left:
            stages += 1
        self._spent += cost(stages)
        self._last = stages
        return bodies[stages]


def pace_of(rate: Rate, timing: Timing, samples: int | None, original: int, codec: str) -> float:
    """Bytes to a sample that a rate asks for.

    Args:
        rate: kbps, ratio or max_bytes.
        timing: of the sound.
        samples: of the whole sound to each channel; None is not known.
        original: bytes of a sample in all channels.
        codec: its name, for messages.

    Raises:
        ValueError: another kind of rate, or max_bytes of a sound whose length is not known.
    """
    if rate.name == "kbps":
        return rate.value * 125 / timing.sample_rate
    if rate.name == "ratio":
        return original / rate.value
    if rate.name != "max_bytes":
        raise ValueError(f"{codec} takes kbps, quality, ratio or max_bytes, not {rate.name}")
    if samples is None:
        raise ValueError("max_bytes needs the whole sound at once; ask for kbps instead")
    return rate.value / max(1, samples)


def rest_of(
    timing: Timing, coder: Coder, channels: int, samples: int | None
) -> Callable[[int], int]:
    """Bytes that packets behind one take with one codebook, at most.

    Where the end of the sound is not known, there may be a packet of one frame for it.
    """

    def rest(number: int) -> int:
        behind = (number + 1) * timing.group
        frames = 1 if samples is None else max(0, timing.frames(samples) - behind)
        packets = math.ceil(frames / timing.group)
        codes = math.ceil(frames * coder.bits / 8) + 4 * packets
        return packets * _HEADS + channels * codes

    return rest


def stages_of_quality(quality: float, n_q: int) -> int:
    """Codebooks for a quality of 0 to 100."""
    if quality > 100:
        raise ValueError(f"quality must be 0 to 100, got {quality:g}")
    return 1 + round(quality / 100 * (n_q - 1))
