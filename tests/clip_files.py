"""Lossless files of short clips."""

from latentpack.codecs.video.frames import frames_of
from latentpack.datasets.video_writer import VideoWriter
from latentpack.tests.video_double import clip


def write(path, count=6, width=48, height=32, bits=8, colours=3, seed=0, **info):
    """A lossless file of a clip at 25 frames a second; returns the clip."""
    x = clip(count, width, height, bits, colours, seed)
    write_planes(path, x, bits, **info)
    return x


def write_planes(path, x, bits=8, **info):
    """The same of a given clip."""
    (_, height, width), colours = x[0].shape, len(x)
    info = {"time_base": [1, 1000], "average_rate": [25, 1], **info}
    with VideoWriter(path, "mkv", width, height, bits, colours, info) as writer:
        for frame in frames_of(x):
            writer.write(frame._replace(pts=40 * frame.pts, duration=40))
