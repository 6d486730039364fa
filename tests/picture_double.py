"""A picture codec without networks, for the tests of the command line (a pytest plugin)."""

import zlib

import pytest
import torch

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Packet
from latentpack.kernels.errors import BitstreamError


class DoubleCodec(Codec):
    """Keeps the top bits of every sample; the quality in percent says how many.

    Has what the command line relies on in `image/light`: the header's fields "s" and "w", the
    option weights, `reserve`, and errors of every kind.
    """

    name = "image/light"

    def __init__(self, weights=None):
        self.digest = str(weights).encode() if weights else b"shipped!"

    def header(self, signal):
        channels, height, width = signal.shape
        return {"s": [width, height, channels], "w": self.digest}

    def encode(self, signal, rate=None, reserve=0):
        if signal.float().mean() == 77:
            raise ValueError("the latents hold NaN or infinity; the weights are damaged")
        for bits in range(8, 0, -1):
            body = bytes([bits]) + zlib.compress((signal >> (8 - bits)).numpy().tobytes())
            if rate is None or self._fits(rate, bits, len(body) + reserve + 2, signal):
                break
        yield Packet(None, body)

    def _fits(self, rate, bits, size, x):
        if rate.name == "quality":
            return bits <= max(1, rate.value * 8 / 100)
        if rate.name == "psnr":
            return bits <= rate.value / 6
        return (
            size
            <= {
                "bpp": rate.value * x.shape[1] * x.shape[2] / 8,
                "ratio": x.numel() / rate.value,
                "max_bytes": rate.value,
            }[rate.name]
        )

    def decode(self, header, packets):
        if header["w"] != self.digest:
            raise ValueError(f"the stream was made with weights {header['w'].hex()}; --weights")
        width, height, channels = header["s"]
        (packet,) = packets
        try:
            data = bytearray(zlib.decompress(packet.body[1:]))
        except zlib.error as error:
            raise BitstreamError(f"bad samples: {error}") from None
        x = torch.frombuffer(data, dtype=torch.uint8).view(channels, height, width)
        return x << (8 - packet.body[0])


@pytest.fixture
def picture_codec(monkeypatch):
    """`image/light` is the double in this test."""
    load = registry.load

    def load_double(codec):
        if codec in (2, "image/light"):
            return DoubleCodec
        return load(codec)

    monkeypatch.setattr(registry, "load", load_double)
    return DoubleCodec
