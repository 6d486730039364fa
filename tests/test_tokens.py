import io
import math
import warnings

import pytest
import torch

from latentpack.codecs import weight_files
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.image import tokens_pictures
from latentpack.codecs.image.tokens import Tokens
from latentpack.codecs.image.tokens_frozen import frozen_state, load_frozen, thaw
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.pictures import decode_picture, encode_picture

LEVELS = 3  # of the weights in these tests


@pytest.fixture(scope="module")
def path(tmp_path_factory, write_tokens_weights):
    return write_tokens_weights(tmp_path_factory.mktemp("w") / "w.lpkw")


@pytest.fixture(scope="module")
def codec(path):
    return Tokens(path)


def picture(channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, height // 16 + 2, width // 16 + 2, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (x.clamp(0, 1) * 255).to(torch.uint8)


def decode_tokens_of(codec, x):
    codes = codec.encode_tokens(x[None].expand(-1, 3, -1, -1))
    return codes, codec.decode_tokens(codes, x.shape[1:])[0]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 33), (64, 96)])
def test_round_trip(codec, channels, size):
    x = picture(channels, *size)
    decoded = codec.decode(codec.header(x), codec.encode(x))
    assert decoded.shape == x.shape and decoded.dtype == torch.uint8
    if channels in (2, 4):
        assert torch.equal(decoded[-1], x[-1])
    if channels == 3:
        _, expected = decode_tokens_of(codec, x)
        assert torch.equal(decoded, (255 * expected).round().to(torch.uint8))


def test_codes_in_a_file_are_those_of_the_process(codec):
    x = picture(3, 70, 130)
    codes, _ = decode_tokens_of(codec, x)
    parsed = codec.parse(codec.header(x), codec.encode(x))
    assert torch.equal(parsed[0], codes[0][0, 0])
    assert all(torch.equal(parsed[1 + i], codes[1][0, i]) for i in range(LEVELS - 1))


def test_tokens_of_a_batch(codec):
    batch = torch.stack([picture(3, 50, 40, seed) for seed in range(3)])
    coarse, fine = codec.encode_tokens(batch)
    assert coarse.shape == (3, 1, 2, 2) and fine.shape == (3, 2, 4, 4)
    assert coarse.max() < codec.codebook_sizes[0] and fine.max() < codec.codebook_sizes[1]
    for i in range(3):
        alone = codec.encode_tokens(batch[i : i + 1])
        assert torch.equal(alone[0][0], coarse[i]) and torch.equal(alone[1][0], fine[i])
    same = codec.encode_tokens(batch.float() / 255)
    assert torch.equal(same[0], coarse) and torch.equal(same[1], fine)
    x_hat = codec.decode_tokens((coarse, fine))
    assert x_hat.shape == (3, 3, 64, 64) and 0 <= x_hat.min() <= x_hat.max() <= 1


def test_tokens_of_fewer_levels(codec):
    x = picture(3, 64, 64)
    coarse, fine = codec.encode_tokens(x[None])
    for depth in range(1, LEVELS + 1):
        expected = codec.decode_tokens((coarse, fine[:, : depth - 1]))[0]
        packets = Tokens(codec.path, levels=depth).encode(x)
        decoded = codec.decode(codec.header(x), packets)
        assert torch.equal(decoded, (255 * expected).round().to(torch.uint8))


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8).int()]
)
def test_what_is_no_batch_of_pictures(codec, x):
    with pytest.raises(ValueError, match="x is"):
        codec.encode_tokens(x)


def test_wrong_codes_are_refused(codec):
    coarse, fine = codec.encode_tokens(picture(3, 64, 64)[None])
    for wrong in ((coarse, fine[:, :, :2]), (coarse + 10**6, fine), (coarse, fine - 100)):
        with pytest.raises(ValueError):
            codec.decode_tokens(wrong)
    with pytest.raises(ValueError, match="codes are"):
        codec.decode_tokens((coarse, torch.cat((fine, fine), 1)))


def test_tiles_have_no_seams(codec, monkeypatch):
    x = picture(3, 600, 500)
    whole_codes = codec.encode_tokens(x[None])
    whole = codec.decode_tokens(whole_codes)
    monkeypatch.setattr(tokens_pictures, "TILE", 256)
    packets = list(codec.encode(x))
    assert len(packets) == 6 * LEVELS
    parsed = codec.parse(codec.header(x), packets)
    same = [(a == b).float().mean() for a, b in zip(parsed[1:], whole_codes[1][0], strict=True)]
    assert (parsed[0] == whole_codes[0][0, 0]).float().mean() > 0.99 and min(same) > 0.99
    tiled = codec.decode_tokens(whole_codes)
    assert (tiled - whole).abs().max() < 1e-4


def file_of(codec, x, **rate):
    return encode_picture(codec, x, Rate(**rate) if rate else None)


def levels_in(data):
    return len(Reader(data).keys())


def test_rates_choose_levels(codec):
    x = picture(3, 200, 180, seed=3)
    files = [file_of(Tokens(codec.path, levels=n), x) for n in range(1, LEVELS + 1)]
    sizes = [len(file) for file in files]
    assert sizes[0] < sizes[1] < sizes[2]
    assert levels_in(file_of(codec, x)) == LEVELS
    for n, size in enumerate(sizes, 1):
        bpp = size * 8 / (200 * 180)
        assert levels_in(file_of(codec, x, bpp=bpp)) == n
        assert levels_in(file_of(codec, x, ratio=x.numel() / size)) == n
        fitting = file_of(codec, x, max_bytes=size + 30)
        assert len(fitting) <= size + 30 and levels_in(fitting) == n
    assert [levels_in(file_of(codec, x, quality=q)) for q in (0, 30, 50, 100)] == [1, 1, 2, 3]
    with pytest.raises(ValueError, match="smallest file of this picture takes up to"):
        file_of(codec, x, max_bytes=sizes[0] - 1)


