"""A sound through several codecs, and all of it as one page to listen to."""

import base64
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import click
import torch
from torch import Tensor

from latentpack.datasets import audio_metrics
from latentpack.datasets.audio import open_audio
from latentpack.datasets.audio_writer import AudioWriter
from latentpack.scripts.main import note
from latentpack.scripts.page import Kind, fill
from latentpack.scripts.sound_codecs import SoundCodec, open_codecs

CODECS = "audio/rvq@kbps=6,audio/rvq@kbps=3,opus@6,opus@12"  # where none are named

MOST_SECONDS = 300.0  # of a sound on the page: browsers hold all versions of it as floats
_RATES = (8000, 192_000)  # Hz that browsers play
_MOST_CHANNELS = 8  # of FLAC
_PESQ_SECONDS = 20
COLUMNS = (  # of the table for the terminal
    ("bytes", "bytes", ","),
    ("kbps", "kbps", ".2f"),
    ("PESQ", "pesq", ".2f"),
    ("STOI", "stoi", ".3f"),
    ("encode s", "encode_s", ".2f"),
    ("decode s", "decode_s", ".2f"),
)
# On the page: head, key of a result, digits, what is best (1 the largest, -1 the smallest), and
# whether it stands beside the name.
_METRICS: list[tuple[str, str, int, int, bool]] = [
    ("PESQ", "pesq", 2, 1, True),
    ("STOI", "stoi", 3, 1, True),
    ("SI-SDR dB", "si_sdr_db", 1, 1, False),
    ("mel distance", "mel", 3, -1, False),
]


@dataclass(frozen=True)
class Excerpt:
    """What is compared of a sound file.

    Attributes:
        name: for people.
        x: float32 [C, N] in -1..1.
        sample_rate: Hz.
        bits: of a sample in the file, 16 or 24 as far as FLAC can tell.
        about: its format in words.
    """

    name: str
    x: Tensor
    sample_rate: int
    bits: int
    about: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.x.shape[1] / self.sample_rate

    def kbps(self, size: int) -> float:
        """Bits of `size` bytes to each millisecond."""
        return size * 8 / 1000 / self.seconds


@dataclass(frozen=True)
class Result:
    """What one codec makes of a sound; seconds of CPU time."""

    codec: str
    settings: str
    ours: bool
    bytes: int
    kbps: float
    pesq: float | None
    stoi: float | None
    si_sdr_db: float
    mel: float
    encode_s: float
    decode_s: float
    note: str | None


@dataclass(frozen=True)
class Coded:
    """The figures, the whole file, and what is heard: float32 [C, N] like the original."""

    result: Result
    data: bytes
    x_hat: Tensor


@dataclass(frozen=True)
class Sound:
    """A sound and what the codecs made of it, as the page wants them: FLAC files in base64."""

    name: str
    about: str
    rate: int
    length: int
    bytes: int
    kbps: float
    original: str
    results: list[dict[str, Any]]


def sounds(codecs: str | None, asked: dict[str, Any]) -> Kind:
    """Sounds for `compare`.

    Args:
        codecs: names for `open_codecs`; None is a few.
        asked: options of the command line: start and seconds.

    Raises:
        ValueError: a codec or an option is wrong.
    """
    for name in asked.keys() - {"start", "seconds"}:
        raise click.UsageError(
            f"--{name.replace('_', '-')} is for pictures and videos; sounds have a rate for each "
            "codec: --codecs audio/rvq@kbps=6,opus@12"
        )
    start, seconds = asked.get("start", 0.0), asked.get("seconds", 30.0)
    if seconds > MOST_SECONDS:
        raise click.UsageError(f"--seconds must be {MOST_SECONDS:g} or less, got {seconds:g}")
    return Kind(
        open_codecs(codecs or CODECS),
        read=lambda file, name: read(file, name, start, seconds),
        run=run,
        item=sound,
        page=page,
        columns=COLUMNS,
    )


def read(file: BinaryIO, name: str, start: float, seconds: float) -> Excerpt:
    """Read the part of a sound file that is compared.

    Args:
        file: what `open_audio` takes.
        name: for people.
        start: seconds that are left out at the start.
        seconds: the most that is taken after that.

    Raises:
        ValueError: it is no sound, has nothing there, or browsers could not play it.
    """
    with open_audio(file) as reader:
        rate = reader.sample_rate
        if not _RATES[0] <= rate <= _RATES[1] or reader.channels > _MOST_CHANNELS:
            raise ValueError(
                f"{name}: browsers play {_RATES[0]} to {_RATES[1]} Hz and {_MOST_CHANNELS} "
                f"channels, got {rate} Hz and {reader.channels}; resample it first"
            )
        x, ended = _part(reader.blocks(), round(start * rate), max(1, round(seconds * rate)))
        for text in reader.notes:
            note(f"{name}: {text}")
    if x.shape[1] == 0:
        raise ValueError(
            f"{name}: there is no sound" + (f" from second {start:g} on" if start else "")
        )
    about = f"{rate / 1000:g} kHz, {_channels(x.shape[0])}, {x.shape[1] / rate:.2f} s"
    if start or not ended:
        about += f" from second {start:g}"
    return Excerpt(name, x, rate, 16 if reader.bits <= 16 else 24, about)


