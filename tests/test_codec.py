"""Rate, Packet and the table of codecs."""

import math

import pytest

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Packet, Rate
from latentpack.kernels.errors import BitstreamError


def test_table_is_frozen():
    assert registry.CODECS == {
        1: "tensor/lossless",
        2: "image/light",
        3: "tensor/delta",
        4: "image/fit",
        5: "image/lossless",
        6: "image/tokens",
        7: "image/compressai",
        8: "audio/rvq",
        9: "audio/lossless",
        10: "video/fit",
        11: "video/lite",
        12: "video/inr",
    }


@pytest.mark.parametrize("number, name", registry.CODECS.items())
def test_every_codec_loads(number, name):
    loaded = registry.load(number)
    assert loaded is registry.load(name)
    assert issubclass(loaded, Codec)
    assert loaded.name == name


def test_unknown_codec():
    with pytest.raises(ValueError, match="'zip' is unknown; known are tensor/lossless"):
        registry.load("zip")
    with pytest.raises(BitstreamError, match="codec id 77 is unknown"):
        registry.load(77)


def test_rate_takes_exactly_one():
    rate = Rate.of(bpp=0.5, psnr=None)
    assert (rate.name, rate.value) == ("bpp", 0.5)
    assert repr(rate) == "Rate(bpp=0.5)"
    assert Rate(quality=0).value == 0
    with pytest.raises(ValueError, match="exactly one of quality, bpp"):
        Rate()
    with pytest.raises(ValueError, match="exactly one"):
        Rate(bpp=1, psnr=30)
    with pytest.raises(ValueError, match="no 'size'"):
        Rate.of(size=3)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "3", True])
def test_rate_rejects(value):
    with pytest.raises(ValueError, match="rate bpp must be"):
        Rate(bpp=value)


def test_packet_defaults():
    assert Packet(None, b"x").bulk == b""
