"""The codec video/inr: clips and tensors of all kinds, targets, random access, chains, damage."""

import numpy as np
import pytest
import torch

import latentpack
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.video import inr_drawing
from latentpack.codecs.video.frames import VideoFormat, frames_of, psnr_db
from latentpack.codecs.video.inr import Inr
from latentpack.kernels.errors import BitstreamError

SMALL = {"effort": 0, "parameters": 1500}


def clip(count=4, width=24, height=18, bits=8, colours=3):
    """A soft pattern that moves and changes its brightness."""
    planes = []
    for c, (h, w) in enumerate(VideoFormat(width, height, bits, colours).shapes):
        t, y, x = np.mgrid[:count, :h, :w].astype(np.float64)
        wave = np.sin(2 * np.pi * (x + t / 2) / w + c) * np.cos(3 * y / h) * 0.3 + 0.45 + t / 40
        samples = (wave.clip(0, 1) * ((1 << bits) - 1)).round()
        planes.append(torch.from_numpy(samples).to(torch.uint8 if bits == 8 else torch.int16))
    return tuple(planes)


def tensor(channels=3, count=4, height=18, width=24):
    return torch.stack([clip(count, width, height, colours=1)[0]] * channels, 1)


def encode(x, rate=None, **options):
    return latentpack.encode(x, codec="video/inr", rate=rate, **{**SMALL, **options})


def quality_of(x, data, bits=8):
    """Mean PSNR in dB of a clip's frames."""
    found = latentpack.decode(data)
    pairs = zip(frames_of(x), frames_of(found), strict=True)
    return np.mean([psnr_db(a.planes, b.planes, bits) for a, b in pairs])


@pytest.fixture(scope="module")
def fitted():
    """A clip and its file, fitted long enough to be like it."""
    x = clip(5, 32, 26)
    return x, encode(x, Rate(quality=80), effort=3)


@pytest.fixture(scope="module")
def chained():
    """Two GoPs, the second as differences from the first."""
    x = clip(4)
    return x, encode(x, gop=2, chain=2)


def packets_of(data):
    reader = Reader(data)
    return reader.params, list(reader.packets())


@pytest.mark.parametrize(
    ("size", "bits", "colours"),
    [((24, 18), 8, 3), ((15, 9), 10, 3), ((17, 5), 8, 1), ((1, 1), 8, 3)],
)
def test_clips_of_all_kinds_keep_their_shape(size, bits, colours):
    x = clip(2, *size, bits, colours)
    y = latentpack.decode(encode(x, bits=bits))
    assert [(p.shape, p.dtype) for p in y] == [(p.shape, p.dtype) for p in x]


