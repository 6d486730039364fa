"""Read the sound of any file that FFmpeg opens, block by block, with its exact length.

    with open_audio("speech.mp3") as reader:
        for block in reader.blocks(seconds=1.0):
            ...  # float32 [channels, n]

What encoders add before and after the sound (MP3, AAC, Opus) is taken off where the file says how
much it is. Videos are files with sound too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

import av
import av.error
import torch
from torch import Tensor

from . import audio_samples
from .audio_kinds import explain, tags_of
from .ffmpeg_errors import raise_if_of_the_disk, reason_of
from .resampling import resample_blocks

# Between frames: shorter gaps are rounded time stamps, longer ones a jump of the clock.
_GAP_SECONDS, _JUMP_SECONDS = 0.05, 60.0
_MOST_NOTES = 10
_DAMAGE = (av.error.FFmpegError, ValueError, OSError)
_MISSING_SHARE = 0.01  # of the stated duration, from which a file counts as cut short


class AudioReader:
    """One audio stream of an open file; see `open_audio`, which makes it.

    Attributes:
        sample_rate: Hz.
        channels: how many.
        layout: their names as FFmpeg has them: "mono", "stereo", "5.1", "3 channels".
        start: seconds of the file's clock at which the first sample is heard.
        bits: of a sample in the file; 16 and 24 for most integers, 32 or 64 for floating point.
        is_float: whether it decodes to floating point, as what was coded with loss does.
        codec: e.g. "pcm_s16le", "flac", "aac".
        format: of the file, e.g. "wav", "mov".
        seconds: what the file says of its duration, which may be wrong; None if nothing.
        metadata: its tags, lower-case names.
        notes: what was left out or filled, in words; grows while the blocks are read.
        samples: how many have been read, at `sample_rate`.
    """

    def __init__(self, file: BinaryIO, name: str, stream: int, keep_going: bool) -> None:
        """Read headers and the first frame; for the arguments see `open_audio`."""
        self._name, self._keep_going = name, keep_going
        self.notes: list[str] = []
        self.samples = 0
        self._read = False
        try:
            self._container = av.open(file, "r", metadata_errors="replace", io_open=_refuse)
        except _DAMAGE as error:
            raise_if_of_the_disk(error)
            reason = f"no sound that can be read ({reason_of(error)}), or damaged"
            self._fail(explain(reason, file))
        try:
            self._stream = self._choose(stream, file)
            audio_samples.settle_layout(self._stream.codec_context)
            self._packets = self._demux()
            self._frames = self._decode()
            self._first = next(self._frames, None)
        except BaseException:
            self._container.close()
            raise
        self._describe()

    def _choose(self, number: int, file: BinaryIO) -> Any:
        streams = self._container.streams.audio
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            self._fail(explain(f"it holds no sound, but {kinds}", file))
        if not 0 <= number < len(streams):
            self._fail(f"stream is {number}; it has {len(streams)} with sound, 0 is the first")
        if streams[number].codec_context is None:
            self._fail("its sound is of a kind that can't be decoded")
        if len(streams) > 1:
            self.notes.append(f"sound {number} of {len(streams)} in the file")
        return streams[number]

    def _describe(self) -> None:
        context = self._stream.codec_context
        source = self._first[0] if self._first else context
        self.sample_rate, self.channels = int(source.sample_rate or 0), source.layout.nb_channels
        # WAV without a mask of places names none for one and two channels, where they are plain.
        unnamed = source.layout.name == f"{self.channels} channels"
        self.layout = {1: "mono", 2: "stereo"}.get(
            self.channels if unnamed else 0, source.layout.name
        )
        if self.sample_rate < 1 or self.channels < 1:
            self._fail(f"its header says {self.channels} channels at {self.sample_rate} Hz")
        if source.format is None:
            self._fail("nothing of its sound can be decoded")
        self.start = (_time(self._first[0]) or 0.0) if self._first else 0.0
        sample_format = source.format.name
        self.codec, self.format = context.name, self._container.format.name.split(",")[0]
        self.is_float = audio_samples.is_float(sample_format)
        self.bits = audio_samples.source_bits(context, sample_format)
        self._is = (self.sample_rate, self.channels, sample_format)
        self.seconds = self._stated_seconds()
        self.metadata = tags_of(self._container.metadata | self._stream.metadata)
        videos = self._container.streams.video
        covers = [bool(s.disposition & s.disposition.attached_pic) for s in videos]
        if not all(covers):
            self.notes.append("the video is left out")
        if any(covers):
            self.notes.append("the cover picture is left out")

    def _stated_seconds(self) -> float | None:
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        duration = self._container.duration
        return duration / 1e6 if duration is not None and duration > 0 else None

    def blocks(
        self,
        seconds: float = 1.0,
        dtype: torch.dtype = torch.float32,
        sample_rate: int | None = None,
        bits: int | None = None,
    ) -> Iterator[Tensor]:
        """Yield the sound from its start to its end, once.

        Args:
            seconds: of a block; the last one is shorter. A file without samples is one block of 0.
            dtype: torch.float32, in [-1, 1]; or torch.int16 or torch.int32 for the integers.
            sample_rate: Hz to resample to (float32 only); None is the file's.
            bits: of the integers; None is the file's. Floating point needs it, and is rounded.

        Yields:
            dtype [channels, n].

        Raises:
            ValueError: the file is damaged; its samples don't fit into `dtype` and `bits`.
            RuntimeError: the blocks were read before; open the file again.
        """
        if self._read:
            raise RuntimeError(f"{self._name} has been read; open it again")
        self._read = True
        convert = self._conversion(dtype, bits)
        signal: Iterable[Tensor] = map(convert, self._signal())
        rate = sample_rate or self.sample_rate
        if rate != self.sample_rate:
            if dtype != torch.float32:
                raise ValueError(f"dtype is {dtype}; only torch.float32 can be resampled")
            signal = resample_blocks(signal, self.sample_rate, rate)
        yield from _cut(
            signal, max(1, round(seconds * rate)), torch.empty(self.channels, 0).to(dtype)
        )

    def _conversion(self, dtype: torch.dtype, bits: int | None) -> Any:
        if dtype == torch.float32:
            return self._to_float
        if dtype not in audio_samples.INTEGERS:
            raise ValueError(f"dtype is {dtype}; expected torch.float32, int16 or int32")
        if bits is None and self.is_float:
            raise ValueError(f"{self._name} holds floating point; say how many bits it shall get")
        most = audio_samples.INTEGERS[dtype]
        least = 1 if self.is_float else self.bits
        chosen = bits or self.bits
        if not least <= chosen <= most:
            raise ValueError(f"bits is {chosen}; {self._name} in {dtype} takes {least} to {most}")
        return lambda x: audio_samples.to_integers(self._finite(x), dtype, chosen)

    def _to_float(self, x: Tensor) -> Tensor:
        return audio_samples.to_float(self._finite(x))

    def _finite(self, x: Tensor) -> Tensor:
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            self._fail(f"NaN or infinity near {self.samples / self.sample_rate:.2f} s; cut it out")
        return x

    def _signal(self) -> Iterator[Tensor]:
        """The decoded samples with gaps filled, checked for a format that changes on the way."""
        if self._first is None:
            return
        expected: float | None = None
        frame, room = self._first
        while True:
            following = next(self._frames, None)
            yield from self._gap(frame, expected)
            x = audio_samples.frame_samples(frame)
            if following is None and room is not None:
                x = x[:, :room]  # the container says that the last packet is not all sound
            self.samples += x.shape[1]
            yield x
            start = _time(frame)
            start = expected if start is None else start
            expected = None if start is None else start + frame.samples / self.sample_rate
            if following is None:
                break
            frame, room = following
            self._check(frame)
        self._check_duration()

    def _gap(self, frame: av.AudioFrame, expected: float | None) -> Iterator[Tensor]:
        """Silence where the time stamps say that something is missing."""
        start = _time(frame)
        if expected is None or start is None:
            return
        gap = start - expected
        if _GAP_SECONDS < gap <= _JUMP_SECONDS:
            self._note(f"{gap:.2f} s are missing and silent", at=self.samples)
            missing = round(gap * self.sample_rate)
            self.samples += missing
            one = audio_samples.frame_samples(frame)[:, :1]
            silence = torch.full_like(one, 128 if one.dtype == torch.uint8 else 0)
            while missing > 0:
                step = min(missing, self.sample_rate)
                yield silence.expand(-1, step)
                missing -= step
        elif abs(gap) > _GAP_SECONDS:
            self._note(f"the clock jumps by {gap:+.2f} s; the sound is joined", at=self.samples)

    def _check(self, frame: av.AudioFrame) -> None:
        now = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        if now != self._is:
            self._fail(
                f"at {self.samples / self.sample_rate:.2f} s it changes from {_format(self._is)} "
                f"to {_format(now)}; split it there"
            )

    def _check_duration(self) -> None:
        """Formats that state their length tell when the end is missing."""
        if self.format not in ("wav", "flac", "mov", "aiff", "caf", "au") or not self.seconds:
            return
        read = self.samples / self.sample_rate
        if self.seconds - read > max(_GAP_SECONDS, _MISSING_SHARE * self.seconds):
            self._damaged(f"it says {self.seconds:.2f} s and ends after {read:.2f} s: cut short")

    def _demux(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _DAMAGE as error:
                raise_if_of_the_disk(error)
                self._damaged(f"damaged or cut short ({reason_of(error)})")
                return
            if packet.is_corrupt:
                self._damaged("cut short, its last part is not whole")
            yield packet

    def _decode(self) -> Iterator[tuple[av.AudioFrame, int | None]]:
        """Frames, each with how many of its samples its packet stands for, where that is known."""
        exact = self._container.format.name.startswith("mov")
        for packet in self._packets:
            try:
                frames = packet.decode()
            except _DAMAGE as error:
                self._damaged(f"a part can't be decoded ({reason_of(error)})")
                continue
            for frame in frames:
                room = None
                if exact and packet.duration and packet.time_base and len(frames) == 1:
                    room = round(packet.duration * packet.time_base * frame.sample_rate)
                if frame.samples:
                    yield frame, room

    def _damaged(self, text: str) -> None:
        if not self._keep_going:
            self._fail(f"{text}; get the file again, or keep going to take what is left")
        self._note(text, at=self.samples)

    def _note(self, text: str, at: int) -> None:
        """Note what happened at a sample; a file can be damaged in thousands of places."""
        rate = getattr(self, "sample_rate", 0)  # not known before the first frame
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"at {at / rate:.2f} s: {text}" if rate else text)

    def _fail(self, text: str) -> NoReturn:
        raise ValueError(f"{self._name}: {text}")

    def close(self) -> None:
        """Close the file's container; a file object stays open."""
        self._container.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class _OwningReader(AudioReader):
    """Closes the file that was opened for it, too."""

    def __init__(self, path: Path, stream: int, keep_going: bool) -> None:
        self._file = path.open("rb")
        try:
            super().__init__(self._file, str(path), stream, keep_going)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        super().close()
        self._file.close()


