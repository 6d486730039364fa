"""The codec audio/lossless: sounds of all kinds, blocks, damage, odd input."""

import itertools
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import latentpack
from latentpack.codecs.audio import lossless, lossless_packets
from latentpack.codecs.audio.lossless import Lossless
from latentpack.codecs.codec import DamageWarning, Packet, Rate
from latentpack.kernels.errors import BitstreamError

GOLDEN = Path(__file__).parent / "golden" / "audio_lossless"


def sound(channels, length, bits=16, seed=0, dtype=None):
    """Two tones that the channels share, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    base = 0.4 * np.sin(0.05 * t) + 0.2 * np.sin(0.4 * t + 1)
    many = base + rng.normal(0, 0.01, (channels, length))
    x = np.rint(many.clip(-1, 1) * ((1 << (bits - 1)) - 1))
    return torch.from_numpy(x).to(dtype or (torch.int16 if bits <= 16 else torch.int32))


def there_and_back(x, **options):
    data = latentpack.encode(x, codec="audio/lossless", **{"sample_rate": 44100} | options)
    y = latentpack.decode(data)
    assert y.dtype == x.dtype and torch.equal(y, x)
    return len(data)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("length", [0, 1, 2, 63, 300])
def test_every_kind_comes_back(bits, channels, length):
    there_and_back(sound(channels, length, bits))
    there_and_back(sound(channels, length, bits, dtype=torch.int32), bits=bits)


@pytest.mark.parametrize("effort", [0, 1, 2])
@pytest.mark.parametrize("rate", [1, 8000, 192000, 2**32 - 1])
def test_efforts_and_rates(effort, rate):
    there_and_back(sound(2, 400), effort=effort, sample_rate=rate)


def test_more_effort_takes_fewer_bytes():
    x = sound(2, 12000)
    sizes = [there_and_back(x, effort=effort) for effort in (0, 1, 2)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[0] < 0.68 * 2 * x.numel()  # the noise has 10.4 bits of 16


def test_extremes():
    for dtype in (torch.int16, torch.int32):
        info = torch.iinfo(dtype)
        ends = torch.tensor([info.min, info.max, 0, -1, 1], dtype=dtype)
        x = ends[torch.from_numpy(np.random.default_rng(0).integers(0, 5, (2, 500)))]
        there_and_back(x)
        there_and_back(torch.tensor([[info.min]], dtype=dtype))


def test_silence_constants_and_equal_channels_cost_nothing():
    for dtype, value in itertools.product((torch.int16, torch.int32), (0, -7, 32767)):
        assert there_and_back(torch.full((6, 100000), value, dtype=dtype)) < 120
    mono = sound(1, 3000)
    assert there_and_back(mono.repeat(6, 1)) < there_and_back(mono) + 30
    quiet = torch.zeros(1, 200000, dtype=torch.int16)
    quiet[0, 0] = 1
    assert there_and_back(quiet) < 200


def test_unused_low_bits_cost_nothing():
    x = sound(2, 3000, 16, dtype=torch.int32)
    plain = there_and_back(x, bits=16)
    assert there_and_back(x * 256, bits=24) < plain + 20
    assert there_and_back(x * 65536, bits=32) < plain + 20


def test_few_values():
    """8 bits that were amplified, and 16 bits that were attenuated: gaps between the values."""
    x = sound(1, 20000, 8)
    plain = there_and_back(x)
    assert there_and_back((x * 211.7).to(torch.int16)) < plain * 1.1 + 100
    louder = torch.round(sound(1, 20000, 12, dtype=torch.int32) * 777.7)
    assert there_and_back(louder.to(torch.int32)) < there_and_back(sound(1, 20000, 12)) * 1.3


def test_rare_loud_samples_are_no_list_of_few_values():
    rng = np.random.default_rng(0)
    x = np.rint(rng.laplace(0, 800, (1, 60000))).clip(-32768, 32767).astype(np.int32)
    assert len(np.unique(x)) < (x.max() - x.min()) / 2
    assert lossless_packets._form(x, 0).form == lossless_packets.PLAIN


def test_noise_is_stored():
    rng = np.random.default_rng(0)
    for bits in (8, 12, 16, 24, 32):
        x = torch.from_numpy(rng.integers(-(1 << bits - 1), 1 << bits - 1, (2, 500)))
        x = x.to(torch.int16 if bits <= 16 else torch.int32)
        assert there_and_back(x, bits=bits) <= 1000 * -(-bits // 8) + 110


def blocks_of(x, *lengths):
    return list(x.split(list(lengths), 1))


def test_blocks_are_the_same_sound():
    codec = Lossless(sample_rate=100, seconds=3, threads=2)
    x = sound(2, 1000)
    whole = list(codec.encode(x))
    assert [packet.key for packet in whole] == [0, 300, 600, 900]
    for lengths in ((1000,), (0, 1, 999), (300, 300, 400), (299, 2, 699), (7,) * 142 + (6,)):
        assert list(codec.encode_blocks(blocks_of(x, *lengths))) == whole
    header = codec.header(x[:, :10])
    found = list(codec.decode_blocks(header, iter(whole)))
    assert [block.shape[1] for block in found] == [300, 300, 300, 100]
    assert torch.equal(torch.cat(found, 1), x)
    assert torch.equal(codec.decode(header, whole[1:3]), x[:, 300:900])
    assert codec.describe(header, whole[3]) == {"start": 900, "samples": 100}


def test_an_endless_sound_takes_no_more_memory():
    """Packets come while blocks are still being made, and the other way round."""
    codec = Lossless(sample_rate=50, seconds=1, threads=2)
    made = 0

    def endless():
        nonlocal made
        while True:
            made += 1
            yield sound(1, 50, seed=made)

    packets = codec.encode_blocks(endless())
    decoded = codec.decode_blocks(codec.header(sound(1, 50)), packets)
    for i in range(1, 20):
        assert torch.equal(next(decoded), sound(1, 50, seed=i))
        assert made <= i + 8


def test_packets_are_limited_in_size(monkeypatch):
    monkeypatch.setattr(lossless, "MAX_SAMPLES", 1000)
    codec = Lossless(sample_rate=44100)
    assert [packet.key for packet in codec.encode(sound(3, 1000))] == [0, 333, 666, 999]


def damage(packet):
    return Packet(packet.key, packet.body[:-9] + bytes(9))


def test_damaged_and_missing_packets():
    codec = Lossless(sample_rate=100, seconds=1)
    x = sound(2, 450)
    header, packets = codec.header(x), list(codec.encode(x))
    broken = [packets[0], damage(packets[1]), packets[3], damage(packets[4])]
    for wrong in (broken, packets[:1] + packets[2:], packets[::-1]):
        with pytest.raises(BitstreamError):
            codec.decode(header, wrong)
    patient = Lossless(keep_going=True)
    with pytest.warns(DamageWarning, match=r"100 to 300 are silence|400 to 450 are silence"):
        y = patient.decode(header, broken)
    expected = x.clone()
    expected[:, 100:300] = 0
    expected[:, 400:] = 0
    assert torch.equal(y, expected)
    with pytest.raises(BitstreamError, match="after sample 200 starts at 100"):
        patient.decode(header, [packets[0], packets[1], packets[1]])
    with pytest.raises(BitstreamError, match=f"starts at {1 << 62}"):
        patient.decode(header, [packets[0], Packet(1 << 62, packets[1].body)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(patient.decode(header, packets), x)


def seeds():
    few = (sound(2, 300, 8) * 100).to(torch.int16)
    mixed = torch.cat([sound(2, 60), sound(1, 60), torch.full((1, 60), 9, dtype=torch.int16)])
    mixed[2] = mixed[0]
    noise = torch.from_numpy(np.random.default_rng(0).integers(-128, 128, (1, 40), np.int16))
    return {"plain": sound(2, 80), "list": few, "mixed": mixed, "raw": noise}


@pytest.mark.parametrize("name", seeds())
def test_damage_is_found_or_harmless(name):
    """Mutations behind the container's checksum: an error, or by luck the same samples."""
    x = seeds()[name]
    codec = Lossless(sample_rate=8000, threads=1, bits=8 if name == "raw" else 16)
    header = codec.header(x)
    (packet,) = codec.encode(x)
    rng = random.Random(name)
    for _ in range(250):
        body = bytearray(packet.body)
        for _ in range(rng.choice((1, 1, 2))):
            at = min(rng.randrange(len(body)), rng.randrange(4 * len(body)))
            match rng.randrange(4):
                case 0:
                    body[at] ^= 1 << rng.randrange(8)
                case 1:
                    body[at] = rng.choice((0, 1, 127, 128, 255))
                case 2:
                    del body[at : at + rng.randrange(1, 5)]
                case 3:
                    body[at:at] = rng.randbytes(rng.randrange(1, 5))
            body = body or bytearray(1)
        try:
            if codec.describe(header, Packet(0, bytes(body)))["samples"] > 100000:
                continue  # legal, and slow
            y = codec.decode(header, [Packet(0, bytes(body))])
        except BitstreamError:
            continue
        assert torch.equal(y, x)


