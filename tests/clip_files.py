"""Lossless files of short clips."""

from fractions import Fraction

import av
import numpy as np

from latentpack.tests.video_double import clip


def write(path, count=6, width=48, height=32, bits=8, colours=3, seed=0, **colour):
    """A lossless file of a clip at 25 frames a second; returns the clip."""
    x = clip(count, width, height, bits, colours, seed)
    write_planes(path, x, bits, **colour)
    return x


def write_planes(path, x, bits=8, **colour):
    """The same of a given clip."""
    (count, height, width), colours = x[0].shape, len(x)
    names = {(8, 3): "yuv420p", (10, 3): "yuv420p10le", (8, 1): "gray"}
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, names[bits, colours]
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in colour.items():
            setattr(stream.codec_context, name, value)
        for number in range(count):
            frame = av.VideoFrame(width, height, stream.pix_fmt)
            frame.pts, frame.time_base = 40 * number, stream.time_base
            for plane, samples in zip(frame.planes, x, strict=True):
                values = samples[number].numpy()
                row = plane.line_size // values.itemsize
                lines = np.zeros((plane.height, row), values.dtype)
                lines[:, : values.shape[1]] = values
                plane.update(lines.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
