"""One video file to a .lpk file, and one back, as `encode` and `decode` do it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.video.frames import Length, VideoFormat
from latentpack.codecs.video.gops import GopCodec, describe_gop
from latentpack.datasets.video import VideoReader, open_video
from latentpack.datasets.video_formats import Y4M, video_format
from latentpack.datasets.video_survey import Survey, survey
from latentpack.datasets.video_writer import VideoWriter, WriterOptions
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts import videos
from latentpack.scripts.jobs import Job, note, noted_damage
from latentpack.scripts.media import AUDIO_COPY, DecodeOptions, EncodeOptions
from latentpack.scripts.video_progress import VideoProgress
from latentpack.scripts.video_sounds import CodedSound, DecodedSound, Feed, is_coded
from latentpack.scripts.videos import Beside, VideoFile

USUAL_CODEC = "video/lite"
_TOLERANCE = 0.05  # of a size, by which the result may be off before it is said
_PER_PACKET, _PER_PART = 6, 64  # bytes about a packet of a track, and a part, at most
_PART_SECONDS = 1.0  # of a part, about


@dataclass
class _Found:
    """What was found out before the frames are read.

    Attributes:
        length: of the video, None if it is not known.
        bytes: of copied tracks, about.
        sounds: that were coded.
    """

    length: Length | None = None
    bytes: int = 0
    sounds: list[CodedSound] = field(default_factory=list)


def encode_file(job: Job, source: BinaryIO, target: BinaryIO, options: EncodeOptions) -> str:
    """Do one file; returns the line to print."""
    if options.show_psnr:
        raise ValueError("--show-psnr measures pictures; `latentpack evaluate video` does videos")
    codec = cast(GopCodec, options.open(USUAL_CODEC, videos.open_codec))
    with ExitStack() as stack:
        found = _find_out(job, source, options, stack)
        reader = stack.enter_context(
            open_video(source, options.stream, options.keep_going, options.threads)
        )
        span = _clock(reader, options.start, options.end)
        kept = _kept(reader, options)
        beside = Beside(
            _metadata(reader, kept, found.sounds, span[0], options.keep_metadata),
            found.bytes,
            [Feed(sound.feed(len(kept) + i)) for i, sound in enumerate(found.sounds)],
        )
        format = VideoFormat(reader.width, reader.height, reader.bits, reader.colours)
        items = _renumbered(reader.items(_exact(options.start), _exact(options.end)), kept)
        begin = reader.start if span[0] is None else span[0]
        shown = _Shown(reader.time_base, begin)
        with stack.enter_context(
            VideoProgress(job.source, _seconds(reader, found, options))
        ) as bar:

            def told(frame: Any, size: int) -> None:
                bar.update(shown.frame(frame), size)

            size = videos.write_video(
                target, codec, format, items, beside, options.rate, found.length, told
            )
        for text in reader.notes:
            note(job, text)
        return _report(job, reader, options.rate, size, shown)


class _Shown:
    """Counts frames and the time that they take."""

    def __init__(self, base: Fraction, begin: Fraction) -> None:
        self._base, self._begin = base, begin
        self.frames, self.seconds = 0, 0.0

    def frame(self, frame: Any) -> float:
        self.frames += 1
        end = frame.pts + frame.duration
        self.seconds = float(end * self._base - self._begin)
        return self.seconds


def _find_out(job: Job, source: BinaryIO, options: EncodeOptions, stack: ExitStack) -> _Found:
    """Look through the file before, where that is needed to meet a size or to code its sounds."""
    found = _Found()
    if not options.looks_ahead:
        return found
    with open_video(source, options.stream, options.keep_going) as reader:
        span = _clock(reader, options.start, options.end)
        sounds = sum(track["type"] == "audio" for track in reader.tracks)
        if options.sized:
            seen = survey(source, reader, *span)
            if seen.frames:
                found.length = Length(seen.frames, seen.seconds)
            found.bytes = _bytes_beside(seen, _kept(reader, options))
    if options.codes_audio:
        found.sounds = [CodedSound(source, n, job, options, span, stack) for n in range(sounds)]
        found.bytes += sum(sound.bytes for sound in found.sounds)
    source.seek(0)
    return found


def _clock(
    reader: VideoReader, start: float | None, end: float | None
) -> tuple[Fraction | None, Fraction | None]:
    """Seconds from the first frame as those of the file's clock."""
    begin, stop = _exact(start), _exact(end)
    return (
        None if not begin else reader.start + begin,
        None if stop is None else reader.start + stop,
    )


