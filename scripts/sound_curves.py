"""Curves of sound codecs: what they cost and how near they come, for a set of files.

Every codec works on the sound as it is; where a peer has other sample rates, resampling there and
back is left out of its times, which are CPU seconds of one thread. The decoded sound is cut or
filled with silence to the original's length; `audio_peers.py` says how delays are taken off, and
latentpack's codecs have none. Qualities are those of `audio_metrics.py`, means over the files.
"""

import functools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentpack.codecs.container import Reader
from latentpack.datasets import audio_metrics
from latentpack.datasets.audio import open_audio
from latentpack.datasets.audio_peers import PEERS
from latentpack.datasets.resampling import resample
from latentpack.scripts import measuring
from latentpack.scripts.bench import hardware
from latentpack.scripts.codec_options import split_names
from latentpack.scripts.main import describe, note
from latentpack.scripts.measuring import Key, Results, Task
from latentpack.scripts.sound_codecs import SoundCodec, known_names, open_codecs

CONTENTS = {  # what is in the files -> ViSQOL's mode, and the codecs where none are named
    "speech": ("speech", "audio/rvq,opus-voip,mp3,aac,vorbis,amrnb,encodec,dac"),
    "music": ("audio", "audio/rvq,opus,mp3,aac,vorbis,encodec"),
}
# The kbit/s of a curve of ours; None is a codec that has no rate to choose.
_STEPS_OF: dict[str, tuple[float | None, ...]] = {
    "audio/rvq": (0.75, 1.5, 3, 4.5, 6),
    "audio/lossless": (None,),
}
_WARM_UP_SAMPLES = 8000


@dataclass(frozen=True)
class SoundCurve:
    """A sound codec with the steps of its curve; see `measuring.Curve`."""

    name: str
    settings: str
    ours: bool
    steps: tuple[float | None, ...]


@dataclass(frozen=True)
class Measures:
    """How to measure.

    Attributes:
        content: a key of CONTENTS.
        seconds: the most of a file.
        visqol: it takes about as long as the sound.
    """

    content: str
    seconds: float
    visqol: bool

    def __str__(self) -> str:
        """What a result must agree in to be of use again."""
        visqol = "" if self.visqol else ", without ViSQOL"
        return f"as {self.content}, {self.seconds:g} s at most{visqol}"


@dataclass(frozen=True)
class Qualities:
    """See `audio_metrics.py`; None where one does not apply, or its package is missing."""

    pesq_wb: float | None
    pesq_nb: float | None
    stoi: float | None
    estoi: float | None
    visqol: float | None
    si_sdr_db: float
    mel: float
    stft: float
    lsd: float


@dataclass(frozen=True)
class Result:
    """One sound at one step of one codec.

    Attributes:
        sound: name of its file.
        digest: of its file's bytes.
        seconds: that were coded.
        codec: as it was asked for, with its options.
        settings: of the codec, with the weights, and how it was measured.
        step: kbit/s asked for.
        bytes: of the coded file.
        payload_bytes: of its coded packets.
        encode_s: CPU seconds.
        decode_s: CPU seconds.
        qualities: the fields of `Qualities`.
    """

    sound: str
    digest: str
    seconds: float
    codec: str
    settings: str
    step: float | None
    bytes: int
    payload_bytes: int
    encode_s: float
    decode_s: float
    qualities: dict[str, float | None]

    @property
    def key(self) -> Key:
        """By what the result is found again: other weights or another sound are others."""
        return self.digest, self.codec, self.settings, self.step


@dataclass(frozen=True)
class Row:
    """One step of one codec, mean over the sounds.

    Attributes:
        codec: as it was asked for.
        case: name of the set.
        settings: of the codec.
        ours: it is one of latentpack's.
        kbps: asked for; None where there is nothing to choose.
        n: sounds.
        kbps_payload: of the coded packets.
        kbps_file: of the whole files.
        encode_x_realtime: seconds of sound for each second of one thread.
        decode_x_realtime: the same of decoding.
    """

    codec: str
    case: str
    settings: str
    ours: bool
    kbps: float | None
    n: int
    kbps_payload: float
    kbps_file: float
    pesq_wb: float | None
    pesq_nb: float | None
    stoi: float | None
    estoi: float | None
    visqol: float | None
    si_sdr_db: float | None
    mel: float | None
    stft: float | None
    lsd: float | None
    encode_x_realtime: float
    decode_x_realtime: float