def test_few_bytes_do_not_claim_much_memory():
    codec = Lossless(sample_rate=8000)
    header = codec.header(sound(255, 1))
    for length in (0, lossless_packets.MAX_SAMPLES // 255 + 1, 1 << 60):
        body = bytes([1]) + lossless_packets.put_varint(length) + bytes(4)
        with pytest.raises(BitstreamError, match="legal are 1 to 65793"):
            codec.decode(header, [Packet(0, body)])


def test_headers_and_packets_that_do_not_fit():
    codec, x = Lossless(sample_rate=8000), sound(2, 50)
    header = codec.header(x)
    assert header == {"c": 2, "r": 8000, "b": 16, "w": 2}
    (packet,) = codec.encode(x)
    for wrong in (
        {"c": 0},
        {"c": 256},
        {"r": 0},
        {"r": 1 << 32},
        {"b": 7},
        {"b": 17},
        {"w": 3},
        {"w": True},
        {"r": 44.1},
    ):
        with pytest.raises(BitstreamError, match="header fields"):
            codec.decode(header | wrong, [packet])
    for key in (None, "0", -1, 1 << 63):
        with pytest.raises(BitstreamError, match="not that of a sample"):
            codec.decode(header, [Packet(key, packet.body)])
    with pytest.raises(BitstreamError):
        codec.decode(header | {"c": 3}, [packet])
    with pytest.raises(BitstreamError, match="not of 8 bits"):
        codec.decode(header | {"b": 8}, [packet])


def test_wrong_arguments():
    x = sound(1, 10)
    for options, message in (
        ({"bits": 7}, "bits must be 8 to 32"),
        ({"bits": 16.0}, "bits must be 8 to 32"),
        ({"sample_rate": 0}, "sample_rate must be 1"),
        ({"sample_rate": 44.1}, "sample_rate must be 1"),
        ({"effort": 3}, "effort must be 0 to 2"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"seconds": float("nan")}, "seconds must be above 0"),
        ({"threads": 0}, "threads must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            Lossless(**options)
    codec = Lossless(sample_rate=8000)
    for wrong, message in (
        (torch.zeros(1, 5), "floats are kept by tensor/lossless"),
        (torch.zeros(5, dtype=torch.int16), r"\[channels, samples\], got torch.int16 \[5\]"),
        (torch.zeros(1, 5, dtype=torch.uint8), "takes a sound as int16 or int32"),
        (torch.zeros(0, 5, dtype=torch.int16), "1 to 255 channels, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.encode(wrong)
    with pytest.raises(ValueError, match="takes no rate"):
        codec.encode(x, rate=Rate(kbps=64))
    with pytest.raises(ValueError, match="must know the sample_rate"):
        Lossless().header(x)
    with pytest.raises(ValueError, match=r"-?\d+ to \d+ do not fit into bits=8"):
        Lossless(sample_rate=8000, bits=8).header(x)
    with pytest.raises(ValueError, match="int16 has 16; give int32"):
        Lossless(sample_rate=8000, bits=24).header(x)
    for second, message in (
        (sound(2, 5), "the first has 1 channels"),
        (x.int(), "the first has 1 channels of torch.int16"),
    ):
        with pytest.raises(ValueError, match=message):
            list(codec.encode_blocks([x, second]))
    with pytest.raises(ValueError, match="does not fit into 24 bits"):
        list(codec.encode_blocks([x.int(), sound(1, 5, 32)]))


def test_partners_are_found():
    """Channels 0 and 3 are alike, 1 and 4 too; 2 is like none."""
    alike = [sound(1, 2000, seed=seed) for seed in (1, 2, 3)]
    rng = np.random.default_rng(0)
    lone = torch.from_numpy(rng.integers(-3000, 3000, (1, 2000), np.int16))
    x = torch.cat([alike[0], alike[1] // 3, lone, alike[0] // 2, alike[1] // 4])
    forms = [lossless_packets._form(x.numpy().astype(np.int32), i) for i in range(5)]
    lossless_packets._choose_partners(x.numpy().astype(np.int32), forms)
    assert [form.partner for form in forms][2:] == [2, 0, 1]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lpk")), ids=lambda path: path.stem)
def test_golden_files_decode_and_are_made_again(path):
    x = latentpack.decode(path.read_bytes())
    little = x.numpy().astype(x.numpy().dtype.newbyteorder("<"))
    assert little.tobytes() == path.with_suffix(".bin").read_bytes()
    again = latentpack.encode(x, codec="audio/lossless", **options_of(path.stem))
    assert again == path.read_bytes()


def options_of(stem):
    """What scripts/make_golden.py has made a file with."""
    effort = {"fast": 0, "best": 2}.get(stem, 1)
    return {"sample_rate": 1000, "effort": effort, "seconds": 0.2 if stem == "packets" else 20.0}


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 8
