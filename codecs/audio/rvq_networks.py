"""The networks of `audio/rvq` as encoder and decoder run them, from a weights file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import weight_files
from .rvq_blocks import Blocks, State
from .rvq_frozen import SHIPPED, load_networks
from .rvq_model import TAPS, RvqModel, Size
from .rvq_packets import Prior
from .rvq_search import Searcher

CODEC = "audio/rvq"
_SPEECH_RATES = 24_000  # Hz; sounds of higher rates are taken for music
_SILENT_FRAMES = 64  # after so many the latents of silence stand still


@dataclass(frozen=True, eq=False)
class Networks:
    """What a weights file holds.

    Attributes:
        model: encoder, quantizer, decoder.
        codebooks: float [K, D] of each stage.
        digest: 8 bytes that name the weights.
        prior: of the codes; None where the weights have none.
    """

    model: RvqModel
    codebooks: list[Tensor]
    digest: bytes
    prior: Prior | None

    @property
    def size(self) -> Size:
        """Of the model."""
        return self.model.size

    @functools.cached_property
    def silence(self) -> Tensor:
        """The latents of digital silence, float [D, 1]."""
        with torch.no_grad():
            zeros = torch.zeros(1, _SILENT_FRAMES * self.size.frame)
            return self.model.analyse(zeros)[0][0, :, -1:].clone()

    @functools.cached_property
    def searcher(self) -> Searcher:
        """Finds codes."""
        return Searcher(self.codebooks)

    @property
    def memory(self) -> int:
        """Code frames before a frame that the decoder's samples of it depend on."""
        return (TAPS - 1) * self.size.decoder + 1

    def encoder(self, stages: int, beam: int) -> Blocks:
        """Samples [1, frame n] -> trees of codes of so many stages [2, stages, beam, n]."""

        def network(x: Tensor, state: State | None) -> tuple[Tensor, State]:
            latents, state = self.model.analyse(x, state)
            return self.searcher.find(latents[0].t(), stages, beam), state

        return Blocks(network, self.size.frame)

    def decoder(self) -> Blocks:
        """Latents [1, D, n] -> samples [1, frame n], a hop late."""
        return Blocks(self.model.synthesise, 1)


def load(path: Path) -> Networks:
    """Load a weights file; one that was loaded before, and is as it was, at no cost.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or another codec's.
    """
    state = path.stat()
    return _load(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@functools.lru_cache(maxsize=4)
def _load(path: Path, _version: tuple[int, ...]) -> Networks:
    weights = weight_files.read(path, CODEC)
    model, prior = load_networks(weights)
    model.requires_grad_(False).eval()
    codebooks = [stage.codebook for stage in model.stages]
    return Networks(model, codebooks, weights.digest, prior)


def choose(weights: str | Path | None, sample_rate: int | None) -> Path:
    """The file that an option names.

    Args:
        weights: a file, a name in SHIPPED, or None: what suits the sample rate.
        sample_rate: of the sound in Hz; None is not known.
    """
    if weights is None:
        wide = sample_rate is not None and sample_rate > _SPEECH_RATES
        return SHIPPED["general" if wide else "speech"]
    return SHIPPED.get(str(weights), Path(weights))


def find(digest: object, chosen: Path) -> Networks:
    """The networks of a stream, from the file that was chosen or a shipped one.

    Raises:
        ValueError: none of them is the right one.
    """
    paths = dict.fromkeys([chosen, *SHIPPED.values()])
    present = [path for path in paths if path.exists()]
    named = weight_files.find(digest, present) if isinstance(digest, bytes) else None
    if named is None:
        shown = digest.hex() if isinstance(digest, bytes) else repr(digest)
        raise ValueError(
            f"the sound was coded with weights {shown}, which are not {chosen.name} nor shipped "
            "with this release; name the right file with --weights"
        )
    return load(named)
