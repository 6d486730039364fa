"""Write sound files of many formats, block by block."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
import av.error
import torch
from torch import Tensor

from . import audio_samples
from .resampling import Resampler


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        muxer: FFmpeg's name of it.
        codecs: by bits of integers, 0 for float: what FFmpeg calls the encoder of samples without
            loss. None of them: it codes with loss, by `lossy`.
        lossy: encoders, of which the first that FFmpeg was built with is taken.
        kbps: of a channel, of what is coded with loss.
        options: of the muxer.
    """

    muxer: str
    codecs: Mapping[int, str] = field(default_factory=dict)
    lossy: tuple[str, ...] = ()
    kbps: int = 96
    options: Mapping[str, str] = field(default_factory=dict)


_PCM = {8: "pcm_u8", 16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le", 0: "pcm_f32le"}
_BIG_ENDIAN = {8: "pcm_s8", 16: "pcm_s16be", 24: "pcm_s24be", 32: "pcm_s32be", 0: "pcm_f32be"}
FORMATS = {
    "wav": Format("wav", _PCM, options={"rf64": "auto"}),  # from 4 GiB on as RF64
    "flac": Format("flac", {16: "flac", 24: "flac"}),
    "aiff": Format("aiff", _BIG_ENDIAN, options={"write_id3v2": "1"}),
    "caf": Format("caf", _PCM | {8: "pcm_s8"}),
    "wv": Format("wv", {16: "wavpack", 32: "wavpack", 0: "wavpack"}),
    "mp3": Format("mp3", lossy=("libmp3lame",)),
    "opus": Format("opus", lossy=("libopus",), kbps=64),
    "ogg": Format("ogg", lossy=("libvorbis", "libopus"), kbps=80),
    "m4a": Format("ipod", lossy=("aac",)),
    "aac": Format("adts", lossy=("aac",)),
    "mka": Format("matroska", lossy=("libopus",), kbps=64),
    "webm": Format("webm", lossy=("libopus",), kbps=64),
}
_ALIASES = {"wave": "wav", "aif": "aiff", "oga": "ogg", "mp4": "m4a", "m4b": "m4a"}
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
_PIECE = 4096  # samples to a frame, for encoders that take any number
_DITHERLESS_BITS = 16  # what floats are rounded to where nothing is asked for


def audio_format(name: str) -> str:
    """The format of a name ("FLAC") or suffix (".aif"), a key of FORMATS.

    Raises:
        ValueError: sound of this format can't be written.
    """
    key = name.strip().lower().removeprefix(".")
    found = _ALIASES.get(key, key)
    if found not in FORMATS:
        what = f"no sound format {name!r}" if key else "no sound format given"
        raise ValueError(f"{what}; can be written: {', '.join(sorted(FORMATS))}")
    return found


class AudioWriter:
    """Writes a file from blocks of its sound.

    >>> with AudioWriter("out.flac", 16000, 1) as writer:  # doctest: +SKIP
    ...     for block in blocks:
    ...         writer.write(block)

    Attributes:
        notes: what the format could not hold, in words; whole when the file is closed.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        sample_rate: int,
        channels: int,
        format: str | None = None,
        bits: int | None = None,
        metadata: Mapping[str, str] | None = None,
        layout: str | None = None,
    ) -> None:
        """Begin a file.

        Args:
            target: a path, which is overwritten, or a binary file object; one that can't seek gets
                everything at the end.
            sample_rate: Hz. Formats that don't have it get the next higher one that they have.
            channels: how many.
            format: a key of FORMATS, or a suffix; None is the path's.
            bits: of the integers in the file, 0 for float; None is 16, or that of integer blocks.
            metadata: tags.
            layout: FFmpeg's name of the channels' places; None is the usual one for so many.

        Raises:
            ValueError: the format is unknown, or does not hold so many channels or bits.
            OSError: the file can't be written.
        """
        path = target if isinstance(target, (str, Path)) else getattr(target, "name", "")
        self.name = audio_format(format or Path(str(path)).suffix)
        self._format = FORMATS[self.name]
        self.notes: list[str] = []
        self._rate, self._channels = sample_rate, channels
        self._asked, self._metadata, self._layout = bits, metadata or {}, layout
        if bits is not None and self._format.codecs and bits not in self._format.codecs:
            known = ", ".join(str(n) if n else "float" for n in self._format.codecs)
            raise ValueError(f"bits is {bits or 'float'}; {self.name} takes {known}")
        self._target = target
        self._file: BinaryIO | None = None
        self._container: Any = None
        self._clipped = self._written = 0

    def write(self, x: Tensor, bits: int | None = None) -> None:
        """Append a block.

        Args:
            x: [channels, n]: float in [-1, 1], or int16 or int32 of `bits` bits, right-aligned.
            bits: of integers; None is all of their dtype.

        Raises:
            ValueError: another shape or dtype than before, or NaN.
        """
        if x.ndim != 2 or len(x) != self._channels:
            raise ValueError(f"a block is {list(x.shape)}, expected [{self._channels}, n]")
        if x.dtype in audio_samples.INTEGERS:
            bits = bits or audio_samples.INTEGERS[x.dtype]
        elif x.is_floating_point():
            bits = None
        else:
            raise ValueError(f"a block is {x.dtype}, expected float, int16 or int32")
        if self._container is None:
            self._open(bits)
        if self._resampler is not None:
            x = self._resampler.push(x if bits is None else audio_samples.from_integers(x, bits))
            bits = None
        self._append(x, bits)

    def _open(self, bits: int | None) -> None:
        """Choose the encoder by the first block."""
        codec = self._choose(bits)
        rates = codec.audio_rates
        rate = self._rate
        if rates and rate not in rates:
            rate = min((r for r in rates if r >= self._rate), default=max(rates))
            self.notes.append(f"{self.name} is written at {rate} Hz instead of {self._rate} Hz")
        self._resampler = Resampler(self._rate, rate) if rate != self._rate else None
        file = self._make_file()
        try:
            self._container = av.open(
                file, "w", format=self._format.muxer, options=self._muxer_options(rate)
            )
            self._container.metadata.update(self._metadata)
            self._stream = self._container.add_stream(
                codec.name, rate=rate, layout=self._place_names()
            )
            context = self._stream.codec_context
            context.format = self._sample_format(codec)
            if not self._format.codecs:
                context.bit_rate = self._format.kbps * 1000 * self._channels
            context.open(strict=False)
            self._container.start_encoding()  # also where no sample follows
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(
                f"{self.name} with {self._channels} channels at {rate} Hz can't be written "
                f"({str(getattr(error, 'strerror', None) or error).lower()}); wav can"
            ) from error
        self._frame = context.frame_size or _PIECE
        self._pending: list[Tensor] = []

    def _choose(self, bits: int | None) -> Any:
        """The encoder, and in how many bits it gets its samples."""
        codecs = self._format.codecs
        if not codecs:
            self._bits = 0
            return _first_known(self._format.lossy)
        wanted = self._asked if self._asked is not None else (bits or _DITHERLESS_BITS)
        self._bits = next((n for n in sorted(codecs) if n >= wanted), max(codecs))
        if self._asked is not None:
            self._bits = self._asked
        if bits is not None and 0 < self._bits < bits:
            self.notes.append(f"{self.name} is written with {self._bits} of {bits} bits")
        return av.Codec(codecs[self._bits], "w")

    def _sample_format(self, codec: Any) -> str:
        """Of those that the encoder takes, the one for these bits."""
        place = "flt" if self._bits == 0 else f"s{16 if self._bits <= 16 else 32}"
        names = [f.name for f in codec.audio_formats or []]
        wanted = ("u8",) if self._bits == 8 else (place, "flt", "dbl", "s32", "s16")
        for name in wanted:
            for found in (name, name + "p"):
                if found in names:
                    return found
        return str(names[0])

    def _muxer_options(self, rate: int) -> dict[str, str]:
        more = {"movie_timescale": str(rate)} if self._format.muxer == "ipod" else {}
        return {**self._format.options, **more}  # an exact length in an exact unit

    def _place_names(self) -> str:
        known = audio_samples.plain_layout(self._layout or "", self._channels)
        if known is not None:
            return known
        if self._channels <= len(_LAYOUTS):
            return _LAYOUTS[self._channels - 1]
        return f"{self._channels} channels"

    def _make_file(self) -> BinaryIO:
        if isinstance(self._target, (str, Path)):
            self._file = Path(self._target).open("wb")
        elif self._target.seekable():
            return self._target
        else:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())
        return self._file

    def _append(self, x: Tensor, bits: int | None) -> None:
        """Encode what is whole frames."""
        self._pending.append(self._samples(x, bits))
        if sum(piece.shape[1] for piece in self._pending) < self._frame:
            return
        joined = torch.cat(self._pending, dim=1)
        whole = joined.shape[1] - joined.shape[1] % self._frame
        for frame in torch.split(joined[:, :whole], self._frame, dim=1):
            self._encode(frame)
        self._pending = [joined[:, whole:].clone()]

    def _samples(self, x: Tensor, bits: int | None) -> Tensor:
        """As the encoder's format has them."""
        kind = self._stream.codec_context.format.name.removesuffix("p")
        if kind in ("flt", "dbl"):
            x = audio_samples.to_float(x) if bits is None else audio_samples.from_integers(x, bits)
            return x.double() if kind == "dbl" else x
        if bits is None:
            x = audio_samples.to_float(x)
            self._clipped += int((x.abs() > 1).sum())
        place = {"u8": 8, "s16": 16, "s32": 32}[kind]
        x = audio_samples.place(x, bits, self._bits or place)
        if kind == "u8":
            return (x + 128).to(torch.uint8)
        return (x << (place - (self._bits or place))).to({16: torch.int16, 32: torch.int32}[place])

    def _encode(self, x: Tensor) -> None:
        context = self._stream.codec_context
        samples = x.T.reshape(1, -1).contiguous().numpy()
        # Interleaved, also where the encoder takes planes: PyAV converts them.
        name = context.format.name.removesuffix("p")
        frame = av.AudioFrame.from_ndarray(samples, format=name, layout=context.layout.name)
        frame.sample_rate, frame.pts = context.sample_rate, self._written
        self._written += x.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file.

        Raises:
            ValueError: the sound has no sample, which this format can't say.
            OSError: the disk is full, or the like.
        """
        if self._container is None:
            self._open(None)
        try:
            if self._resampler is not None:
                self._append(self._resampler.finish(), None)
            rest = torch.cat(self._pending, dim=1) if self._pending else torch.empty(1, 0)
            if rest.shape[1]:
                self._encode(rest)
            if not self._written and not self._format.codecs:
                raise ValueError(f"the sound has no sample, which {self.name} can't say; wav can")
            self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._file is not None and not isinstance(self._target, (str, Path)):
                self._file.seek(0)
                shutil.copyfileobj(self._file, self._target)
        finally:
            self._release()
        if self._clipped:
            self.notes.append(
                f"{self._clipped} samples were louder than full scale and are clipped"
            )

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, unless an exception is on its way."""
        if kind is None:
            self.close()
        else:
            self._release()


def write_audio(
    target: str | Path | BinaryIO,
    blocks: Tensor | Iterable[Tensor],
    sample_rate: int,
    format: str | None = None,
    bits: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a whole file from its blocks, or from one tensor [channels, N].

    Args:
        target: as for AudioWriter, also what follows and the errors.
        blocks: [channels, n] each; one at least, which may be empty.
        sample_rate: Hz.
        format: a key of FORMATS or a suffix; None is the path's.
        bits: of integers in the file, 0 for float.
        metadata: tags.

    Returns:
        What the format could not hold, in words.
    """
    pieces = iter([blocks] if isinstance(blocks, Tensor) else blocks)
    first = next(pieces, None)
    if first is None:
        raise ValueError("there is no block; give an empty one, which says how many channels")
    with AudioWriter(target, sample_rate, len(first), format, bits, metadata) as writer:
        writer.write(first)
        for block in pieces:
            writer.write(block)
    return writer.notes


def _first_known(names: tuple[str, ...]) -> Any:
    for name in names:
        if name in av.codecs_available:
            codec = av.Codec(name, "w")
            if codec.is_encoder:
                return codec
    raise ValueError(f"FFmpeg was built without {' and '.join(names)}; write flac or wav")