def open_curves(text: str, measures: Measures) -> list[SoundCurve]:
    """The curves of all codecs of a list of names; says on stderr which peers are left out.

    A name is one of `sound_codecs.py`: "opus" is a curve, "opus@12" and "audio/rvq@kbps=3" are
    curves of one point.

    Raises:
        ValueError: a name or option is unknown, or nothing is left.
    """
    names = split_names(text, known_names())
    lacking = {name: lacks for name in names if (lacks := _lacks(name))}
    if lacking:
        found = ", ".join(f"{name} ({lacks})" for name, lacks in lacking.items())
        note(f"left out, as they can't run here: {found}")
    curves = [_curve(name, measures) for name in names if name not in lacking]
    if not curves:
        raise ValueError(f"none of {', '.join(names)} can run here")
    return curves


def _lacks(name: str) -> str | None:
    bare = name.partition("@")[0]
    return PEERS[bare].missing() if bare in PEERS else None


def _curve(name: str, measures: Measures) -> SoundCurve:
    bare, _, options = name.partition("@")
    has_rate = bool(options) if bare in PEERS else "kbps=" in options
    every = PEERS[bare].steps if bare in PEERS else _STEPS_OF.get(bare, (None,))
    steps = (None,) if has_rate else every
    codec = open_point(name, steps[0])
    of_all = PEERS[bare].settings if bare in PEERS else f"latentpack {name}"
    settings = codec.settings if has_rate else of_all
    weights = "".join(f", weights {digest}" for digest in _weights(codec)) if codec.ours else ""
    return SoundCurve(name, f"{settings}{weights}; {measures}", codec.ours, steps)


def open_point(name: str, step: float | None) -> SoundCodec:
    """The codec at a step of its curve."""
    if step is not None:
        rate = f"{step:g}" if name in PEERS else f"kbps={step:g}"
        name = f"{name}{',' if '@' in name else '@'}{rate}"
    return open_codecs(name)[0]


def _weights(codec: SoundCodec) -> list[str]:
    """Of the weights that it may use; which ones depends on the sound's rate."""
    files = [codec.encode(torch.zeros(1, 1), rate, 16) for rate in (16000, 48000)]
    digests = [Reader(file).params.get("w") for file in files]
    return list(dict.fromkeys(found.hex() for found in digests if isinstance(found, bytes)))


def measure(
    tasks: Sequence[Task], results: Results[Result], measures: Measures, jobs: int = 1
) -> Iterator[Task]:
    """Do the tasks of `measuring.plan` that have no result yet; see `measuring.measure`."""
    return measuring.measure(tasks, results, functools.partial(run, measures=measures), jobs)


@functools.lru_cache(maxsize=1)
def _sound(file: Path, seconds: float) -> tuple[Tensor, int, int]:
    """The start of a file, float32 [C, N], its sample rate in Hz, and its bits, 16 or 24."""
    with open_audio(file) as reader:
        x = next(reader.blocks(seconds))
        if not x.numel():
            raise ValueError(f"{file}: there is no sound")
        return x, reader.sample_rate, 16 if reader.bits <= 16 else 24


@functools.cache
def _warm(name: str, step: float | None) -> SoundCodec:
    """The codec at a step, called once, so that loading weights counts for no sound."""
    codec = open_point(name, step)
    codec.decode(codec.encode(torch.zeros(1, _WARM_UP_SAMPLES), 16000, 16), 16000)
    return codec


