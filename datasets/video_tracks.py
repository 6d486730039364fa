"""What is beside the picture of a video file: tracks whose packets are copied, tags and chapters.

A track is described by a dict that can be stored: what a container must know to hold the packets
again, in FFmpeg's names. FORMAT.md, section 23, lists the fields.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.error
from av.packet import PacketSideData, packet_sidedata_type_from_literal
from av.stream import Disposition

KINDS = ("audio", "subtitle", "video", "attachment")
_USUAL_BASE = [1, 1000]  # of what has no time, such as a font
_MOST_SIDE = 1 << 31  # of pictures and rates in hostile descriptions
# Tags that containers make up themselves, of which old ones would be wrong.
_STALE = ("encoder", "duration", "major_brand", "minor_version", "compatible_brands", "vendor_id",
          "bps", "number_of_frames", "number_of_bytes", "_statistics")  # fmt: skip
# Text of subtitles: MP4's begins with its length, Matroska's doesn't.
_PLAIN_TEXT, _MP4_TEXT = ("subrip", "text"), "mov_text"


class TrackPacket(NamedTuple):
    """A piece of a track, as its source has it.

    Attributes:
        track: its number in the list of tracks.
        data: the bytes.
        pts: when it is shown, in units of the track's time base; None where that isn't said.
        dts: when it is decoded.
        duration: 0 if that is not known.
        key: whether decoding can begin here.
        side: what the container says besides: FFmpeg's name of the kind, and the bytes.
    """

    track: int
    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    side: tuple[tuple[str, bytes], ...] = ()


def describe(stream: Any) -> dict[str, Any]:
    """A stream of an open file as a track.

    Raises:
        ValueError: it is of a kind that isn't copied.
    """
    context = stream.codec_context
    if stream.type not in KINDS or (context is None and stream.type != "attachment"):
        what = getattr(stream, "name", None) or "unknown"
        raise ValueError(f"{stream.type} of kind {what!r} is left out")
    track: dict[str, Any] = {
        "type": stream.type,
        "time_base": pair(stream.time_base) or _USUAL_BASE,
    }
    if context is not None:
        track["codec"] = context.codec.canonical_name
        if context.extradata:
            track["extradata"] = context.extradata
    if stream.type == "audio":
        track |= {"sample_rate": context.sample_rate, "layout": context.layout.name}
        if context.frame_size:
            track["frame_size"] = context.frame_size
    elif stream.type == "video":
        track |= {"width": context.width, "height": context.height}
        for name, value in (
            ("pixel_format", context.pix_fmt),
            ("average_rate", pair(stream.average_rate)),
            ("sample_aspect", pair(context.sample_aspect_ratio)),
        ):
            if value:
                track[name] = value
    return track | stream_tags(stream)


def stream_tags(stream: Any) -> dict[str, Any]:
    """What a stream is for, and its tags, of which "language" is one."""
    found: dict[str, Any] = {}
    if names := [flag.name for flag in Disposition if stream.disposition & flag]:
        found["disposition"] = names
    if tags := kept_tags(stream.metadata):
        found["tags"] = tags
    return found


def set_stream_tags(stream: Any, found: Mapping[str, Any]) -> None:
    """The mirror of `stream_tags`."""
    names, known = found.get("disposition"), Disposition.__members__
    if isinstance(names, list):
        stream.disposition = sum({known[n].value for n in names if n in known})
    stream.metadata.update(strings(found.get("tags")))


def packets_of(attachment: Any, track: int) -> TrackPacket:
    """The bytes of an attached file, such as a font."""
    return TrackPacket(track, attachment.data, None, None, 0, True)


def packet_of(packet: Any, track: int) -> TrackPacket:
    """A packet of PyAV, copied."""
    side = tuple((str(s.data_type), bytes(s)) for s in packet.iter_sidedata())
    return TrackPacket(
        track, bytes(packet), packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, side
    )


def kept_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags but for those that every file gets anew."""
    return {k: v for k, v in tags.items() if not k.lower().startswith(_STALE)}


