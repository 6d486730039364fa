"""Which samples and which code frames a packet stands for."""

from __future__ import annotations

from dataclasses import dataclass

from ...kernels.errors import BitstreamError
from ..transforms.resample import length
from .rvq_model import Size


@dataclass(frozen=True)
class Timing:
    """A sound at `sample_rate` in packets of `group` code frames of a model.

    A code frame stands for the model's samples from its number times `frame` on; a packet for the
    samples of the sound whose place is in its frames. The decoder is a hop late, so a sound ends in
    a frame in which there may be no sample of it.
    """

    sample_rate: int
    size: Size
    group: int

    def start(self, number: int) -> int:
        """The first sample of a packet, in a sound that is long enough."""
        place = number * self.group * self.size.frame
        return length(place, self.size.sample_rate, self.sample_rate)

    def frames(self, samples: int) -> int:
        """Code frames of a sound of so many samples."""
        if not samples:
            return 0
        at_rate = length(samples, self.sample_rate, self.size.sample_rate)
        return -(-(at_rate + self.size.hop) // self.size.frame)

    def samples(self, number: int, total: int) -> int:
        """Samples of packet `number` of a sound of so many."""
        return min(self.start(number + 1), total) - min(self.start(number), total)

    def frames_of(self, number: int, samples: int, before: int) -> int:
        """Code frames in packet `number`, which states `samples`, behind `before` samples.

        Raises:
            BitstreamError: no packet there has so many samples.
        """
        total = before + samples
        frames = min(self.group, self.frames(total) - number * self.group)
        if frames < 1 or samples != self.samples(number, total):
            raise BitstreamError(
                f"packet {number} says {samples} samples behind {before}; it ought to start with "
                f"sample {self.start(number)} and to hold at most "
                f"{self.start(number + 1) - self.start(number)}"
            )
        return frames

    def frame_at(self, sample: int) -> int:
        """The code frame in which a sample is."""
        return sample * self.size.sample_rate // (self.sample_rate * self.size.frame)