def _exact(seconds: float | None) -> Fraction | None:
    """What was meant by a time in binary: 0.4 is 2/5, so that a frame of that time is met."""
    return None if seconds is None else Fraction(round(seconds * 10**6), 10**6)


def _kept(reader: VideoReader, options: EncodeOptions) -> dict[int, int]:
    """The tracks that are copied: number in the source, number in the file."""
    wanted = [
        number
        for number, track in enumerate(reader.tracks)
        if options.audio == AUDIO_COPY or track["type"] != "audio"
    ]
    return {old: new for new, old in enumerate(wanted)}


def _bytes_beside(seen: Survey, kept: dict[int, int]) -> int:
    """Bytes that copied tracks take in the file, about."""
    total = 0
    for number in kept:
        count, size = seen.tracks.get(number, (0, 0))
        parts = min(count, 1 + seen.seconds / _PART_SECONDS)
        total += size + count * _PER_PACKET + round(parts * _PER_PART)
    return total


def _metadata(
    reader: VideoReader,
    kept: dict[int, int],
    sounds: list[CodedSound],
    begin: Fraction | None,
    describing: bool,
) -> dict[str, Any]:
    """What goes into box M; `describing`: with tags and chapters."""
    info = dict(reader.info)
    if begin is not None:
        info["start"] = [begin.numerator, begin.denominator]
    tracks = [dict(reader.tracks[old]) for old in kept] + [sound.track for sound in sounds]
    if not describing:
        for track in tracks:
            track.pop("tags", None)
    metadata: dict[str, Any] = {"video": info}
    if tracks:
        metadata["tracks"] = tracks
    if describing:
        metadata |= {"chapters": reader.chapters} if reader.chapters else {}
        metadata |= {"tags": reader.tags} if reader.tags else {}
    return metadata


def _renumbered(items: Iterator[Any], kept: dict[int, int]) -> Iterator[Any]:
    """Frames, and the packets of those tracks that are kept."""
    for item in items:
        if not hasattr(item, "track"):
            yield item
        elif item.track in kept:
            yield item._replace(track=kept[item.track])


def _seconds(reader: VideoReader, found: _Found, options: EncodeOptions) -> float | None:
    """How long the part is that is coded, for the progress."""
    if found.length is not None:
        return found.length.seconds
    end = reader.seconds if options.end is None else options.end
    return None if end is None else end - (options.start or 0.0)