def _part(blocks: Iterable[Tensor], start: int, most: int) -> tuple[Tensor, bool]:
    """Samples `start` to `start + most`, and whether the sound ends before that."""
    found: list[Tensor] = []
    passed = 0
    for block in blocks:
        if passed + block.shape[1] > start + most:
            return torch.cat(
                [*found, block[:, max(0, start - passed) : start + most - passed]], 1
            ), False
        found.append(block[:, max(0, start - passed) :])
        passed += block.shape[1]
    return torch.cat(found, 1), True


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")


def run(codec: SoundCodec, sound: Excerpt) -> Coded:
    """Encode and decode a sound; the result is cut or filled to the original's length."""
    x, rate = sound.x, sound.sample_rate
    started = time.process_time()
    data = codec.encode(x, rate, sound.bits)
    encoded = time.process_time()
    x_hat = codec.decode(data, rate)
    decoded = time.process_time()
    notes = [_other_channels(x, x_hat), _other_length(x, x_hat, rate)]
    x_hat = _like(x, x_hat)
    result = Result(
        codec.name,
        codec.settings,
        codec.ours,
        len(data),
        sound.kbps(len(data)),
        **_qualities(x, x_hat, rate),
        encode_s=encoded - started,
        decode_s=decoded - encoded,
        note="; ".join(note for note in notes if note) or None,
    )
    return Coded(result, data, x_hat)


def _other_channels(x: Tensor, x_hat: Tensor) -> str | None:
    return None if x.shape[0] == x_hat.shape[0] else _channels(x_hat.shape[0])


def _other_length(x: Tensor, x_hat: Tensor, rate: int) -> str | None:
    longer = (x_hat.shape[1] - x.shape[1]) / rate * 1000
    return f"{longer:+.1f} ms long" if abs(longer) >= 1 else None


def _like(x: Tensor, x_hat: Tensor) -> Tensor:
    """`x_hat` with the channels and the length of `x`."""
    missing = x.shape[1] - x_hat.shape[1]  # negative: is cut
    x_hat = torch.nn.functional.pad(x_hat, (0, missing))
    if x_hat.shape[0] != x.shape[0]:
        x_hat = x_hat.mean(0, keepdim=True).expand(x.shape[0], -1)
    return x_hat.contiguous()


def _qualities(x: Tensor, x_hat: Tensor, rate: int) -> dict[str, Any]:
    """The metrics; None for those whose package is missing, or that don't apply."""
    missing = audio_metrics.missing_packages()
    return {
        "pesq": None if "pesq" in missing else _pesq(x, x_hat, rate),
        "stoi": None if "pystoi" in missing else audio_metrics.stoi(x, x_hat, rate),
        "si_sdr_db": audio_metrics.si_sdr_db(x, x_hat),
        "mel": audio_metrics.mel_distance(x, x_hat, rate),
    }


def _pesq(x: Tensor, x_hat: Tensor, rate: int) -> float | None:
    """The mean over pieces: it is made for some seconds, and its program crashes on minutes."""
    size = _PESQ_SECONDS * rate
    pieces = [slice(at, at + size) for at in range(0, x.shape[1], size)]
    found = [audio_metrics.pesq(x[:, piece], x_hat[:, piece], rate) for piece in pieces]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def sound(excerpt: Excerpt, coded: Sequence[Coded]) -> Sound:
    """Put a sound and what `run` made of it into the form of the page."""
    x, rate, bits = excerpt.x, excerpt.sample_rate, excerpt.bits
    size = x.numel() * bits // 8
    return Sound(
        excerpt.name,
        excerpt.about,
        rate,
        x.shape[1],
        size,
        excerpt.kbps(size),
        _flac(x, rate, bits),
        [asdict(one.result) | {"src": _flac(one.x_hat, rate, bits)} for one in coded],
    )


def _flac(x: Tensor, rate: int, bits: int) -> str:
    file = io.BytesIO()
    with AudioWriter(file, rate, x.shape[0], "flac", bits) as writer:
        writer.write(x)
    return base64.b64encode(file.getvalue()).decode("ascii")


def page(sounds: list[Sound]) -> bytes:
    """The page: one HTML file that needs no other."""
    results = [result for sound in sounds for result in sound.results]
    data = {
        "asked": "listening",
        "metrics": [m for m in _METRICS if any(result[m[1]] is not None for result in results)],
        "sounds": [asdict(sound) for sound in sounds],
    }
    scripts = ["spectrum", "player", "blind", "listening"]
    names = [sound.name for sound in sounds]
    return fill("listening", scripts, names, data, ["transport"])
