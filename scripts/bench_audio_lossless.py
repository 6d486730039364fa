"""python scripts/bench_audio_lossless.py [FOLDER]: sounds without loss, beside their peers.

Whole files in bytes, all sounds together, against FLAC at its best (`flac -8 --no-padding`, or
FFmpeg's encoder at level 12 where the program is missing), and how many times faster than real time
a sound is coded, in CPU time of one core (the median over sounds). Every sound goes through all
coders in turn, is decoded, and compared sample by sample.

`flac` and `wavpack` are run if they are installed; FFmpeg's encoders come with PyAV. Without FOLDER
(its *.wav and *.flac, of integers) the sounds are made here: tones with noise.
"""

import io
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import torch
from torch import Tensor

import latentpack
from latentpack.datasets.audio import open_audio
from latentpack.datasets.audio_writer import AudioWriter
from latentpack.scripts.bench import show

SUFFIXES = {".wav", ".flac"}
EFFORTS = (0, 1, 2)
_QUICK_SECONDS = 3.0


@dataclass(frozen=True)
class Sound:
    """Samples and what they stand for.

    Attributes:
        name: of the file.
        samples: int16 or int32 [C, N].
        sample_rate: Hz.
        bits: of a sample, 16 or 24.
    """

    name: str
    samples: Tensor
    sample_rate: int
    bits: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples.shape[1] / self.sample_rate

    def wav(self) -> bytes:
        """The file that programs are given."""
        file = io.BytesIO()
        with AudioWriter(file, self.sample_rate, len(self.samples), "wav", self.bits) as writer:
            writer.write(self.samples, self.bits)
        return file.getvalue()


@dataclass
class Coder:
    """A coder, and what it did to the sounds so far."""

    encode: Callable[[Sound], bytes]
    decode: Callable[[bytes, Sound], Tensor]
    nbytes: int = 0
    encode_x: list[float] = field(default_factory=list)
    decode_x: list[float] = field(default_factory=list)

    def run(self, sound: Sound) -> None:
        """Code a sound there and back."""
        began = _cpu_seconds()
        data = self.encode(sound)
        coded = _cpu_seconds()
        samples = self.decode(data, sound)
        done = _cpu_seconds()
        if not torch.equal(samples, sound.samples):
            raise RuntimeError(f"{sound.name} came back differently")
        self.nbytes += len(data)
        self.encode_x.append(sound.seconds / max(coded - began, 1e-4))
        self.decode_x.append(sound.seconds / max(done - coded, 1e-4))


