"""The priors of `video/fit`: where the networks of each kind of frames are expected.

A prior file is one of `codecs/image/fit_prior.py`, with tensors named PRESET.KIND.COLOURS.mean and
so on, KIND being 0 to 2 as in `fit_order.py`. A stream names it by its digest. Priors that were
shipped once stay, under any name video-fit*.lpkw.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from ..image import fit_prior as still
from ..image.fit_networks import Slice
from . import fit_networks as networks
from .fit_order import INTRA, KINDS

SHIPPED = still.WEIGHTS / "video-fit.lpkw"
CODEC = "video/fit"


@dataclass(frozen=True)
class Preset:
    """Sizes of the networks.

    Attributes:
        number: of the preset in the stream.
        sizes: width of the context model (a multiple of 8) and width of the synthesis of each kind
            of frames.
        first: the finest grid that the encoder fits, of each kind.
    """

    number: int
    sizes: tuple[tuple[int, int], ...]
    first: tuple[int, ...]

    def shape(self, kind: int, colours: int) -> networks.Shape:
        """Of the networks of a kind."""
        return networks.Shape(*self.sizes[kind], colours, kind != INTRA)


PRESETS = {
    "fast": Preset(0, ((8, 16), (8, 12), (8, 8)), (0, 1, 1)),
    "default": Preset(1, ((16, 24), (16, 16), (8, 12)), (0, 1, 1)),
    "best": Preset(2, ((24, 40), (16, 24), (16, 16)), (0, 1, 1)),
}


@dataclass(frozen=True)
class Prior(still.Prior):
    """A prior of the networks of a kind of frames at one rate.

    Attributes:
        kind: of the frames.
    """

    kind: int = INTRA

    @property
    def shape(self) -> networks.Shape:
        """Of the networks."""
        return PRESETS[self.preset].shape(self.kind, self.colours)

    @property
    def slices(self) -> dict[str, Slice]:
        """Of the parameters."""
        return networks.layout(self.shape)


class PriorFile(still.PriorFile):
    """Priors of several presets and rates, for all kinds of frames."""

    codec = CODEC

    def has(self, preset: str, colours: int, rate: int) -> bool:
        """Whether there are such priors."""
        return all(self._has(f"{preset}.{kind}.{colours}", rate) for kind in range(KINDS))

    def kinds(self, preset: str, colours: int, rate: int) -> list[Prior]:
        """The priors of all kinds of frames at a rate.

        Raises:
            ValueError: the file has no such priors.
        """
        found = []
        for kind in range(KINDS):
            stored = self._stored(f"{preset}.{kind}.{colours}", rate)
            found.append(Prior(preset, colours, rate, self.lmbdas[rate], *stored, kind))
            self._check(found[-1])
        return found


@functools.lru_cache(maxsize=4)
def load(path: Path = SHIPPED) -> PriorFile:
    """A prior file, read once."""
    return PriorFile(path)


def find(digest: bytes, path: Path) -> PriorFile:
    """The prior file of a stream: the one that is given, or else one of those that ship.

    Raises:
        ValueError: it is none of them.
    """
    return still.of_digest(digest, path, "video-fit*.lpkw", load)