def pair(value: Fraction | None) -> list[int]:
    """A fraction as it is stored; [] for none, and for 0, which stands for none."""
    return [value.numerator, value.denominator] if value else []


def fraction(value: Any, what: str) -> Fraction:
    """A stored fraction above 0; ValueError for anything else."""
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(type(x) is int and 0 < x < 1 << 62 for x in value)
    ):
        raise ValueError(f"{what} is {value!r:.60}, expected two integers above 0")
    return Fraction(*value)


def strings(tags: Any) -> dict[str, str]:
    """Stored tags, but for what is no text."""
    pairs = tags.items() if isinstance(tags, Mapping) else ()
    return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, str) and k}


class TrackSink:
    """A track in a file that is written."""

    def __init__(self, container: Any, track: Mapping[str, Any], first: TrackPacket | None) -> None:
        """Add a stream for a track, before the file's header is written.

        Args:
            container: an open output of PyAV.
            track: its description.
            first: its first packet, which is an attachment's only one.

        Raises:
            ValueError: the container can't hold it, or the description is wrong.
        """
        self._convert = _as_it_is
        kind, codec = track.get("type"), track.get("codec")
        if kind == "attachment":
            self.stream = _add_attachment(container, track, first)
            return
        if kind not in KINDS or not isinstance(codec, str):
            raise ValueError(f"a track is {kind!r:.40} of codec {codec!r:.40}")
        self.time_base = fraction(track.get("time_base"), "time_base of a track")
        try:
            self.stream = _add(container, codec)
        except ValueError:
            codec, self._convert = _other_text(codec)
            self.stream = _add(container, codec)
        if self.stream.type != kind:
            raise ValueError(f"{codec} is {self.stream.type}, not {kind}")
        _set_parameters(self.stream.codec_context, track, self._convert is _as_it_is)
        if codec == "aac" and first is not None and not track.get("extradata"):
            self._take_heads(container, first.data)
        self.stream.time_base = self.time_base
        set_stream_tags(self.stream, track)

    def _take_heads(self, container: Any, data: bytes) -> None:
        """AAC of MPEG-TS has a head to each packet, where other files have one for all."""
        if container.format.name != "mpegts" and _is_adts(data):
            self.stream.codec_context.extradata = _aac_config(data)
            self._convert = _without_head

    def packet(self, source: TrackPacket, shift: Fraction) -> Any | None:
        """A packet to mux, `shift` seconds earlier; None for an attachment's, which is in it."""
        if self.stream.type == "attachment":
            return None
        packet = av.Packet(self._convert(source.data))
        offset = round(shift / self.time_base)
        packet.pts = None if source.pts is None else source.pts - offset
        packet.dts = None if source.dts is None else source.dts - offset
        packet.duration, packet.time_base = source.duration, self.time_base
        packet.is_keyframe, packet.stream = source.key, self.stream
        for name, data in source.side:
            _set_side_data(packet, name, data)
        return packet


def _add(container: Any, codec: str) -> Any:
    """A stream for packets of a codec, which is neither encoded nor decoded."""
    try:
        # PyAV sets a codec's parameters of streams only that have a context, and opens the
        # encoder of contexts only that have no template. A format that writes nothing gives one.
        with av.open(io.BytesIO(), "w", format="null") as blank:
            return container.add_stream_from_template(blank.add_data_stream(codec), opaque=True)
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(str(error).rstrip()) from None


def _set_parameters(context: Any, track: Mapping[str, Any], same: bool) -> None:
    extradata = track.get("extradata")
    if isinstance(extradata, bytes) and same:
        context.extradata = extradata
    try:
        if track["type"] == "audio":
            context.sample_rate = _size(track, "sample_rate")
            context.layout = str(track.get("layout"))
        elif track["type"] == "video":
            context.width, context.height = _size(track, "width"), _size(track, "height")
            if isinstance(name := track.get("pixel_format"), str):
                context.pix_fmt = name
            if "average_rate" in track:
                context.framerate = fraction(track["average_rate"], "average_rate")
            if "sample_aspect" in track:
                context.sample_aspect_ratio = fraction(track["sample_aspect"], "sample_aspect")
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise ValueError(f"the description of the track is wrong: {error}") from None