def test_psnr_chooses_the_nearest(codec):
    x = picture(3, 96, 96)
    reached = []
    for n in range(1, LEVELS + 1):
        decoded = codec.decode(codec.header(x), Tokens(codec.path, levels=n).encode(x))
        reached.append(10 * math.log10(255**2 / (decoded.float() - x).square().mean()))
    target = min(reached), max(reached)
    for value in target:
        data = file_of(codec, x, psnr=value)
        assert abs(reached[levels_in(data) - 1] - value) < 1e-3


@pytest.mark.parametrize("rate", [Rate(kbps=3), Rate(quality=101)])
def test_rates_it_does_not_take(codec, rate):
    with pytest.raises(ValueError, match="quality"):
        codec.encode(picture(3, 16, 16), rate)


def test_levels_must_be_positive():
    with pytest.raises(ValueError, match="levels is 0"):
        Tokens(levels=0)


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 8, 8), torch.zeros(5, 8, 8, dtype=torch.uint8), torch.zeros(3, 0, 8)]
)
def test_signals_it_does_not_take(codec, x):
    with pytest.raises(ValueError, match="takes a picture"):
        codec.encode(x)


def test_a_cut_file_decodes_to_the_levels_that_are_whole(codec, monkeypatch):
    monkeypatch.setattr(tokens_pictures, "TILE", 64)
    x = picture(4, 100, 90)
    data = file_of(codec, x)
    expected = {
        n: codec.decode(codec.header(x), Tokens(codec.path, levels=n).encode(x))
        for n in range(1, LEVELS + 1)
    }
    careful, forgiving = Tokens(codec.path), Tokens(codec.path, keep_going=True)
    seen = set()
    for end in range(60, len(data), 29):
        with pytest.raises(BitstreamError):
            decode_picture(data[:end], careful)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                decoded, _ = decode_picture(io.BytesIO(data[:end]), forgiving)
        except BitstreamError:
            continue
        whole = int(str(caught[0].message).split("; ")[1].split()[0])
        assert torch.equal(decoded, expected[whole])
        seen.add(whole)
    assert seen == {1, 2, 3}


def test_decoding_fewer_levels_than_there_are(codec):
    x = picture(3, 64, 64)
    data = file_of(codec, x)
    few, _ = decode_picture(data, Tokens(codec.path, levels=1))
    expected, _ = decode_picture(file_of(Tokens(codec.path, levels=1), x), codec)
    assert torch.equal(few, expected)


def test_damaged_packets(codec):
    """Cut or flipped all over: an error of the bitstream, or a picture."""
    x = picture(4, 64, 32)
    header, packets = codec.header(x), list(codec.encode(x))
    for number, packet in enumerate(packets):
        for i in range(0, len(packet.body), max(1, len(packet.body) // 25)):
            flipped = bytearray(packet.body)
            flipped[i] ^= 1 << i % 8
            for body in (packet.body[:i], bytes(flipped), packet.body + b"\0\0"):
                given = [*packets[:number], Packet(number, body), *packets[number + 1 :]]
                try:
                    assert codec.decode(header, given).shape == x.shape
                except BitstreamError:
                    pass


@pytest.mark.parametrize("size", [None, [0, 1, 3], [1, 1, 5], [1, 1], ["1", 1, 3], [1 << 40, 1, 3]])
def test_illegal_headers(codec, size):
    with pytest.raises(BitstreamError):
        codec.decode({"s": size, "w": codec.model.digest}, [])


def test_a_small_file_of_a_huge_picture(codec):
    x = picture(3, 16, 16)
    packets = list(codec.encode(x))
    with pytest.raises(BitstreamError):
        codec.decode({"s": [1 << 24, 1 << 24, 3], "w": codec.model.digest}, packets)


def test_packets_in_wrong_order(codec):
    x = picture(3, 40, 40)
    first, *rest = codec.encode(x)
    for packets in ([], rest, [first, first], [Packet("a", first.body)], [first, rest[1]]):
        with pytest.raises(BitstreamError):
            codec.decode(codec.header(x), packets)
    with pytest.raises(BitstreamError, match="of no level"):
        codec.decode(codec.header(x), [first, *rest, Packet(LEVELS, rest[0].body)])


def test_other_weights_are_refused(codec, tmp_path, write_tokens_weights):
    x = picture(3, 32, 32)
    other = Tokens(write_tokens_weights(tmp_path / "other.lpkw", seed=9))
    with pytest.raises(ValueError, match="was made with weights"):
        other.decode(codec.header(x), codec.encode(x))


def test_files_that_hold_no_such_weights(tmp_path, path):
    (tmp_path / "w").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a weights file"):
        list(Tokens(tmp_path / "w").encode(picture(3, 8, 8)))
    good = weight_files.read(path, "image/tokens")
    for config in ({}, {**good.config, "wide": 25}, {**good.config, "blocks": -1}):
        wrong = weight_files.Weights("image/tokens", good.tensors, config, {}, b"")
        with pytest.raises(ValueError, match="not those of image/tokens"):
            load_frozen(wrong)
    assert load_frozen(good).digest == good.digest


def test_thawed_weights_freeze_to_the_same(codec, path):
    good = weight_files.read(path, "image/tokens")
    tensors, config = frozen_state(*thaw(codec.model))
    assert config == good.config and tensors.keys() == good.tensors.keys()
    for name, value in tensors.items():
        if value.dtype in (torch.float32, torch.float16):
            assert torch.allclose(value.float(), good.tensors[name].float(), rtol=1e-5), name
        else:
            assert torch.equal(value, good.tensors[name]), name
