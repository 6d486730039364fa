"""Sound codecs by name: ours with options and rates, peers at rates."""

import pytest
import torch

from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Packet
from latentpack.datasets.audio_peers import PEERS
from latentpack.scripts.sound_codecs import known_names, open_codecs


def tone(channels=1, rate=16000, seconds=0.5):
    t = torch.arange(round(seconds * rate)) / rate
    return torch.stack([torch.sin(2 * torch.pi * 300 * (c + 1) * t) / 3 for c in range(channels)])


@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (2, 24)])
def test_ours_without_loss(channels, bits):
    (codec,) = open_codecs("audio/lossless@effort=0")
    x = (tone(channels) * 2 ** (bits - 1)).round() / 2 ** (bits - 1)
    data = codec.encode(x, 16000, bits)
    assert codec.ours and codec.name == "audio/lossless@effort=0"
    assert 100 < len(data) < x.numel() * bits / 8
    assert torch.equal(codec.decode(data, 16000), x)


def test_rates_and_options_reach_the_codec(monkeypatch):
    calls = []

    class Spy(Codec):
        name = "audio/lossless"

        def __init__(self, sample_rate=None, weights=None, effort=4):
            calls.append((sample_rate, weights, effort))

        def header(self, signal):
            return {"r": 16000, "c": 1}

        def encode(self, signal, rate=None, reserve=0):
            raise AssertionError("not used")

        def encode_blocks(self, blocks, rate=None, reserve=0):
            calls.append(rate.kbps)
            for block in blocks:
                yield Packet(None, bytes(block.shape[1]))

        def decode(self, header, packets):
            raise AssertionError("not used")

        def decode_blocks(self, header, packets):
            for packet in packets:
                yield torch.zeros(1, len(packet.body))

    monkeypatch.setattr(registry, "load", lambda codec: Spy)
    (codec,) = open_codecs("audio/lossless@kbps=2.5,effort=7,weights=mine.lpkw")
    x_hat = codec.decode(codec.encode(tone(), 16000, 16), 16000)
    assert x_hat.shape == (1, 8000)
    encoder, kbps, decoder = calls
    assert (encoder[0], str(encoder[1]), encoder[2], kbps) == (16000, "mine.lpkw", 7, 2.5)
    assert str(decoder[1]) == "mine.lpkw"


@pytest.mark.parametrize("name", [name for name in PEERS if not PEERS[name].missing()])
def test_peers(name):
    kbps = PEERS[name].steps[-1]
    (codec,) = open_codecs(f"{name}@{kbps:g}")
    x = tone(seconds=1)
    data = codec.encode(x, 16000, 16)
    assert not codec.ours and f"{kbps:g} kbit/s" in codec.settings
    x_hat = codec.decode(data, 16000)
    assert x_hat.shape[0] == 1 and abs(x_hat.shape[1] - 16000) < 2000


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ogg@3", "codec 'ogg' is unknown; there are audio/"),
        ("opus", "opus: the rate must be a number of kbit/s, got ''"),
        ("opus@much", "got 'much'"),
        ("audio/lossless@kbps=x", "got 'x'"),
        ("audio/lossless@preset=1", "audio/lossless has no option 'preset'; it has bits, effort"),
        ("audio/lossless@effort", "option 'effort' has no value"),
        (" , ", "no codec is named; there are audio/"),
    ],
)
def test_wrong_names(names, message):
    with pytest.raises(ValueError, match=message):
        open_codecs(names)


def test_a_missing_peer_is_said_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(type(PEERS["opus"]), "missing", lambda self: "an av with it")
    with pytest.raises(ValueError, match="none of opus@6 can run here"):
        open_codecs("opus@6")
    assert "note: opus@6 is left out: it needs an av with it" in capsys.readouterr().err
    assert [codec.name for codec in open_codecs("opus@6,audio/lossless")] == ["audio/lossless"]
    assert {"audio/lossless", "opus"} <= set(known_names())
