"""audio/rvq: files of sounds of every kind, rates, parts, and what is not a sound."""

import io
import math

import pytest
import torch

import latentpack
from latentpack.codecs import registry, weight_files
from latentpack.codecs.audio import rvq_search
from latentpack.codecs.audio.rvq import Rvq
from latentpack.codecs.audio.rvq_search import Searcher, trace, vectors
from latentpack.codecs.audio.rvq_timing import Timing
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader, Writer, empty_size
from latentpack.kernels.errors import BitstreamError

RATES = (8_000, 16_000, 44_100)


def sound(channels, count, sample_rate=16_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(count) / sample_rate
    tones = [
        torch.sin(2 * math.pi * (220 + 170 * c) * t) * (1 + torch.sin(9 * t)) for c in range(8)
    ]
    noise = torch.randn(channels, count, generator=generator)
    return 0.2 * torch.stack(tones[:channels]) + 0.02 * noise


@pytest.fixture(scope="module")
def make(rvq_weights):
    return lambda *args, **options: Rvq(*args, **{"weights": rvq_weights, **options})


def file_of(codec, x, rate=None):
    number, header = registry.codec_id(codec.name), codec.header(x)
    file = io.BytesIO()
    reserve = empty_size(number, header, None)
    with Writer(file, number, header) as writer:
        for packet in codec.encode(x, rate, reserve):
            writer.write(packet)
    return file.getvalue()


def decode(codec, x, packets):
    return codec.decode(codec.header(x), packets)


@pytest.mark.parametrize("sample_rate", [*RATES, 96_000, 11_127])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_length_comes_back(make, channels, sample_rate):
    codec = make(sample_rate, packet_seconds=0.3)
    frame = 0.02 * sample_rate
    lengths = (0, 1, int(frame / 2), int(frame / 2) + 1, int(frame), int(15 * frame), 9_999)
    for count in lengths:
        x = sound(channels, count, sample_rate)
        y = decode(codec, x, codec.encode(x))
        assert y.shape == x.shape and y.dtype == torch.float32 and bool(y.isfinite().all())


def test_every_length_around_a_packet(make):
    for sample_rate in (16_000, 44_100):
        codec = make(sample_rate, packet_seconds=0.04)
        timing = Timing(sample_rate, codec.networks.size, 2)
        end = timing.start(3)
        step = 1 if sample_rate == 16_000 else 7
        for count in range(end - 170 * step, end + 170 * step, 17 * step):
            x = sound(1, count, sample_rate)
            packets = list(codec.encode(x))
            assert decode(codec, x, packets).shape == x.shape
            stated = [codec.describe(codec.header(x), p)["samples"] for p in packets]
            assert sum(stated) == count


def test_through_the_api(rvq_weights):
    x = sound(2, 30_000)
    for options in ({}, {"prior": False}, {"n_q": 2}, {"effort": 1}):
        data = latentpack.encode(x, codec="audio/rvq", weights=rvq_weights, **options)
        y = latentpack.decode(data, weights=rvq_weights)
        assert y.shape == x.shape
    assert latentpack.decode(data, out=torch.empty(2, 30_000), weights=rvq_weights).shape == x.shape


def test_kinds_of_samples_mean_the_same(make):
    codec = make()
    x = (sound(1, 5_000) * 2**15).round().to(torch.int16)
    expected = decode(codec, x, codec.encode(x))
    for same in (x.float() / 2**15, x.double() / 2**15, x.int() * 2**16):
        assert torch.equal(decode(codec, same, codec.encode(same)), expected)


@pytest.mark.parametrize(
    "x, problem",
    [
        (torch.zeros(100), "channels, samples"),
        (torch.zeros(0, 100), "1 to 64"),
        (torch.zeros(65, 100), "1 to 64"),
        (torch.zeros(1, 100, dtype=torch.uint8), "floats, int16 or int32"),
        (torch.full((1, 100), math.nan), "NaN"),
        (torch.full((1, 100), math.inf), "infinity"),
    ],
)
def test_what_is_no_sound(make, x, problem):
    with pytest.raises(ValueError, match=problem):
        file_of(make(), x)


@pytest.mark.parametrize(
    "options",
    [{"sample_rate": 0}, {"n_q": 0}, {"packet_seconds": 0}, {"effort": 0}, {"effort": 99}],
)
def test_what_is_no_option(make, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        make(**options)


def test_clipped_and_loud_sounds(make):
    codec = make()
    for x in (sound(1, 4_000).sign(), 1e6 * sound(1, 4_000), 1e-6 * sound(2, 4_000)):
        assert bool(decode(codec, x, codec.encode(x)).isfinite().all())


def test_silence_costs_next_to_nothing_and_is_silent(make):
    codec = make(packet_seconds=1.0)
    x = sound(2, 80_000)
    x[:, 16_000:64_000] = 0
    packets = list(codec.encode(x))
    assert [len(p.body) < 10 for p in packets[:5]] == [False, True, True, True, False]
    y = decode(codec, x, packets)
    assert not y[:, 16_160:63_840].any() and y[:, 64_000:].any() and y[:, :16_000].any()
    x[1] = 0
    assert len(next(codec.encode(x)).body) < 0.6 * len(packets[0].body)
    assert not decode(codec, x, codec.encode(x))[1].any()


def test_channels_that_are_alike_cost_less(make):
    codec = make(packet_seconds=1.0)
    x = sound(2, 48_000)
    x[1] = x[0] + 0.01 * x[1]
    alike = list(codec.encode(x))
    apart = list(make(packet_seconds=1.0, joint=False).encode(x))
    assert codec.describe(codec.header(x), alike[0])["joint"]
    assert sum(len(p.body) for p in alike) < 0.7 * sum(len(p.body) for p in apart)
    x[1] = 0.03 * sound(2, 48_000, seed=1)[1]  # much weaker and of another kind
    weak = codec.describe(codec.header(x), next(codec.encode(x)))
    assert not weak["joint"] and weak["codebooks"][1] < weak["codebooks"][0]


def test_a_change_from_joint_to_apart_is_smooth(make):
    codec = make(packet_seconds=0.5)
    x = sound(2, 48_000)
    x[1, :24_000] = x[0, :24_000]
    x[1, 24_000:] *= 0.02
    packets = list(codec.encode(x))
    layouts = [codec.describe(codec.header(x), p)["joint"] for p in packets]
    assert layouts[0] and not layouts[-1]
    steps = decode(codec, x, packets).diff(dim=1).abs()
    around = steps[:, 24_000 - 200 : 24_000 + 200].amax()
    assert around < 3 * steps[:, 4_000:20_000].amax()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_files_are_no_larger_than_asked(make, channels, sample_rate):
    codec = make(sample_rate, packet_seconds=1.0, effort=1)
    x = sound(channels, 5 * sample_rate, sample_rate)  # of which the last packet holds no sample
    for kbps in (1.0, 1.5) if channels == 1 else (1.5, 2.3):
        data = file_of(codec, x, Rate(kbps=kbps))
        assert 0.85 * kbps < len(data) * 8 / 5_000 <= kbps
    size = 777 if channels == 1 else 1_111
    assert 0.85 * size < len(file_of(codec, x, Rate(max_bytes=size))) <= size
    ratio = x.numel() * 4 / 1_000
    assert 0.8 * 1_000 < len(file_of(codec, x, Rate(ratio=ratio))) <= 1_000


def test_quality_chooses_codebooks(make):
    codec, x = make(), sound(1, 20_000)
    used = [
        codec.describe(codec.header(x), next(codec.encode(x, Rate(quality=q))))["codebooks"][0]
        for q in (0, 40, 100)
    ]
    assert used == [1, 3, 6]
    errors = [
        float((decode(codec, x, codec.encode(x, Rate(quality=q))) - x).square().mean())
        for q in (0, 100)
    ]
    assert all(map(math.isfinite, errors))


def test_rates_that_cannot_be(make):
    codec, x = make(), sound(1, 20_000)
    with pytest.raises(ValueError, match="takes kbps, quality, ratio or max_bytes, not psnr"):
        codec.encode(x, Rate(psnr=30))
    with pytest.raises(ValueError, match="quality must be 0 to 100"):
        codec.encode(x, Rate(quality=101))
    with pytest.raises(ValueError, match="max_bytes 60 is out of reach"):
        file_of(codec, x, Rate(max_bytes=60))
    with pytest.raises(ValueError, match="max_bytes needs the whole sound"):
        list(codec.encode_blocks([x], Rate(max_bytes=900)))


def test_blocks_are_the_whole(make):
    codec = make(22_050, packet_seconds=0.5)
    x = sound(2, 50_000, 22_050)
    for rate in (None, Rate(kbps=2.5), Rate(quality=50)):
        expected = list(codec.encode_blocks([x], rate, 90))
        assert list(codec.encode_blocks(x.split(777, 1), rate, 90)) == expected
    pieces = list(codec.decode_blocks(codec.header(x), expected))
    assert len(pieces) >= len(expected)
    assert torch.equal(torch.cat(pieces, 1), decode(codec, x, expected))


def test_blocks_go_through_one_by_one(make):
    codec, given, waiting = make(8_000, packet_seconds=0.2), 0, []

    def blocks():
        nonlocal given
        for seed in range(40):
            given += 500
            yield sound(2, 500, 8_000, seed)

    def packets():
        coded = 0
        for packet in codec.encode_blocks(blocks()):
            coded += codec.describe(header, packet)["samples"]
            waiting.append(given - coded)
            yield packet

    header, decoded = codec.header(sound(2, 0)), 0
    for block in codec.decode_blocks(header, packets()):
        decoded += block.shape[1]
        waiting.append(given - decoded)
    assert decoded == 20_000 and max(waiting) < 3_000


def test_weights_that_changed_are_loaded_anew(rvq_weights, tmp_path):
    weights = weight_files.read(rvq_weights, "audio/rvq")
    path = tmp_path / "w.lpkw"
    weight_files.write(path, "audio/rvq", weights.tensors, weights.config)
    before = Rvq(weights=path).networks
    assert Rvq(weights=path).networks is before
    tensors = dict(weights.tensors)
    tensors["decoder.out.bias"] = tensors["decoder.out.bias"] + 1
    weight_files.write(path, "audio/rvq", tensors, weights.config, force=True)
    assert Rvq(weights=path).networks.digest != before.digest


@pytest.mark.parametrize("channels, sample_rate", [(1, 16_000), (2, 44_100), (3, 8_000)])
def test_a_part_is_that_of_the_whole(make, channels, sample_rate):
    codec = make(sample_rate, packet_seconds=0.5)
    count = 3 * sample_rate + 123
    x = sound(channels, count, sample_rate)
    reader = Reader(file_of(codec, x))
    whole = codec.decode(reader.params, reader.packets())
    starts = (1, 2 * sample_rate + 77, count - 5, count, count + 10)
    for start in starts:
        for size in (0, 3_000):
            part = codec.decode_range(reader.params, reader.read, start, start + size)
            assert torch.equal(part, whole[:, start : start + size])
    assert torch.equal(codec.decode_range(reader.params, reader.read, 0, count), whole)
    with pytest.raises(ValueError, match="in order"):
        codec.decode_range(reader.params, reader.read, 5, 4)


def test_a_part_reads_few_packets(make):
    codec = make(packet_seconds=0.5)
    x = sound(1, 160_000)
    packets = list(codec.encode(x))
    asked = []
    codec.decode_range(codec.header(x), lambda n: asked.append(n) or packets[n], 100_000, 101_000)
    assert 1 <= len(asked) <= 3


def test_packets_of_the_middle_alone(make):
    codec, x = make(packet_seconds=0.5), sound(1, 40_000)
    packets = list(codec.encode(x))
    assert decode(codec, x, packets[2:4]).shape == (1, 16_000)


def test_other_weights_are_refused(make):
    codec, x = make(), sound(1, 1_000)
    header = codec.header(x) | {"w": bytes(8)}
    with pytest.raises(ValueError, match="coded with weights 0000000000000000"):
        codec.decode(header, codec.encode(x))


@pytest.mark.parametrize("field", ["r", "c", "g"])
@pytest.mark.parametrize("value", [None, 0, -1, 1.5, True, 2**40])
def test_headers_that_are_none(make, field, value):
    codec, x = make(), sound(1, 1_000)
    with pytest.raises(BitstreamError, match=f"header field {field}"):
        codec.decode(codec.header(x) | {field: value}, codec.encode(x))


def test_search_finds_better_codes_than_greed():
    generator = torch.Generator().manual_seed(0)
    codebooks = [torch.randn(32, 8, generator=generator) / (i + 1) for i in range(5)]
    x = torch.randn(200, 8, generator=generator)
    errors = []
    for beam in (1, 4, 16):
        tree = Searcher(codebooks).find(x, 5, beam)
        for stages in (1, 3, 5):
            found = vectors(codebooks, trace(tree, stages))
            errors.append(float((x.t() - found).square().mean()))
    assert errors[2] > errors[5] > errors[8]  # all five stages
    greedy, rest = [], x
    for codebook in codebooks:
        greedy.append(torch.cdist(rest, codebook).argmin(1))
        rest = rest - codebook[greedy[-1]]
    assert torch.equal(trace(Searcher(codebooks).find(x, 5, 1), 5), torch.stack(greedy))


def test_packets_out_of_order(make):
    codec, x = make(packet_seconds=0.2), sound(1, 10_000)
    packets = list(codec.encode(x))
    for wrong in (packets[::-1], [packets[0], packets[0]], [Packet("a", packets[0].body)]):
        with pytest.raises(BitstreamError, match="out of order"):
            decode(codec, x, wrong)
    with pytest.raises(BitstreamError, match="packet 1 is missing"):
        decode(codec, x, [packets[0], packets[2]])


@pytest.mark.parametrize("width", [7, 64, 1_000, 1_024, 4_096])
def test_smallest_are_the_smallest(width):
    score = torch.randn(20, width, generator=torch.Generator().manual_seed(0))
    for count in (1, 2, 5, 7):
        found = rvq_search._smallest(score, count)
        assert torch.equal(found, score.argsort(1)[:, :count])
