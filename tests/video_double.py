"""A video codec for tests of everything around codecs: samples with fewer bits, deflated."""

import zlib

import numpy as np
import torch

from latentpack.codecs.codec import Packet
from latentpack.codecs.video.frames import Frame, VideoFormat
from latentpack.codecs.video.gops import Coded, GopCodec
from latentpack.kernels.errors import BitstreamError


class Shallow(GopCodec):
    """Divides samples by a step, 1 at quality 100: lossless there."""

    name = "video/shallow"
    usual_gop = 4

    def __init__(self, gop=None, bits=None, frame_rate=None, keep_going=False):
        super().__init__(gop, bits, frame_rate, keep_going)
        self.tries = []  # quality, and which results were given to go on from

    def encode_gop(self, gop, format, quality, before=None, near=None):
        self.tries.append((quality, before and before.kept, near and near.kept))
        step = round(2 ** ((100 - quality) / 12))
        data = b"".join(x.numpy().astype("<u2").ravel() // step for planes in gop for x in planes)
        return Coded(step.to_bytes(2) + zlib.compress(data, 1), kept=quality)

    def decode_gop(self, header, payload, format, count):
        step, size = int.from_bytes(payload[:2]), format.samples * 2
        unpack = zlib.decompressobj()
        data = bytes(payload[2:])
        for _ in range(count):
            try:
                frame = unpack.decompress(data, size)
                data = unpack.unconsumed_tail
                while len(frame) < size and data:
                    frame += unpack.decompress(data, size - len(frame))
                    data = unpack.unconsumed_tail
            except zlib.error as error:
                raise BitstreamError(str(error)) from None
            if len(frame) < size:
                raise BitstreamError("a frame is cut")
            yield tuple(planes_of(frame, format, step))


def planes_of(data, format, step):
    samples = np.frombuffer(data, "<u2").astype(np.int32) * step
    samples = samples.clip(0, (1 << format.bits) - 1)
    at = 0
    for height, width in format.shapes:
        part = torch.from_numpy(samples[at : at + height * width].reshape(height, width))
        yield part.to(format.dtype)
        at += height * width


CODEC = Shallow


def clip(count=6, width=33, height=21, bits=8, colours=3, seed=0):
    """A moving pattern with noise."""
    numbers = np.random.default_rng(seed)
    planes = []
    for h, w in VideoFormat(width, height, bits, colours).shapes:
        t, y, x = np.mgrid[:count, :h, :w]
        wave = np.sin(x / 5 + t / 2) * np.cos(y / 4) * 0.35 + 0.5
        wave = wave + numbers.normal(0, 0.02, wave.shape)
        samples = (wave.clip(0, 1) * ((1 << bits) - 1)).round()
        planes.append(torch.from_numpy(samples).to(torch.uint8 if bits == 8 else torch.int16))
    return tuple(planes)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def shifted(frames, pts, durations):
    """Frames at other times."""
    return [Frame(f.planes, p, d) for f, p, d in zip(frames, pts, durations, strict=True)]


def renamed(packet, key):
    return Packet(key, packet.body)
