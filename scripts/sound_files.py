"""One sound file to a .lpk file, and one back, as `encode` and `decode` do it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Reader
from latentpack.datasets.audio import AudioReader, open_audio
from latentpack.datasets.audio_writer import FORMATS, AudioWriter, audio_format
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts import sounds
from latentpack.scripts.jobs import Job, note, noted_damage, show_share
from latentpack.scripts.media import DecodeOptions, EncodeOptions

_BLOCK_SECONDS = 2.0
_FLOAT_BITS, _LOSSY_BITS = 24, 16  # what floating point is rounded to for codecs of integers
_TOLERANCE = 0.05  # of a size, by which the result may be smaller before it is said
_FIRST_FLOAT = ("pcm", "wavpack")  # codecs that keep floating point as it is


def encode_file(job: Job, source: BinaryIO, target: BinaryIO, options: EncodeOptions) -> str:
    """Do one file; returns the line to print."""
    if options.show_psnr:
        raise ValueError("--show-psnr measures pictures; `latentpack evaluate audio` does sounds")
    with open_audio(source, options.stream or 0, options.keep_going) as reader:
        codec, blocks = prepare(reader, options)
        metadata = metadata_of(reader) if options.keep_metadata else {}
        rate = _rate(options.rate, reader)
        size = sounds.write_sound(target, codec, _shown(blocks, reader), rate, metadata)
        for text in reader.notes:
            note(job, text)
        return _report(job, reader, rate, size)


def prepare(reader: AudioReader, options: EncodeOptions) -> tuple[Any, Iterator[Tensor]]:
    """The codec for a sound, and the blocks as it wants them."""
    usual = "audio/rvq"
    if not sounds.takes_integers(options.codec or usual):
        codec = options.open(usual, sounds.open_codec, sample_rate=reader.sample_rate)
        return codec, reader.blocks(_BLOCK_SECONDS)
    bits = options.given.get("bits")
    if bits is None:
        bits = max(8, _LOSSY_BITS if _is_lossy(reader) else reader.bits)
    if reader.is_float and not _is_lossy(reader):
        bits = options.given.get("bits") or _FLOAT_BITS
        reader.notes.append(f"samples in floating point are rounded to {bits} bits")
    more = {"sample_rate": reader.sample_rate, "bits": bits}
    codec = options.open(usual, sounds.open_codec, **more)
    return codec, reader.blocks(
        _BLOCK_SECONDS, torch.int16 if bits <= 16 else torch.int32, bits=bits
    )


def _is_lossy(reader: AudioReader) -> bool:
    return reader.is_float and not reader.codec.startswith(_FIRST_FLOAT)


def _rate(rate: Rate | None, reader: AudioReader) -> Rate | None:
    """A ratio is to the samples as the file has them, and so is a rate in bits per second."""
    if rate is None or rate.name not in ("ratio", "bpp", "psnr"):
        return rate
    if rate.name != "ratio":
        raise ValueError(f"--{rate.name} is for pictures; sounds take --kbps or --quality")
    bits = _LOSSY_BITS if _is_lossy(reader) else reader.bits
    return Rate(kbps=reader.sample_rate * reader.channels * bits / rate.value / 1000)


def metadata_of(reader: AudioReader) -> dict[str, Any]:
    """Tags, and the places of channels where they are not the usual ones."""
    found: dict[str, Any] = {"tags": reader.metadata} if reader.metadata else {}
    if reader.channels > 2 and not reader.layout.endswith("channels"):
        found["layout"] = reader.layout
    return found


def _shown(blocks: Iterator[Tensor], reader: AudioReader) -> Iterator[Tensor]:
    for block in blocks:
        yield block
        if reader.seconds:
            show_share(reader.samples / reader.sample_rate / reader.seconds)


def _report(job: Job, reader: AudioReader, rate: Rate | None, size: int) -> str:
    """The line about a file; says where a target was missed."""
    seconds = reader.samples / reader.sample_rate
    line = f"{job.source} -> {job.target}: {size:,} bytes, {seconds:.2f} s"
    if not seconds:
        return line
    kbps = size * 8 / seconds / 1000
    line += f", {kbps:.2f} kbps"
    wanted = _kbps(rate, seconds)
    if wanted is not None and not (1 - _TOLERANCE) * wanted <= kbps <= wanted * 1.0005:
        note(job, f"asked for {wanted:.2f} kbps, the nearest reached is {kbps:.2f} kbps")
    return line


def _kbps(rate: Rate | None, seconds: float) -> float | None:
    if rate is None or rate.name == "quality":
        return None
    return rate.value if rate.name == "kbps" else rate.value * 8 / seconds / 1000


def decode_file(job: Job, source: BinaryIO, target: BinaryIO, options: DecodeOptions) -> str:
    """Do one file; returns the line to print."""
    keep_going = bool(options.given.get("keep_going"))
    reader = Reader(source, recover=keep_going)
    format_name = audio_format(options.format_name or Path(job.target).suffix or "wav")
    rate, channels = sounds.sample_rate_of(reader), sounds.channels_of(reader)
    codec = options.open(reader.codec_id, sounds.open_codec)
    if keep_going:
        _note_missing_end(job, source)
    stated = reader.params.get("b")
    with noted_damage(job), AudioWriter(
        target, rate, channels, format_name, bits_of(options, format_name, stated),
        tags_of(reader.metadata), layout_of(reader.metadata),
    ) as writer:  # fmt: skip
        samples = 0
        blocks = sounds.sound_blocks(
            reader, codec, options.start or 0.0, options.duration, keep_going
        )
        for block in blocks:
            writer.write(block, stated if type(stated) is int else None)
            samples += block.shape[1]
    for text in writer.notes:
        note(job, text)
    return (
        f"{job.source} -> {job.target}: {samples / rate:.2f} s at {rate} Hz, "
        f"{channels} channel{'s' if channels > 1 else ''}"
    )


def bits_of(options: DecodeOptions, format_name: str, stated: Any) -> int | None:
    """Of the samples to write: what is asked for, or what the codec says, if the format has it."""
    if options.bits is not None or type(stated) is not int:
        return options.bits
    known = [bits for bits in FORMATS[format_name].codecs if bits >= stated]
    return min(known, default=None)


def tags_of(metadata: dict[str, Any]) -> dict[str, str]:
    tags = metadata.get("tags")
    pairs = tags.items() if isinstance(tags, dict) else ()
    return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, str)}


def layout_of(metadata: dict[str, Any]) -> str | None:
    layout = metadata.get("layout")
    return layout if isinstance(layout, str) else None


def _note_missing_end(job: Job, source: BinaryIO) -> None:
    """Say of a file that was cut that it was: packets that are gone at its end leave no trace."""
    try:
        Reader(source).keys()
    except BitstreamError as error:
        note(job, f"only what is whole is decoded: {error}")
