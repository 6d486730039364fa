"""A video in frames, and the tracks beside it, to the packets of a .lpk file and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Protocol

from latentpack.codecs import registry
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader, Writer, empty_size
from latentpack.codecs.video.frames import Frame, Length, VideoFormat
from latentpack.codecs.video.gops import GopCodec, describe_gop, find_gop
from latentpack.codecs.video.tracks import TrackPacket, get_part, part_key, put_part, track_of
from latentpack.datasets.video_order import TrackQueue
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.codec_options import make_codec

_HELD_PACKETS, _HELD_BYTES = 1024, 1 << 20  # of a track, at most, before a part is written
_ALWAYS = ("attachment",)  # kinds of tracks that a part of the video needs as a whole
_USUAL_BASE = [1, 25]  # seconds, where a file does not say what its times are


def open_codec(codec: str | int, **options: Any) -> GopCodec:
    """Make a video codec; options that are None are left to it.

    Raises:
        ValueError: no such codec, not one for videos, or it has no such option.
    """
    loaded: Any = registry.load(codec)
    if not issubclass(loaded, GopCodec):
        raise ValueError(f"{loaded.name} is no codec for videos; those are named video/...")
    made: GopCodec = make_codec(loaded, options)
    return made


class Feed(Protocol):
    """A track that is not copied from the source while frames are read, but from elsewhere."""

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield what begins at a time of the file's clock or before; None is all."""


@dataclass(frozen=True)
class Beside:
    """What a file holds besides the frames.

    Attributes:
        metadata: for box M.
        bytes: of tracks, as far as is known before; for sizes that are asked for.
        feeds: of tracks; each yields packets of the .lpk file.
    """

    metadata: dict[str, Any]
    bytes: int = 0
    feeds: Sequence[Feed] = ()


class _Parts:
    """Packets of tracks, held until the GoP of their time is written."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._held: dict[int, list[TrackPacket]] = {}
        self._bytes: dict[int, int] = {}
        self._count: dict[int, int] = {}

    def put(self, packet: TrackPacket) -> None:
        held = self._held.setdefault(packet.track, [])
        held.append(packet)
        size = self._bytes.get(packet.track, 0) + len(packet.data)
        self._bytes[packet.track] = size
        if len(held) >= _HELD_PACKETS or size >= _HELD_BYTES:
            self._write(packet.track)

    def flush(self) -> None:
        for track in sorted(self._held):
            self._write(track)

    def _write(self, track: int) -> None:
        number = self._count.get(track, 0)
        self._count[track] = number + 1
        self._writer.write(Packet(part_key(track, number), put_part(self._held.pop(track))))
        del self._bytes[track]


def write_video(
    file: BinaryIO,
    codec: GopCodec,
    format: VideoFormat,
    items: Iterable[Any],
    beside: Beside,
    rate: Rate | None = None,
    length: Length | None = None,
    told: Callable[[Any, int], None] | None = None,
) -> int:
    """Encode a video into a file while it is read, and return the file's size.

    Args:
        file: binary; it is written from its position on.
        codec: from `open_codec`.
        format: of the frames.
        items: frames in the order shown, and packets of tracks (objects with a `track`) among
            them.
        beside: what else goes into the file.
        rate: None is the codec's default.
        length: of the video, needed for `max_bytes`.
        told: is given every frame that was read, and the bytes that the file has so far.

    Raises:
        ValueError: the codec does not take the frames or the rate.
    """
    header = codec.header(format)
    number = registry.codec_id(codec.name)
    base = time_base(beside.metadata)
    reserve = empty_size(number, header, beside.metadata) + beside.bytes
    with Writer(file, number, header, beside.metadata) as writer:
        parts = _Parts(writer)
        shown = [0]

        def frames() -> Iterator[Frame]:
            for item in items:
                if hasattr(item, "track"):
                    parts.put(item)
                    continue
                shown[0] = item.pts
                if told is not None:
                    told(item, writer.offset)
                yield item

        for packet in codec.encode_frames(frames(), format, rate, reserve, base, length):
            for feed in beside.feeds:
                for part in feed.until(shown[0] * base):
                    writer.write(part)
            parts.flush()
            writer.write(packet)
        for feed in beside.feeds:
            for part in feed.until(None):
                writer.write(part)
    return writer.offset


def time_base(metadata: dict[str, Any]) -> Fraction:
    """Seconds of a unit of the frames' times, by box M; BitstreamError if it is no fraction."""
    return _fraction(_map(metadata.get("video")).get("time_base", _USUAL_BASE), "video")