@pytest.mark.parametrize("arch", ["boosted", "hnerv", "nerv"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tensors_of_all_channels(arch, channels):
    x = tensor(channels, 2, 11, 16)
    y = latentpack.decode(encode(x, arch=arch))
    assert y.shape == x.shape and y.dtype == torch.uint8


def test_float_tensors_come_back_as_floats():
    x = tensor().half() / 255
    with pytest.raises(ValueError, match="float32"):
        encode(x)
    y = latentpack.decode(encode(x.float()))
    assert y.dtype == torch.float32 and y.shape == x.shape
    assert float(y.min()) >= 0 and float(y.max()) <= 1


def test_the_fit_is_near_the_clip(fitted):
    x, data = fitted
    flat = tuple(p.float().mean().round().to(p.dtype).expand_as(p) for p in x)
    pairs = zip(frames_of(x), frames_of(flat), strict=True)
    plain = np.mean([psnr_db(a.planes, b.planes, 8) for a, b in pairs])
    assert quality_of(x, data) > plain + 10


@pytest.mark.parametrize("arch", ["hnerv", "nerv"])
def test_steps_chosen_after_the_fit(arch):
    x = clip()
    data = encode(x, arch=arch, learned_steps=False)
    learned = encode(x, Rate(quality=10), arch=arch)
    assert len(learned) < len(data)
    codec, (header, (packet,)) = Inr(), packets_of(data)
    found = codec.describe(header, packet)
    assert found["arch"] == arch and found["network_bytes"] > found["parameters"] / 2


def test_encoder_and_decoder_draw_the_same(fitted):
    x, _ = fitted
    codec = Inr(**SMALL)
    coded = codec.encode_gop([f.planes for f in frames_of(x)], VideoFormat(32, 26), 50.0)
    header = codec.header(x)
    found = codec.decode_gop(header, memoryview(coded.payload), VideoFormat(32, 26), 5)
    pairs = zip(frames_of(x), found, strict=True)
    assert np.mean([psnr_db(a.planes, b, 8) for a, b in pairs]) == coded.psnr


def test_only_frames_asked_for_are_drawn(fitted, monkeypatch):
    _, data = fitted
    whole = list(Inr().decode_frames(*packets_of(data)))
    drawn = []
    real = inr_drawing.Drawing.frame
    monkeypatch.setattr(
        inr_drawing.Drawing,
        "frame",
        lambda self, t, level=0: drawn.append(t) or real(self, t, level),
    )
    some = list(Inr().decode_frames(*packets_of(data), start=2, stop=4))
    assert drawn == [2, 3] and [f.pts for f in some] == [2, 3]
    for a, b in zip(some, whole[2:4], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))


def test_decoding_at_half_the_size(fitted):
    x, data = fitted
    small = latentpack.decode(data, scale=2)
    assert [p.shape for p in small] == [(5, 13, 16), (5, 7, 8), (5, 7, 8)]
    halved = torch.nn.functional.avg_pool2d(x[0][:, None].float(), 2)[:, 0]
    error = (small[0].float() - halved).square().mean()
    assert error < halved.var() / 4
    with pytest.raises(ValueError, match="scale is 64"):
        latentpack.decode(data, scale=64)


def test_weights_as_differences(chained):
    _, data = chained
    header, packets = packets_of(data)
    codec = Inr()
    assert [codec.needs(p) for p in packets] == [None, 0]
    whole, differences = (codec.describe(header, p)["network_bytes"] for p in packets)
    assert differences < whole
    both = list(codec.decode_frames(header, packets))
    later = list(codec.decode_frames(header, packets, start=2))
    assert [f.pts for f in later] == [2, 3]
    assert all(torch.equal(a.planes[0], b.planes[0]) for a, b in zip(both[2:], later, strict=True))
    with pytest.raises(BitstreamError, match="begin with the group of pictures that `needs` names"):
        list(codec.decode_frames(header, packets[1:]))
    codec.verify(header, packets[1])


def test_differences_from_other_networks_are_refused(chained):
    _, data = chained
    header, packets = packets_of(data)
    _, others = packets_of(encode(clip(4, 20), gop=2))
    with pytest.raises(BitstreamError):
        list(Inr().decode_frames(header, [others[0], packets[1]]))


def test_a_fit_goes_on_where_it_was_cut(tmp_path, monkeypatch):
    x, path = clip(3), tmp_path / "fit"
    expected = encode(x)
    monkeypatch.setattr("latentpack.codecs.video.inr_fit._SAVE_SECONDS", 0.0)
    done = []

    def cut(step, steps, bits, psnr):
        done.append(step)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(x, resume=path, progress=cut)
    assert path.exists()
    done.clear()
    assert encode(x, resume=path, progress=lambda *now: done.append(now[0])) == expected
    assert done[0] > 3  # not from the start
    with pytest.raises(ValueError, match="other frames or other settings"):
        encode(clip(3, 20), resume=path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a checkpoint"):
        encode(x, resume=path)


def test_quality_buys_quality_and_sizes_are_met():
    x = clip(3)
    low, high = encode(x, Rate(quality=0), effort=2), encode(x, Rate(quality=100), effort=2)
    assert len(low) < len(high) and quality_of(x, low) < quality_of(x, high)
    limit = (len(low) + len(high)) // 2
    assert len(encode(x, Rate(max_bytes=limit))) <= limit
    with pytest.raises(ValueError, match="max_bytes 60 is out of reach"):
        encode(x, Rate(max_bytes=60))


def test_the_estimate_of_bits_is_what_the_file_takes():
    # The estimate is a mean over the last pass, in which the size still falls.
    told = []
    x = clip(4, 64, 48)
    data = encode(x, parameters=20000, effort=2, progress=lambda *now: told.append(now[2]))
    assert told[-1] * 4 * 64 * 48 / 8 == pytest.approx(len(data), rel=0.06)


def test_time_budget_ends_a_fit():
    steps = []
    encode(clip(2), effort=9, time_budget=0.3, progress=lambda *now: steps.append(now))
    assert 0 < len(steps) < 1000


@pytest.mark.parametrize("arch", ["boosted", "hnerv", "nerv"])
def test_damage_is_found_or_harmless(arch):
    x = clip(2, 16, 12)
    format = VideoFormat(16, 12)
    codec = Inr()
    header, (packet,) = packets_of(encode(x, arch=arch))
    payload = codec_payload(packet)
    rng = np.random.default_rng(0)
    cuts = [payload[:n] for n in (0, 1, 5, 12, 20, len(payload) // 2, len(payload) - 1)]
    flips = []
    for at in [*range(24), *rng.integers(0, len(payload), 60)]:
        damaged = bytearray(payload)
        damaged[at] ^= 1 << int(rng.integers(8))
        flips.append(bytes(damaged))
    refused = 0
    for damaged in cuts + flips:
        try:
            assert len(list(codec.decode_gop(header, memoryview(damaged), format, 2))) == 2
        except BitstreamError:
            refused += 1
    assert refused > len(cuts)


def codec_payload(packet):
    from latentpack.codecs.video.gop_times import read_times

    return bytes(read_times(packet.body, 1 << 16)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": 5}, "1 to 4 channels"),
        ({"c": 0}, "1 to 4 channels"),
        ({"t": "int64"}, "float32"),
        ({"t": 3}, "float32"),
        ({"s": [0, 3]}, "width"),
        ({"s": 3}, "header fields s and c"),
        ({"g": 0}, "header field g"),
    ],
)
def test_illegal_headers(change, message):
    header, packets = packets_of(encode(tensor(2, 1, 4, 4)))
    with pytest.raises(BitstreamError, match=message):
        Inr().decode({**header, **change}, packets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effort": 10}, "effort is 10, expected 0 to 9"),
        ({"arch": "mlp"}, "arch is 'mlp', expected one of nerv, hnerv, boosted"),
        ({"chain": 0}, "chain is 0"),
        ({"time_budget": 0}, "time_budget is 0"),
        ({"scale": 3}, "scale is 3, expected 1, 2, 4"),
        ({"parameters": 0}, "parameters is 0"),
        ({"gop": 0}, "gop must be 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Inr(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5, 4, 4, dtype=torch.uint8), "1 to 4 channels"),
        (torch.zeros(2, 3, 4), r"takes a tensor \[T, C, H, W\]"),
        (torch.zeros(0, 3, 4, 4), r"takes a tensor \[T, C, H, W\]"),
        (torch.full((1, 1, 4, 4), 1.5), "floats of 0 to 1"),
        (torch.full((1, 1, 4, 4), float("nan")), "floats of 0 to 1"),
    ],
)
def test_signals_that_are_not_taken(x, message):
    with pytest.raises(ValueError, match=message):
        encode(x)


def test_packets_of_tracks_are_skipped(fitted):
    _, data = fitted
    header, packets = packets_of(data)
    codec = Inr()
    track = Packet("t0/0", b"abc")
    codec.verify(header, track)
    assert codec.describe(header, track) == {} and codec.needs(track) is None
    assert len(codec.decode(header, [track, *packets])[0]) == 5
