"""audio/rvq on the way: streams that equal files, and frames and packets that are lost."""

import random
import warnings

import pytest
import torch

from latentpack.codecs.audio import rvq_stream
from latentpack.codecs.audio.rvq import Rvq
from latentpack.codecs.audio.rvq_packets import Coder
from latentpack.codecs.codec import DamageWarning, Packet
from latentpack.codecs.container import Reader
from latentpack.kernels.errors import BitstreamError
from latentpack.tests.test_rvq import decode, file_of, sound


@pytest.fixture(scope="module")
def make(rvq_weights):
    return lambda *args, **options: Rvq(*args, **{"weights": rvq_weights, **options})


def cuts(count, most, seed=0):
    """Where to cut `count` things into pieces."""
    generator, at = random.Random(seed), 0
    while at < count:
        size = generator.randint(1, most)
        yield slice(at, at + size)
        at += size


def stream_of(encoder, x, most=10**9):
    parts = [encoder.push(x[:, cut]) for cut in cuts(x.shape[1], most)]
    return b"".join([*parts, encoder.finish()])


def samples_of(decoder, data, most=10**9):
    parts = [decoder.push(data[cut]) for cut in cuts(len(data), most)]
    parts.append(decoder.finish())
    return torch.cat([part for part in parts if part.numel()] or parts[-1:], 1)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 8_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_streams_equal_files_however_they_are_cut(make, channels, sample_rate):
    codec = make(sample_rate, joint=False)
    x = sound(channels, int(0.534 * sample_rate), sample_rate)
    stream = stream_of(codec.stream_encoder(channels), x)
    assert stream_of(codec.stream_encoder(channels), x, sample_rate // 9) == stream
    y = samples_of(codec.stream_decoder(), stream)
    assert torch.equal(samples_of(codec.stream_decoder(), stream, 40), y)
    assert y.shape == x.shape
    for channel in range(channels):  # each alone, so that all codebooks are used
        one = x[channel : channel + 1]
        assert torch.equal(decode(codec, one, codec.encode(one))[0], y[channel])


def test_joint_streams_in_any_pieces(make):
    codec, x = make(), sound(2, 9_999)
    stream = stream_of(codec.stream_encoder(2, kbps=3), x)
    assert stream_of(codec.stream_encoder(2, kbps=3), x, 100) == stream
    y = samples_of(codec.stream_decoder(), stream)
    assert torch.equal(samples_of(codec.stream_decoder(), stream, 11), y) and y.shape == x.shape


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_any_length_comes_back(make, sample_rate):
    codec = make(sample_rate)
    frame = sample_rate // 50
    for count in (0, 1, frame // 2, frame // 2 + 1, frame, frame + 1, 16 * frame, 5_000):
        stream = stream_of(codec.stream_encoder(), sound(1, count, sample_rate))
        decoder = codec.stream_decoder()
        assert samples_of(decoder, stream).shape == (1, count)
        assert decoder.ended == (count > 0)


def test_size_and_latency(make):
    x = sound(1, 32_000)
    codec = make()
    for kbps, size in ((0.8, 2), (1.2, 3), (1.6, 4), (2.0, 5)):
        encoder = codec.stream_encoder(kbps=kbps)
        header = len(encoder.push(x[:, :0]))
        assert encoder.kbps <= kbps
        stream = stream_of(encoder, x)
        assert len(stream) <= 101 * size + 5
        assert header == 22
    assert codec.stream_encoder().latency == 480  # 30 ms
    assert 0.030 <= make(48_000).stream_encoder().latency / 48_000 < 0.034
    with pytest.raises(ValueError, match="ask for more kbps"):
        codec.stream_encoder(kbps=0.3)
    with pytest.raises(ValueError, match="channels is 0"):
        codec.stream_encoder(0)


def test_latency_is_what_it_takes(make):
    codec = make(22_050)
    encoder, decoder = codec.stream_encoder(), codec.stream_decoder()
    x = sound(1, 22_050, 22_050)
    given = taken = 0
    for cut in cuts(x.shape[1], 60):
        given += x[:, cut].shape[1]
        taken += decoder.push(encoder.push(x[:, cut])).shape[1]
        assert given - taken <= encoder.latency + 60


def test_frames_that_start_with_the_highest_code():
    coder = Coder(64, 6, None)
    generator = random.Random(0)
    for stages in ((1,), (3,), (4,), (2, 1), (6, 6, 6)):
        frames, data, expected = rvq_stream._Frames(stages, coder), b"", []
        for i in range(60):
            codes = [
                torch.tensor([generator.choice((0, 5, 63)) for _ in range(n)])[:, None]
                for n in stages
            ]
            dropped = generator.randrange(2**16) if i == 59 else None
            expected.append((codes, dropped))
            data += frames.put(codes, dropped)
        for codes, dropped in expected:
            assert frames.get(b"") is None
            found = frames.get(data)
            assert all(map(torch.equal, found[0], codes)) and found[1] == dropped
            assert all(frames.get(data[:size]) is None for size in range(found[2]))
            data = data[found[2] :]
        assert data == b""


def frames_of(encoder, x):
    """The header, and each frame by itself."""
    parts = [encoder.push(x[:, :0])]
    parts += [encoder.push(x[:, i : i + 320]) for i in range(0, x.shape[1], 320)]
    return [*parts, encoder.finish()]


def test_lost_frames_are_concealed(make):
    codec, x = make(), sound(1, 64_000)
    head, *frames = frames_of(codec.stream_encoder(), x)
    assert len(frames) == 201
    decoder = codec.stream_decoder()
    parts = [decoder.push(head)]
    parts += [decoder.push(None if 40 <= i < 43 else frame) for i, frame in enumerate(frames)]
    parts.append(decoder.finish())
    y = torch.cat(parts, 1)
    whole = samples_of(codec.stream_decoder(), b"".join([head, *frames]))
    assert y.shape == whole.shape
    at = 40 * 320 - 160
    assert torch.equal(y[:, :at], whole[:, :at])
    reach = codec.networks.memory * 320
    assert torch.equal(y[:, at + 3 * 320 + reach :], whole[:, at + 3 * 320 + reach :])
    lost = y[:, at : at + 3 * 320].square().mean()
    assert lost > 0.05 * whole[:, at : at + 3 * 320].square().mean()


def test_a_long_loss_dies_away(make):
    codec, x = make(), sound(1, 32_000)
    head, *frames = frames_of(codec.stream_encoder(), x)
    decoder = codec.stream_decoder()
    decoder.push(b"".join([head, *frames[:30]]))
    lost = torch.cat([decoder.push(None) for _ in range(40)], 1)
    assert lost.shape == (1, 40 * 320)
    loudness = lost[0].view(8, -1).square().mean(1)
    assert loudness[0] > loudness[1] > 0 and not loudness[3:].any()


def test_a_lost_last_frame(make):
    codec, x = make(), sound(1, 8_000)
    head, *frames = frames_of(codec.stream_encoder(), x)
    decoder = codec.stream_decoder()
    y = samples_of(decoder, b"".join([head, *frames[:-1]]))
    assert y.shape == (1, 8_000 - 160) and not decoder.ended


def test_streams_used_wrongly(make):
    codec, x = make(), sound(1, 1_000)
    encoder = codec.stream_encoder()
    with pytest.raises(ValueError, match="got 2 channels, the stream has 1"):
        encoder.push(sound(2, 10))
    with pytest.raises(ValueError, match="NaN"):
        encoder.push(x * float("nan"))
    data = stream_of(encoder, x)
    for action in (lambda: encoder.push(x), encoder.finish):
        with pytest.raises(RuntimeError, match="finished"):
            action()
    decoder = codec.stream_decoder()
    with pytest.raises(RuntimeError, match="not begun"):
        decoder.push(None)
    assert decoder.finish().shape == (1, 0)
    with pytest.raises(BitstreamError, match="bytes follow the last frame"):
        decoder.push(data + b"a")
    other = rvq_stream.StreamHeader(bytes(8), 16_000, False, (1,)).put()
    with pytest.raises(ValueError, match="coded with weights"):
        codec.stream_decoder().push(other)
    many = rvq_stream.StreamHeader(codec.networks.digest, 16_000, False, (7,)).put()
    with pytest.raises(BitstreamError, match="its weights have 6"):
        codec.stream_decoder().push(many)


def test_damaged_headers_of_streams(make):
    codec = make()
    head = codec.stream_encoder(2).push(sound(2, 0))
    for i in range(8 * len(head)):
        damaged = bytearray(head)
        damaged[i // 8] ^= 1 << i % 8
        with pytest.raises(BitstreamError):
            codec.stream_decoder().push(bytes(damaged) + bytes(300))
    for size in range(len(head)):
        assert codec.stream_decoder().push(head[:size]).shape == (1, 0)


def test_any_bytes_of_frames_decode(make):
    codec = make()
    head = codec.stream_encoder(kbps=1.1).push(sound(1, 0))
    generator = random.Random(0)
    for _ in range(20):
        decoder = codec.stream_decoder()
        try:
            y = decoder.push(head + generator.randbytes(60))
        except BitstreamError:
            continue
        assert bool(y.isfinite().all())


def going_on(make, **options):
    return make(packet_seconds=0.5, keep_going=True, **options)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("lost", [[0], [2], [3, 4]])
def test_missing_packets_are_concealed(make, lost, sample_rate):
    codec, x = going_on(make, sample_rate=sample_rate), sound(2, 4 * sample_rate, sample_rate)
    packets = list(codec.encode(x))
    whole = decode(codec, x, packets)
    with pytest.warns(DamageWarning, match=f"packet {lost[0]} is missing"):
        y = decode(codec, x, [p for p in packets if p.key not in lost])
    assert y.shape == x.shape
    before = max(0, lost[0] * sample_rate // 2 - sample_rate // 50)
    assert torch.equal(y[:, :before], whole[:, :before])
    after = (lost[-1] + 1) * sample_rate // 2 + sample_rate // 2
    assert torch.equal(y[:, after:], whole[:, after:])


def test_damaged_packets_are_concealed_or_refused(make):
    codec, x = going_on(make), sound(2, 20_000)
    packets = list(codec.encode(x))
    generator = random.Random(0)
    noticed = 0
    for _ in range(30):
        number = generator.randrange(len(packets))
        body = bytearray(packets[number].body)
        for _ in range(generator.randint(1, 3)):
            body[generator.randrange(min(len(body), generator.choice((6, 1_000))))] ^= (
                1 << generator.randrange(8)
            )
        body = bytes(body[: generator.choice((len(body), len(body) // 2))])
        damaged = [*packets[:number], Packet(number, body), *packets[number + 1 :]]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y = decode(codec, x, damaged)
        assert bool(y.isfinite().all())
        noticed += bool(caught)
        if caught:
            with pytest.raises(BitstreamError):
                decode(make(packet_seconds=0.5), x, damaged)
    assert noticed > 10


def test_files_with_damage(make):
    codec, x = going_on(make), sound(1, 40_000)
    data = bytearray(file_of(codec, x))
    whole = codec.decode(Reader(data).params, Reader(data).packets())
    at = data.index(list(codec.encode(x))[2].body) + 20
    data[at] ^= 8
    with pytest.raises(BitstreamError):
        make().decode(Reader(data).params, Reader(data).packets())
    with pytest.warns(DamageWarning, match="packet 2 is missing"):
        y = codec.decode_range(Reader(data).params, Reader(data).read, 0, 40_000)
    assert y.shape == x.shape and torch.equal(y[:, 32_000:], whole[:, 32_000:])
    with pytest.raises(BitstreamError):
        make().decode_range(Reader(data).params, Reader(data).read, 20_000, 30_000)
    with pytest.warns(DamageWarning):
        y = codec.decode(Reader(data).params, Reader(data).packets())
    assert y.shape[1] == 16_000
