"""Small video files for tests, written by FFmpeg alone."""

import io
import sys
from fractions import Fraction

import av
import numpy as np

from latentpack.codecs import registry
from latentpack.tests import video_double

RATE = 8000  # Hz of the sound
SHALLOW_ID = 200


def register(monkeypatch):
    """Make the codec of tests known as video/shallow."""
    monkeypatch.setitem(registry.CODECS, SHALLOW_ID, "video/shallow")
    monkeypatch.setitem(sys.modules, "latentpack.codecs.video.shallow", video_double)
    registry.load.cache_clear()


def picture(number, width=32, height=24):
    """A frame that says its number: columns that move."""
    y = np.full((height, width), 40, np.uint8)
    y[:, (3 * number) % width :] = 60 + number % 100
    half = (height + 1) // 2, (width + 1) // 2
    return y, np.full(half, 100 + number % 20, np.uint8), np.full(half, 140, np.uint8)


def tone(samples, rate=RATE, hz=440):
    """A sound, int16 [1, samples]."""
    return (8000 * np.sin(np.arange(samples) * 2 * np.pi * hz / rate)).astype(np.int16)[None]


def film(
    path, count=25, times=None, size=(32, 24), sounds=1, offset=0.0, base=Fraction(1, 1000),
    seconds=None, codec="ffv1",
):  # fmt: skip
    """Write `count` frames at 25 a second, or at `times` in units of `base`, and sounds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height = size
        video.pix_fmt, video.codec_context.time_base = "yuv420p", base
        audios = [
            container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(sounds)
        ]
        times = times or [round(i / 25 / base) for i in range(count)]
        for number, pts in enumerate(times):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, part in zip(frame.planes, picture(number, *size), strict=True):
                rows = np.zeros((part.shape[0], plane.line_size), np.uint8)
                rows[:, : part.shape[1]] = part
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = pts, base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        length = round((seconds or count / 25) * RATE)
        for hz, audio in enumerate(audios):
            samples = tone(length, hz=440 + 110 * hz)
            for at in range(0, length, 400):
                frame = av.AudioFrame.from_ndarray(samples[:, at : at + 400], "s16", "mono")
                frame.sample_rate, frame.pts = RATE, at + round(offset * RATE)
                frame.time_base = Fraction(1, RATE)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def frames_in(source):
    """Times in seconds and planes of Y of a file, as FFmpeg decodes it."""
    source = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(source) as container:
        stream = container.streams.video[0]
        return [(frame.pts * stream.time_base, luma(frame)) for frame in container.decode(stream)]


def luma(frame):
    """Y of a frame of FFmpeg, [height, width]."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width].copy()


def packets_in(path, kind="audio"):
    """Time in seconds and bytes of each packet of a kind of streams."""
    with av.open(str(path)) as container:
        return [
            (packet.stream.index, packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux()
            if packet.size and packet.stream.type == kind
        ]


def samples_in(path, stream=0):
    """A sound, int16 [channels, N], and the time of its first sample in seconds."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[stream]
        resampler = av.AudioResampler("s16p")
        frames = list(container.decode(sound))
        start = frames[0].pts * frames[0].time_base
        pieces = [out.to_ndarray() for frame in frames for out in resampler.resample(frame)]
        return np.concatenate(pieces, 1), start