def _report(job: Job, reader: VideoReader, rate: Rate | None, size: int, shown: _Shown) -> str:
    """The line about a file; says where a target was missed."""
    line = (
        f"{job.source} -> {job.target}: {size:,} bytes, {reader.width}x{reader.height}, "
        f"{_count(shown.frames, 'frame')}, {shown.seconds:.2f} s"
    )
    if shown.seconds <= 0:
        return line
    kbps = size * 8 / shown.seconds / 1000
    if rate is not None and rate.name == "kbps" and abs(kbps / rate.value - 1) > _TOLERANCE:
        note(job, f"asked for {rate.value:g} kbps, the nearest reached is {kbps:.2f} kbps")
    return line + f", {kbps:.1f} kbps"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def decode_file(job: Job, source: BinaryIO, target: BinaryIO, options: DecodeOptions) -> str:
    """Do one file; returns the line to print."""
    options.refuse_for("a video", "bits")
    format_name = video_format(options.format_name or Path(job.target).suffix or "mkv")
    keep_going = bool(options.given.get("keep_going"))
    reader = Reader(source, recover=keep_going)
    codec = cast(GopCodec, options.open(reader.codec_id, videos.open_codec))
    if keep_going:
        _note_missing_end(job, source)
    start, end = _exact(options.start), None
    if options.duration is not None:
        end = _exact((options.start or 0.0) + options.duration)
    with noted_damage(job), ExitStack() as stack:
        video = VideoFile(reader, codec, keep_going)
        tracks, skipped, feeds = _tracks(job, video, format_name, (start, end), options, stack)
        writer = stack.enter_context(_writer(target, format_name, video, tracks, start, options))
        shown = _Shown(video.base, video.start * video.base + (start or 0))
        bar = stack.enter_context(VideoProgress(job.source, _span_seconds(video, start, end)))
        for item in video.items(start, end, skipped, feeds):
            if hasattr(item, "track"):
                writer.write_packet(item)
            else:
                writer.write(item)
                bar.update(shown.frame(item))
        if not shown.frames:
            raise ValueError("no frame is shown in the time asked for")
    for text in [*video.lost, *writer.notes]:
        note(job, text)
    return (
        f"{job.source} -> {job.target}: {video.format.width}x{video.format.height}, "
        f"{_count(shown.frames, 'frame')}, {shown.seconds:.2f} s"
    )


def _tracks(
    job: Job,
    video: VideoFile,
    format_name: str,
    span: tuple[Fraction | None, Fraction | None],
    options: DecodeOptions,
    stack: ExitStack,
) -> tuple[list[dict[str, Any]], list[int], list[Feed]]:
    """Tracks for the file that is written; which of them are not copied; what feeds those."""
    if format_name == Y4M:
        if video.tracks:
            note(job, f"y4m holds the picture only; {_count(len(video.tracks), 'track')} left out")
        return [], list(range(len(video.tracks))), []
    clock = [None if seconds is None else video.start * video.base + seconds for seconds in span]
    tracks, skipped, feeds = list(video.tracks), [], []
    for number, track in enumerate(video.tracks):
        if is_coded(track):
            sound = DecodedSound(
                video.reader, number, track, format_name, (clock[0], clock[1]), options, stack
            )
            for text in sound.notes:
                note(job, f"track {number}: {text}")
            tracks[number] = sound.track
            skipped.append(number)
            feeds.append(Feed(sound.feed()))
    return tracks, skipped, feeds


def _writer(
    target: BinaryIO,
    format_name: str,
    video: VideoFile,
    tracks: list[dict[str, Any]],
    start: Fraction | None,
    options: DecodeOptions,
) -> VideoWriter:
    metadata = video.reader.metadata
    shift = _start(video.info.get("start"))
    if start:
        shift = video.start * video.base + start
    return VideoWriter(
        target,
        format_name,
        video.format.width,
        video.format.height,
        video.format.bits,
        video.format.colours,
        video.info,
        tracks,
        metadata.get("chapters", []),
        metadata.get("tags", {}),
        WriterOptions(options.encoder, options.crf, threads=options.threads),
        shift,
    )


def _start(pair: Any) -> Fraction:
    """Where a part of a video begins; 0 for a whole one."""
    if pair is None:
        return Fraction(0)
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(x) is int for x in pair):
        raise BitstreamError(f"metadata video: start is {pair!r:.60}")
    if not pair[1]:
        raise BitstreamError("metadata video: start has no denominator")
    return Fraction(*pair)


def _span_seconds(video: VideoFile, start: Fraction | None, end: Fraction | None) -> float:
    """How long the part is that is decoded, for the progress."""
    last = video.read(video.gops[-1])
    whole = 0.0
    if last is not None:
        stop = describe_gop(video.reader.params, last)["end"]
        whole = float((stop - video.start) * video.base)
    return float(min(whole, whole if end is None else end) - (start or 0))


def _note_missing_end(job: Job, source: BinaryIO) -> None:
    """Say of a file that was cut that it was: packets that are gone at its end leave no trace."""
    try:
        Reader(source).keys()
    except BitstreamError as error:
        note(job, f"only what is whole is decoded: {error}")