def _cpu_seconds() -> float:
    """Of this process and of the programs that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ours(effort: int) -> Coder:
    """audio/lossless."""

    def encode(sound: Sound) -> bytes:
        options: dict[str, Any] = {"bits": sound.bits, "sample_rate": sound.sample_rate}
        options |= {"effort": effort, "threads": 1}
        data: bytes = latentpack.encode(sound.samples, codec="audio/lossless", **options)
        return data

    def decode(data: bytes, sound: Sound) -> Tensor:
        x = latentpack.decode(data, threads=1)
        assert isinstance(x, Tensor)  # this codec has no mappings
        return x

    return Coder(encode, decode)


def program(suffix: str, pack: list[str], unpack: list[str]) -> Coder:
    """A program that packs IN to OUT; the time has the start of a process in it."""

    def run(command: list[str], given: bytes, before: str, after: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "a" + before), Path(folder, "b" + after)
            source.write_bytes(given)
            places = {"IN": str(source), "OUT": str(target)}
            words = [places.get(word, word) for word in command]
            subprocess.run(words, check=True, capture_output=True)
            return target.read_bytes()

    def encode(sound: Sound) -> bytes:
        return run(pack, sound.wav(), ".wav", suffix)

    def decode(data: bytes, sound: Sound) -> Tensor:
        return _read(io.BytesIO(run(unpack, data, suffix, ".wav")), sound)

    return Coder(encode, decode)


def ffmpeg(codec: str, container: str, layouts: dict[int, str], **options: str) -> Coder:
    """An encoder of FFmpeg; `layouts`: its sample formats by bits."""

    def encode(sound: Sound) -> bytes:
        file = io.BytesIO()
        samples = sound.samples.numpy()
        if sound.bits == 24:
            samples = samples << 8
        format = layouts[sound.bits]
        if not format.endswith("p"):
            samples = samples.T.reshape(1, -1)
        layout = {1: "mono", 2: "stereo"}[len(sound.samples)]
        raw = {"bits_per_raw_sample": str(sound.bits)}
        with av.open(file, "w", format=container) as out:
            stream: Any = out.add_stream(codec, rate=sound.sample_rate, options=options | raw)
            stream.format, stream.layout = format, layout
            stream.time_base = Fraction(1, sound.sample_rate)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format, layout)
            frame.sample_rate = sound.sample_rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
        return file.getvalue()

    return Coder(encode, lambda data, sound: _read(io.BytesIO(data), sound))


def _read(file: io.BytesIO, sound: Sound) -> Tensor:
    with open_audio(file) as reader:
        return torch.cat(list(reader.blocks(dtype=sound.samples.dtype, bits=sound.bits)), 1)


def coders() -> dict[str, Coder]:
    """All that are installed; the first peer is the one to compare with."""
    made = {f"effort {effort}": ours(effort) for effort in EFFORTS}
    if shutil.which("flac"):
        pack = ["flac", "-8", "-s", "--no-padding", "IN", "-o", "OUT"]
        made["flac -8"] = program(".flac", pack, ["flac", "-d", "-s", "IN", "-o", "OUT"])
    planar = {16: "s16p", 24: "s32p"}
    packed = {16: "s16", 24: "s32"}
    made["FFmpeg flac 12"] = ffmpeg("flac", "flac", packed, compression_level="12")
    if shutil.which("wavpack"):
        unpack = ["wvunpack", "-q", "IN", "-o", "OUT"]
        for level in ("-hh", "-hhx4"):
            made[f"wavpack {level}"] = program(
                ".wv", ["wavpack", level, "-q", "IN", "-o", "OUT"], unpack
            )
    return made | {
        "FFmpeg alac": ffmpeg("alac", "ipod", planar),
        "FFmpeg tta": ffmpeg("tta", "tta", packed),
    }


def read_sound(path: Path, seconds: float | None) -> Sound:
    """The start of a file, or all of it."""
    with open_audio(path) as reader:
        if reader.is_float or reader.bits not in (16, 24):
            raise click.ClickException(f"{path} has no integers of 16 or 24 bits")
        dtype = torch.int16 if reader.bits == 16 else torch.int32
        samples = torch.cat(list(reader.blocks(dtype=dtype)), 1)
        length = None if seconds is None else round(seconds * reader.sample_rate)
        return Sound(path.name, samples[:, :length], reader.sample_rate, reader.bits)


def made_sound(channels: int, seconds: float) -> Sound:
    """Tones that fade, and noise."""
    rng = np.random.default_rng(channels)
    t = np.arange(round(44100 * seconds)) / 44100
    tones = sum(np.sin(2 * np.pi * f * t) * np.exp(-((f / 900 * t) % 1)) for f in (220, 331, 1760))
    both = 3000 * np.asarray(tones) + rng.normal(0, 20, (channels, len(t)))
    samples = torch.from_numpy(np.rint(both).astype(np.int16))
    return Sound(f"made, {channels} channels", samples, 44100, 16)


def rows_of(run: dict[str, Coder], pcm: int) -> list[dict[str, Any]]:
    """The table."""
    floor = next((coder.nbytes for name, coder in run.items() if "flac" in name), None)
    rows = []
    for name, coder in run.items():
        row: dict[str, Any] = {"coder": name, "bytes": coder.nbytes, "of_pcm": coder.nbytes / pcm}
        if floor:
            row["to_flac"] = f"{100 * (coder.nbytes / floor - 1):+.2f} %"
        row["encode_x"] = round(statistics.median(coder.encode_x), 1)
        row["decode_x"] = round(statistics.median(coder.decode_x), 1)
        rows.append(row)
    return rows


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--coders", "names", help='Only these, e.g. "effort 1,flac -8".')
@click.option("--limit", type=int, help="Only so many sounds.")
@click.option("--quick", is_flag=True, help="The first 3 seconds of 2 sounds.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def main(
    folder: Path | None, names: str | None, limit: int | None, quick: bool, as_json: bool
) -> None:
    known = coders()
    wanted = names.split(",") if names else list(known)
    if unknown := sorted(set(wanted) - set(known)):
        raise click.UsageError(f"no coder {unknown[0]!r}; there are {', '.join(known)}")
    run = {name: known[name] for name in wanted}
    torch.set_num_threads(1)
    seconds = _QUICK_SECONDS if quick else None
    if folder:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        sounds = (read_sound(path, seconds) for path in paths[: 2 if quick else limit])
    else:
        sounds = (made_sound(channels, seconds or 10.0) for channels in (1, 2))
    pcm = count = 0
    for sound in sounds:
        pcm, count = pcm + sound.samples.numel() * sound.bits // 8, count + 1
        for coder in run.values():
            coder.run(sound)
    if not count:
        raise click.UsageError(f"no .wav or .flac file in {folder}")
    show(f"{count} sounds without loss, times of real time", rows_of(run, pcm), as_json)


if __name__ == "__main__":
    main()