def open_audio(
    source: str | Path | BinaryIO, stream: int = 0, keep_going: bool = False
) -> AudioReader:
    """Open a file to read its sound.

    Args:
        source: a path, or a binary file object (some formats need a seekable one).
        stream: which of the file's audio streams, from 0.
        keep_going: of a damaged file take what can be decoded, with silence for what can't; what
            was wrong stands in `notes`. Otherwise it is an error.

    Raises:
        ValueError: this is no file with sound, or damaged.
        OSError: the file can't be opened or read.
    """
    if isinstance(source, (str, Path)):
        return _OwningReader(Path(source), stream, keep_going)
    name = getattr(source, "name", None)
    called = name if isinstance(name, str) and name else "the sound"
    return AudioReader(source, called, stream, keep_going)


def read_audio(
    source: str | Path | BinaryIO, sample_rate: int | None = None, stream: int = 0
) -> tuple[Tensor, int]:
    """Read a whole file: float32 [channels, N] in [-1, 1], and its sample rate in Hz.

    Args:
        source: as for `open_audio`, also the errors.
        sample_rate: Hz to resample to; None is the file's.
        stream: which of the file's audio streams.
    """
    with open_audio(source, stream) as reader:
        blocks = list(reader.blocks(10.0, sample_rate=sample_rate))
        return torch.cat(blocks, dim=1), sample_rate or reader.sample_rate


def _cut(signal: Iterable[Tensor], size: int, empty: Tensor) -> Iterator[Tensor]:
    """Cut pieces [C, n] of any lengths to blocks of `size`; `empty` where there is no sample."""
    pieces: list[Tensor] = []
    length, given = 0, False
    for piece in signal:
        pieces.append(piece)
        length += piece.shape[1]
        if length >= size:
            joined = torch.cat(pieces, dim=1)
            whole = length - length % size
            yield from torch.split(joined[:, :whole], size, dim=1)
            pieces, length, given = [joined[:, whole:].clone()], length - whole, True
    if length or not given:
        yield torch.cat(pieces, dim=1) if pieces else empty


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    """Playlists and the like may not open files or addresses that nobody has named."""
    raise ValueError(f"it refers to {url!r}, which is not opened")


def _time(frame: av.AudioFrame) -> float | None:
    """Seconds, by the clock of the file."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def _format(found: tuple[int, int, str]) -> str:
    rate, channels, sample_format = found
    return f"{channels} channels at {rate} Hz ({sample_format})"