def _size(track: Mapping[str, Any], name: str) -> int:
    value = track.get(name)
    if type(value) is not int or not 0 < value < _MOST_SIDE:
        raise ValueError(f"{name} is {value!r:.40}")
    return value


def _add_attachment(container: Any, track: Mapping[str, Any], first: TrackPacket | None) -> Any:
    tags = strings(track.get("tags"))
    if container.format.name not in ("matroska", "webm"):
        raise ValueError("it holds no attachments")
    if first is None:
        raise ValueError("its bytes are missing")
    name, kind = tags.get("filename", "attachment"), tags.get("mimetype")
    return container.add_attachment(name, kind or "application/octet-stream", first.data)


def _set_side_data(packet: Any, name: str, data: bytes) -> None:
    try:
        kind = packet_sidedata_type_from_literal(name)  # type: ignore[arg-type]
    except ValueError:
        return  # of a newer FFmpeg
    if data:
        side = PacketSideData(kind, len(data))  # type: ignore[call-arg]
        side.update(data)
        packet.set_sidedata(side)


def _as_it_is(data: bytes) -> bytes:
    return data


def _is_adts(data: bytes) -> bool:
    return len(data) >= 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0


def _aac_config(data: bytes) -> bytes:
    """AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) of what an ADTS head says."""
    kind, rate = (data[2] >> 6) + 1, data[2] >> 2 & 15
    channels = (data[2] & 1) << 2 | data[3] >> 6
    return (kind << 11 | rate << 7 | channels << 3).to_bytes(2, "big")


def _without_head(data: bytes) -> bytes:
    if not _is_adts(data):
        return data
    return data[7 if data[1] & 1 else 9 :]  # with a checksum it is longer


def _other_text(codec: str) -> tuple[str, Any]:
    """For subtitles of plain text, the other container's form, and how one becomes it."""
    if codec == _MP4_TEXT:
        return _PLAIN_TEXT[0], lambda data: data[2 : 2 + int.from_bytes(data[:2], "big")]
    if codec in _PLAIN_TEXT:
        return _MP4_TEXT, lambda data: len(data[:65535]).to_bytes(2, "big") + data[:65535]
    raise ValueError(f"the container holds no {codec}")


def kept_chapters(chapters: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Chapters of PyAV as they are stored: start and end in units of a time base, and tags."""
    return [
        {
            "start": chapter["start"],
            "end": chapter["end"],
            "time_base": pair(chapter["time_base"]),
            "tags": dict(chapter["metadata"]),
        }
        for chapter in chapters
        if chapter["time_base"]
    ]


def chapters_to_write(chapters: Any, shift: Fraction) -> list[dict[str, Any]]:
    """The mirror of `kept_chapters`, `shift` seconds earlier; without those that end before 0."""
    found: list[dict[str, Any]] = []
    for chapter in chapters if isinstance(chapters, list) else ():
        if not isinstance(chapter, Mapping):
            raise ValueError(f"a chapter is {chapter!r:.60}, expected a map")
        unit = fraction(chapter.get("time_base"), "time_base of a chapter")
        offset = round(shift / unit)
        start, end = chapter.get("start"), chapter.get("end")
        if type(start) is not int or type(end) is not int or max(abs(start), abs(end)) >= 1 << 62:
            raise ValueError(f"a chapter lies from {start!r:.40} to {end!r:.40}")
        if end - offset <= 0:
            continue
        found.append(
            {
                "id": len(found) + 1,
                "start": max(0, start - offset),
                "end": end - offset,
                "time_base": unit,
                "metadata": strings(chapter.get("tags")),
            }
        )
    return found
