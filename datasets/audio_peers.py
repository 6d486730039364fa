"""The sound codecs that ours stand beside, as files that PyAV writes with FFmpeg's encoders.

    opus       libopus in Ogg, application audio, variable rate, 20 ms, complexity 10
    opus-voip  the same, application voip: its choice for speech
    mp3        libmp3lame in MP3, joint stereo; at most 24 kHz below 32 kbit/s
    aac        FFmpeg's AAC-LC in MP4
    vorbis     libvorbis in Ogg
    amrnb      OpenCORE AMR-NB, 8 kHz mono

Each is coded at the lowest rate it takes that is not below the sound's (else at its highest), and
comes back at the sound's rate; resampling adds no delay. What coding delays is taken off as the
file says it (Ogg's pre-skip, the LAME tag, MP4's edit list); AMR says nothing, and is moved by the
5 ms that its encoder looks ahead. Every coder works with one thread.
Which of them can run depends on the FFmpeg in PyAV: `AudioCoder.missing` says it. Neural codecs,
where their weights are at hand, are in `audio_neural_peers.py`.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from torch import Tensor

from .audio import read_audio
from .audio_neural_peers import NEURAL_PEERS, NeuralCoder
from .resampling import resample


@dataclass(frozen=True)
class AudioCoder:
    """A sound codec that writes files.

    Attributes:
        name: short, for tables.
        settings: what is set, in words.
        steps: kbit/s of a curve, from small files to large.
        codec: FFmpeg's name of the encoder.
        container: FFmpeg's name of the file format.
        rates: Hz that it takes, from low to high; at most `highest(kbit/s)` is used.
        highest: see `rates`.
        channels: the most that it takes.
        options: of the encoder, for a number of kbit/s.
        delay: samples, at its rate, that decoding comes late and that the file does not tell.
    """

    name: str
    settings: str
    steps: tuple[float, ...]
    codec: str
    container: str
    rates: tuple[int, ...]
    highest: Callable[[float], int] = lambda kbps: 48000
    channels: int = 2
    options: Callable[[float], Mapping[str, str]] = field(default=lambda kbps: {})
    delay: int = 0

    def missing(self) -> str | None:
        """What must be installed for it to run; None where all is there."""
        return None if self.codec in av.codecs_available else f"an av with {self.codec}"

    def encode(self, x: Tensor, sample_rate: int, kbps: float) -> bytes:
        """The whole file of a sound, float32 [C, N] in -1..1.

        Raises:
            ValueError: the rate is not above 0, or the sound has more channels than it takes.
        """
        if not kbps > 0:
            raise ValueError(f"the rate must be above 0 kbit/s, got {kbps}")
        if not 1 <= len(x) <= self.channels:
            raise ValueError(f"{self.name} takes {self.channels} channels at most, got {len(x)}")
        return self._write(x, sample_rate, kbps)

    def _write(self, x: Tensor, sample_rate: int, kbps: float) -> bytes:
        rate, layout = self.rate(sample_rate, kbps), ("mono", "stereo")[len(x) - 1]
        samples = resample(x.float().clamp(-1, 1), sample_rate, rate).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        file = io.BytesIO()
        with av.open(file, "w", format=self.container) as container:
            stream: Any = container.add_stream(
                self.codec, rate, dict(self.options(kbps)), layout=layout
            )
            stream.bit_rate = round(kbps * 1000)
            stream.thread_count = 1
            stream.open()
            context = stream.codec_context
            fitting = av.AudioResampler(
                context.format, layout, rate, frame_size=context.frame_size or 1024
            )
            for part in (*fitting.resample(frame), *fitting.resample(None)):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return file.getvalue()

    def rate(self, sample_rate: int, kbps: float) -> int:
        """The sample rate, Hz, at which a sound of a sample rate is coded at so many kbit/s."""
        rates = [rate for rate in self.rates if rate <= self.highest(kbps)]
        return next((rate for rate in rates if rate >= sample_rate), rates[-1])

    def decode(self, data: bytes, sample_rate: int) -> Tensor:
        """The sound of a whole file at a sample rate; its end may be some samples off."""
        return resample(*self.read(data), sample_rate)

    def read(self, data: bytes) -> tuple[Tensor, int]:
        """The sound of a whole file and the sample rate it has there."""
        x, rate = read_audio(io.BytesIO(data))
        return x[:, self.delay :], rate

    def payload_bytes(self, data: bytes) -> int:
        """What the coded packets of a whole file take, without what it spends around them."""
        with av.open(io.BytesIO(data), "r") as container:
            return sum(packet.size for packet in container.demux(audio=0))


_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_OPUS_STEPS = (6, 8, 12, 16, 24, 32, 64)
_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

_FILES = (
        AudioCoder(
            "opus", "libopus, audio, complexity 10", _OPUS_STEPS, "libopus", "ogg", _OPUS_RATES,
            options=lambda kbps: {"application": "audio"},
        ),
        AudioCoder(
            "opus-voip", "libopus, voip, complexity 10", _OPUS_STEPS, "libopus", "ogg", _OPUS_RATES,
            options=lambda kbps: {"application": "voip"},
        ),
        AudioCoder(
            "mp3", "libmp3lame", (8, 16, 24, 32, 64), "libmp3lame", "mp3", _MPEG_RATES,
            highest=lambda kbps: 48000 if kbps >= 32 else 24000,
        ),
        AudioCoder(
            "aac", "FFmpeg's AAC-LC in MP4", (12, 16, 24, 32, 64), "aac", "ipod", _MPEG_RATES
        ),
        AudioCoder(
            "vorbis", "libvorbis", (24, 32, 48, 64), "libvorbis", "ogg", _MPEG_RATES
        ),
        AudioCoder(
            "amrnb", "OpenCORE AMR-NB", (4.75, 6.7, 12.2), "libopencore_amrnb", "amr", (8000,),
            channels=1, delay=40,
        ),
)  # fmt: skip

PEERS: dict[str, AudioCoder | NeuralCoder] = {
    **{coder.name: coder for coder in _FILES},
    **NEURAL_PEERS,
}
