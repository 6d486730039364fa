"""The sounds of a video, coded by a codec of sounds beside the picture, and back.

Each is coded as a whole, into a temporary file on the disk, before the frames are read, and decoded
as a whole before they are written: what there is in memory does not grow with the length.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Packet
from latentpack.codecs.container import Reader
from latentpack.codecs.fields import Cursor, get_varint, put_varint
from latentpack.codecs.video.tracks import part_key, track_of
from latentpack.datasets import video_tracks
from latentpack.datasets.audio import open_audio
from latentpack.datasets.audio_writer import AudioWriter
from latentpack.datasets.video_tracks import TrackPacket
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts import sound_files, sounds
from latentpack.scripts.jobs import Job, note
from latentpack.scripts.media import DecodeOptions, EncodeOptions

_LEFT_OUT = "the video is left out"  # a note of readers of sounds that says nothing here
_WRITTEN_AS = {"webm": "opus", "mp4": "m4a", "mov": "m4a", "ts": "m4a", "avi": "wav"}
_FLAC_BITS = 24


class CodedSound:
    """A sound of a source, coded, as a track of the .lpk file.

    Attributes:
        track: its description: `coded` is the id of the codec, `header` that of its packets,
            `start` the sample of the file's clock at which it begins.
        bytes: that its packets take.
    """

    def __init__(
        self,
        source: BinaryIO,
        stream: int,
        job: Job,
        options: EncodeOptions,
        span: tuple[Fraction | None, Fraction | None],
        stack: ExitStack,
    ) -> None:
        """Code a sound.

        Args:
            source: seekable file.
            stream: which of its sounds.
            job: for notes.
            options: of the run; the codec is `audio`.
            span: seconds of the file's clock; what is before and behind is left out.
            stack: closes the temporary file.
        """
        source.seek(0)
        for_sounds = dataclasses.replace(
            options, codec=options.audio, given={}, rate=options.audio_rate
        )
        file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
        with open_audio(source, stream, options.keep_going) as reader:
            self._codec, blocks = sound_files.prepare(reader, for_sounds)
            rate = reader.sample_rate
            start = round(reader.start * rate)
            first = 0 if span[0] is None else max(0, round(span[0] * rate) - start)
            stop = None if span[1] is None else max(0, round(span[1] * rate) - start)
            part = _part(blocks, first, stop)
            sounds.write_sound(file, self._codec, part, options.audio_rate)
            for text in reader.notes:
                if text != _LEFT_OUT and not text.startswith("sound "):
                    note(job, f"sound {stream}: {text}")
        start += first
        self._reader, self._rate = Reader(file), rate
        self.bytes = file.seek(0, 2)
        self.track: dict[str, Any] = {
            "type": "audio",
            "time_base": [1, self._rate],
            "coded": self._reader.codec_id,
            "header": self._reader.params,
            "start": start,
        } | sound_files.metadata_of(reader)
        self._start = Fraction(start, self._rate)

    def feed(self, number: int) -> Iterator[tuple[Fraction, Packet]]:
        """Its packets in the .lpk file, as track `number`, and when each begins."""
        samples = 0
        for part, packet in enumerate(self._reader.packets()):
            time = self._start + Fraction(samples, self._rate)
            body = put_varint(cast(int, packet.key)) + packet.body
            yield time, Packet(part_key(number, part), body)
            samples += self._codec.describe(self._reader.params, packet)["samples"]


def _part(blocks: Iterator[Tensor], first: int, stop: int | None) -> Iterator[Tensor]:
    """Samples first to stop of a sound in blocks [C, n]; an empty block where there is none."""
    at = 0
    for block in blocks:
        end = block.shape[1] if stop is None else max(0, stop - at)
        yield block[:, max(0, first - at) : end]
        at += block.shape[1]
        if stop is not None and at >= stop:
            return


def is_coded(track: Mapping[str, Any]) -> bool:
    """Whether a track was coded by one of our codecs."""
    return "coded" in track


class TrackSoundReader:
    """The packets of a coded sound, as `container.Reader` gives those of a file of its own.

    Attributes:
        codec_id: of the codec.
        params: header of the packets.
    """

    def __init__(self, reader: Reader, number: int, track: Mapping[str, Any]) -> None:
        """Look into a track; BitstreamError if its description is wrong."""
        self._reader = reader
        codec_id, params = track.get("coded"), track.get("header")
        if type(codec_id) is not int or not isinstance(params, dict):
            raise BitstreamError(f"track {number} is coded by {codec_id!r:.40}")
        if not registry.codec_name(codec_id).startswith("audio/"):
            raise BitstreamError(f"track {number} is coded by {registry.codec_name(codec_id)}")
        self.codec_id, self.params = codec_id, params
        self._parts = [key for key in reader.keys() if track_of(key) == number]
        self._names: dict[int, str | int | None] | None = None

    def _packet(self, part: str | int | None) -> Packet:
        body = self._reader.read(part).body
        cursor = Cursor(memoryview(body), 0)
        key = get_varint(cursor, "key of a packet of a sound")
        return Packet(key, bytes(cursor.take(cursor.left, "packet of a sound")))

    def packets(self) -> Iterator[Packet]:
        """All of them, in order."""
        return map(self._packet, self._parts)

    def keys(self) -> list[int]:
        """Their keys."""
        return list(self._named())

    def read(self, key: int) -> Packet:
        """One of them; KeyError if there is none."""
        return self._packet(self._named()[key])

    def _named(self) -> dict[int, str | int | None]:
        if self._names is None:
            self._names = {}
            for part in self._parts:
                try:
                    self._names[cast(int, self._packet(part).key)] = part
                except BitstreamError:
                    continue  # what decodes the others finds that it is missing
        return self._names


class DecodedSound:
    """A coded sound of a .lpk file, decoded, as packets of a kind that video files hold.

    Attributes:
        track: description for the file that is written.
    """

    def __init__(
        self,
        reader: Reader,
        number: int,
        track: Mapping[str, Any],
        format_name: str,
        span: tuple[Fraction | None, Fraction | None],
        options: DecodeOptions,
        stack: ExitStack,
    ) -> None:
        """Decode a sound.

        Args:
            reader: of the .lpk file.
            number: of the track.
            track: its description.
            format_name: of the video file that is written.
            span: seconds of the file's clock; what is before and behind is left out.
            options: of the run.
            stack: closes temporary files.

        Raises:
            BitstreamError: it is damaged, unless we keep going.
        """
        packets = TrackSoundReader(reader, number, track)
        rate, channels = sounds.sample_rate_of(cast(Reader, packets)), packets.params.get("c")
        start = track.get("start")
        if type(start) is not int or abs(start) >= 1 << 62 or type(channels) is not int:
            raise BitstreamError(f"track {number} starts at {start!r:.40}")
        begin = Fraction(start, rate)
        first = max(Fraction(0), (span[0] or begin) - begin)
        duration = None if span[1] is None else max(Fraction(0), span[1] - begin - first)
        self._number, self._begin = number, begin + first
        keep_going = bool(options.given.get("keep_going"))
        codec = options.open(packets.codec_id, sounds.open_codec)
        name = _WRITTEN_AS.get(format_name, "flac")
        bits = packets.params.get("b")
        bits = bits if type(bits) is int else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = folder / f"sound.{name}"
        with AudioWriter(
            target, rate, channels, name, _written_bits(name, bits),
            sound_files.tags_of(dict(track)), sound_files.layout_of(dict(track)),
        ) as writer:  # fmt: skip
            seconds = None if duration is None else float(duration)
            blocks = sounds.sound_blocks(
                cast(Reader, packets), codec, float(first), seconds, keep_going
            )
            for block in blocks:
                writer.write(block, bits)
        self.notes = writer.notes
        container = stack.enter_context(av.open(str(target)))
        self._packets = container.demux(container.streams.audio[0])
        self._stream = container.streams.audio[0]
        self.track = video_tracks.describe(self._stream)
        for name in ("tags", "disposition"):
            if name in track:
                self.track[name] = track[name]
        self._shift = round(self._begin / Fraction(*self.track["time_base"]))

    def feed(self) -> Iterator[tuple[Fraction, TrackPacket]]:
        """Its packets, and when each begins by the file's clock."""
        base = Fraction(*self.track["time_base"])
        time = self._begin
        for found in self._packets:
            if not found.size:
                continue
            packet = video_tracks.packet_of(found, self._number)
            moved = packet._replace(
                pts=None if packet.pts is None else packet.pts + self._shift,
                dts=None if packet.dts is None else packet.dts + self._shift,
            )
            time = time if moved.pts is None else moved.pts * base
            yield time, moved


def _written_bits(name: str, bits: int | None) -> int | None:
    """Of the samples to write: those that the codec says, if the format has them."""
    if name not in ("flac", "wav"):
        return None
    known = (16, _FLAC_BITS) if name == "flac" else (8, 16, 24, 32)
    return min((n for n in known if n >= (bits or 16)), default=known[-1])


class Feed:
    """Packets with times, taken as far as a time."""

    def __init__(self, packets: Iterator[tuple[Fraction, Any]]) -> None:
        """Take what `feed` gives."""
        self._packets = packets
        self._next = next(packets, None)

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield what begins at a time or before; None is all."""
        while self._next is not None and (time is None or self._next[0] <= time):
            yield self._next[1]
            self._next = next(self._packets, None)
