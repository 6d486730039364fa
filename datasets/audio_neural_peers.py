"""EnCodec and DAC through transformers, where their weights are on this machine already.

    encodec   facebook/encodec_24khz, 24 kHz mono, without its language model
    dac       descript/dac_16khz, 16 kHz mono

Nothing is ever downloaded: without the package, or without weights in Hugging Face's cache, they
are missing. Their packages write no compact file (DAC's own takes 16 bits for a code of 10), so a
file here is what any container had to hold at least: 5 bytes, the number of codebooks and of
samples, and each code in as many bits as its codebook asks for, codebook by codebook.
"""

import functools
import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .resampling import resample

_HEAD = struct.Struct("<BI")


@dataclass(frozen=True)
class NeuralCoder:
    """A neural codec with the methods of `audio_peers.AudioCoder`.

    Attributes:
        name: short, for tables.
        model: class of transformers.
        repository: of its weights.
        sample_rate: Hz.
        frame_rate: code frames to a second.
        steps: kbit/s of a curve, before any entropy coding.
        codebook_bits: of a code.
    """

    name: str
    model: str
    repository: str
    sample_rate: int
    frame_rate: float
    steps: tuple[float, ...]
    codebook_bits: int = 10
    channels: int = 1

    @property
    def settings(self) -> str:
        """In words."""
        return f"{self.repository} through transformers, packed codes"

    def missing(self) -> str | None:
        """What must be there for it to run; None where all is there."""
        if not importlib.util.find_spec("transformers"):
            return "transformers"
        folder = _cache() / f"models--{self.repository.replace('/', '--')}" / "snapshots"
        return None if folder.is_dir() else f"the weights {self.repository} on this machine"

    def rate(self, sample_rate: int, kbps: float) -> int:
        """The sample rate, Hz, at which any sound is coded."""
        return self.sample_rate

    def encode(self, x: Tensor, sample_rate: int, kbps: float) -> bytes:
        """The whole file of a sound, float32 [1, N] in -1..1, with as many codebooks as fit."""
        stages = int(kbps * 1000 / self.frame_rate / self.codebook_bits + 1e-6)
        if stages < 1:
            raise ValueError(f"{self.name} takes {self.steps[0]} kbit/s at least, got {kbps}")
        if len(x) != 1:
            raise ValueError(f"{self.name} takes 1 channels at most, got {len(x)}")
        samples = resample(x.float(), sample_rate, self.sample_rate)
        with torch.inference_mode():
            codes = self._codes(samples[None], stages)
        places = torch.arange(self.codebook_bits - 1, -1, -1)
        bits = (codes[..., None] >> places & 1).to(torch.uint8).numpy()
        return _HEAD.pack(len(codes), samples.shape[1]) + np.packbits(bits).tobytes()

    def _codes(self, samples: Tensor, stages: int) -> Tensor:
        """Codes of samples [1, 1, N], int64 [stages, frames]."""
        model = _model(self.model, self.repository)
        if self.model == "DacModel":
            codes: Tensor = model.encode(samples, n_quantizers=stages).audio_codes[0]
            return codes
        allowed = model.config.target_bandwidths
        bits = self.frame_rate * self.codebook_bits / 1000
        fitting = [kbps for kbps in allowed if round(kbps / bits) <= stages]
        found: Tensor = model.encode(
            samples, bandwidth=max(fitting, default=allowed[0])
        ).audio_codes
        return found[0, 0]

    def decode(self, data: bytes, sample_rate: int) -> Tensor:
        """The sound of a whole file at a sample rate."""
        return resample(*self.read(data), sample_rate)

    def read(self, data: bytes) -> tuple[Tensor, int]:
        """The sound of a whole file, float32 [1, N], and its sample rate."""
        stages, length = _HEAD.unpack_from(data)
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=_HEAD.size))
        frames = len(bits) // (stages * self.codebook_bits)
        bits = bits[: stages * frames * self.codebook_bits]
        weights = 1 << np.arange(self.codebook_bits - 1, -1, -1)
        codes = torch.from_numpy(bits.reshape(stages, frames, -1).astype(np.int64) @ weights)
        model = _model(self.model, self.repository)
        with torch.inference_mode():
            if self.model == "DacModel":
                x = model.decode(audio_codes=codes[None]).audio_values.reshape(1, -1)
            else:
                x = model.decode(codes[None, None], [None]).audio_values[0]
        return x[:, :length], self.sample_rate

    def payload_bytes(self, data: bytes) -> int:
        """What the codes of a whole file take."""
        return len(data) - _HEAD.size


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


@functools.lru_cache(maxsize=2)
def _model(name: str, repository: str) -> Any:
    import transformers

    loaded = getattr(transformers, name)
    return loaded.from_pretrained(repository, local_files_only=True, cache_dir=_cache()).eval()


NEURAL_PEERS = {
    coder.name: coder
    for coder in (
        NeuralCoder(
            "encodec", "EncodecModel", "facebook/encodec_24khz", 24000, 75.0, (1.5, 3, 6, 12)
        ),
        NeuralCoder("dac", "DacModel", "descript/dac_16khz", 16000, 50.0, (0.5, 1.5, 3, 6)),
    )
}