def run(task: Task, measures: Measures) -> Result:
    """Code one sound once; also called in other processes.

    Raises:
        ValueError: the codec can't code this sound.
    """
    torch.set_num_threads(1)
    x, rate, bits = _sound(task.file, measures.seconds)
    seconds = x.shape[1] / rate
    try:
        codec = _warm(task.codec, task.step)
        data, x_hat, encode_s, decode_s = _through(codec, x, rate, bits)
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{task.file}: {task.codec}: {describe(error)}") from None
    return Result(
        task.file.name,
        task.digest,
        seconds,
        task.codec,
        task.settings,
        task.step,
        len(data),
        _payload(task.codec, data),
        encode_s,
        decode_s,
        asdict(qualities(x, x_hat, rate, measures)),
    )


def _through(
    codec: SoundCodec, x: Tensor, rate: int, bits: int
) -> tuple[bytes, Tensor, float, float]:
    """A sound through a codec: the file, the sound again, and seconds of both ways."""
    bare, _, kbps = codec.name.partition("@")
    peer = PEERS.get(bare)
    its_rate = peer.rate(rate, float(kbps)) if peer else rate
    y = resample(x, rate, its_rate)
    started = time.process_time()
    data = codec.encode(y, its_rate, bits)
    encoded = time.process_time()
    y_hat, its_rate = peer.read(data) if peer else (codec.decode(data, rate), rate)
    decoded = time.process_time()
    x_hat = resample(y_hat, its_rate, rate)[:, : x.shape[1]]
    x_hat = F.pad(x_hat, (0, x.shape[1] - x_hat.shape[1]))
    return data, x_hat, encoded - started, decoded - encoded


def _payload(name: str, data: bytes) -> int:
    peer = PEERS.get(name.partition("@")[0])
    if peer:
        return peer.payload_bytes(data)
    return sum(len(packet.body) + len(packet.bulk) for packet in Reader(data).packets())


def qualities(x: Tensor, x_hat: Tensor, sample_rate: int, measures: Measures) -> Qualities:
    """All measures of a pair of sounds [C, N] that can be taken here."""
    missing = audio_metrics.missing_packages()
    pair = (x, x_hat, sample_rate)
    pesq, stoi = "pesq" not in missing, "pystoi" not in missing
    visqol = measures.visqol and not any("visqol" in package for package in missing)
    return Qualities(
        audio_metrics.pesq(*pair, "wb") if pesq else None,
        audio_metrics.pesq(*pair, "nb") if pesq else None,
        audio_metrics.stoi(*pair) if stoi else None,
        audio_metrics.stoi(*pair, extended=True) if stoi else None,
        audio_metrics.visqol(*pair, CONTENTS[measures.content][0]) if visqol else None,
        audio_metrics.si_sdr_db(x, x_hat),
        audio_metrics.mel_distance(*pair),
        audio_metrics.stft_distance(x, x_hat),
        audio_metrics.log_spectral_distance(x, x_hat),
    )


def compare(
    curves: Sequence[SoundCurve], tasks: Sequence[Task], results: Results[Result], case: str
) -> list[Row]:
    """A row for every step of every codec, in the order of the curves."""
    found: dict[tuple[str, float | None], list[Result]] = {}
    for task in tasks:
        found.setdefault((task.codec, task.step), []).append(results[task.key])
    of_name = {curve.name: curve for curve in curves}
    rows = [_row(of_name[name], case, step, these) for (name, step), these in found.items()]
    order = list(of_name)
    return sorted(rows, key=lambda row: (order.index(row.codec), row.kbps_file))


def _row(curve: SoundCurve, case: str, step: float | None, results: list[Result]) -> Row:
    seconds = math.fsum(result.seconds for result in results)
    means = {
        name: _mean([result.qualities[name] for result in results]) for name in results[0].qualities
    }
    return Row(
        curve.name,
        case,
        curve.settings,
        curve.ours,
        step,
        len(results),
        math.fsum(r.payload_bytes / r.seconds for r in results) * 0.008 / len(results),
        math.fsum(r.bytes / r.seconds for r in results) * 0.008 / len(results),
        encode_x_realtime=seconds / max(1e-9, math.fsum(r.encode_s for r in results)),
        decode_x_realtime=seconds / max(1e-9, math.fsum(r.decode_s for r in results)),
        **means,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The result for machines."""
    return {"hardware": hardware(), "rows": [asdict(row) for row in rows]}