def _fraction(pair: Any, what: str) -> Fraction:
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(type(x) is int and 0 < x < 1 << 62 for x in pair)
    ):
        raise BitstreamError(f"metadata {what}: time_base is {pair!r:.60}")
    return Fraction(*pair)


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class VideoFile:
    """An open .lpk file of a video.

    Attributes:
        reader: of the file.
        format: of the frames.
        info: what the source said of the picture (FORMAT.md, section 23).
        base: seconds of a unit of the frames' times.
        tracks: descriptions of what is beside it.
        start: pts of the first frame.
    """

    def __init__(self, reader: Reader, codec: GopCodec, keep_going: bool = False) -> None:
        """Look into a file.

        Args:
            reader: of the file; opened with recover=True to keep going.
            codec: from `open_codec`.
            keep_going: leave out packets that are damaged.

        Raises:
            BitstreamError: header, index or what describes the video is damaged.
            ValueError: it holds a tensor, which is no video.
        """
        self.reader, self._codec, self._keep_going = reader, codec, keep_going
        self.format = codec.read_format(reader.params)
        if type(self.format) is not VideoFormat:
            raise ValueError("it holds a tensor, which `latentpack.decode` gives back, no video")
        self.info = _map(reader.metadata.get("video"))
        self.base = time_base(reader.metadata)
        tracks = reader.metadata.get("tracks", [])
        if not isinstance(tracks, list) or not all(isinstance(track, dict) for track in tracks):
            raise BitstreamError(f"metadata tracks are {tracks!r:.60}, expected a list of maps")
        self.tracks: list[dict[str, Any]] = tracks
        self._keys = reader.keys()
        self.gops = [key for key in self._keys if type(key) is int]
        if not self.gops:
            raise BitstreamError("no group of pictures in it is whole")
        self.lost: list[str] = []
        self.start = self._first_pts()

    def _first_pts(self) -> int:
        for key in self.gops:
            packet = self.read(key)
            if packet is not None:
                return describe_gop(self.reader.params, packet)["start"]
        raise BitstreamError("no group of pictures in it is whole")

    def _pts(self, seconds: Fraction | None) -> int | None:
        """Seconds from the first frame as the first time of a frame that is not before."""
        return None if seconds is None else self.start + -(-seconds // self.base)

    def items(
        self,
        start: Fraction | None = None,
        end: Fraction | None = None,
        skip: Iterable[int] = (),
        feeds: Sequence[Feed] = (),
    ) -> Iterator[Any]:
        """Yield frames in the order shown, and between them the packets of tracks.

        Args:
            start: seconds from the first frame; what is shown before is left out.
            end: seconds; what is shown at this time or later is left out.
            skip: tracks whose packets are left out.
            feeds: of further tracks.

        Raises:
            BitstreamError: the file is damaged.
        """
        first, last = self._pts(start), self._pts(end)
        queue = TrackQueue(
            [self._track_base(track) for track in self.tracks],
            None if not start or first is None else first * self.base,
            None if last is None else last * self.base,
        )
        wanted = set(range(len(self.tracks))) - set(skip)
        yield from self._whole_tracks(wanted)
        packets = self._packets(self._place(first), queue, wanted)
        for frame in self._codec.decode_frames(self.reader.params, packets, first, last):
            time = frame.pts * self.base
            for feed in feeds:
                yield from feed.until(time)
            yield from queue.until(time)
            yield frame
        for feed in feeds:
            yield from feed.until(None)
        yield from queue.rest()

    def _track_base(self, track: dict[str, Any]) -> Fraction:
        return _fraction(track.get("time_base", _USUAL_BASE), "tracks")

    def _place(self, first: int | None) -> int:
        """Where to begin among the packets, so that the frame of a time is met."""
        contiguous = self.gops == list(range(len(self.gops)))
        if first is None or first <= self.start or not contiguous:
            return 0
        number = find_gop(self.reader.params, self.reader.read, len(self.gops), first)
        needed = self._codec.needs(self.reader.read(number))
        if type(needed) is int:
            number = min(number, max(0, needed))
        return self._keys.index(number - 1) + 1 if number else 0

    def _whole_tracks(self, wanted: set[int]) -> Iterator[TrackPacket]:
        """Attached files and pictures, which are at the beginning of the file."""
        whole = {
            number
            for number in wanted
            if self.tracks[number].get("type") in _ALWAYS
            or "attached_pic" in (self.tracks[number].get("disposition") or ())
        }
        for key in self._keys if whole else ():
            track = track_of(key)
            if track in whole and (packet := self.read(key)) is not None:
                yield from get_part(packet.body, track)
        wanted -= whole

    def _packets(self, place: int, queue: TrackQueue, wanted: set[int]) -> Iterator[Packet]:
        """Groups of pictures for the codec; packets of tracks go into the queue on the way."""
        for key in self._keys[place:]:
            track = track_of(key)
            if isinstance(key, str) and track not in wanted:
                continue
            packet = self.read(key)
            if packet is None:
                continue
            if track is None:
                yield packet
                continue
            try:
                found = get_part(packet.body, track)
            except BitstreamError as error:
                self._damage(f"{key!r}: {error}")
                continue
            for item in found:
                queue.put(item)  # type: ignore[arg-type]  # a TrackPacket of the same fields
            yield from ()

    def read(self, key: Any) -> Packet | None:
        """A packet; None if it is damaged and we keep going."""
        try:
            return self.reader.read(key)
        except BitstreamError as error:
            self._damage(f"packet {key!r}: {error}")
            return None

    def _damage(self, text: str) -> None:
        if not self._keep_going:
            raise BitstreamError(text)
        if text not in self.lost:
            self.lost.append(text)
