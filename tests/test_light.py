import math

import pytest
import torch

from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.image import light
from latentpack.codecs.image.light import Light
from latentpack.kernels.errors import BitstreamError


@pytest.fixture(scope="module")
def codec(tmp_path_factory, write_light_weights):
    return Light(write_light_weights(tmp_path_factory.mktemp("w") / "w.safetensors"))


def picture(channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, height // 16 + 2, width // 16 + 2, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (x.clamp(0, 1) * 255).to(torch.uint8)


def round_trip(codec, x, **rate):
    packets = list(codec.encode(x, Rate(**rate)))
    return codec.decode(codec.header(x), packets), packets


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 33), (64, 64)])
def test_round_trip(codec, channels, size):
    x = picture(channels, *size)
    decoded, _ = round_trip(codec, x, quality=90)
    assert decoded.shape == x.shape and decoded.dtype == torch.uint8
    if channels in (2, 4):
        assert torch.equal(decoded[-1], x[-1])


def test_non_contiguous_input(codec):
    x = picture(3, 48, 40)
    a, _ = round_trip(codec, x, quality=50)
    b, _ = round_trip(codec, x.permute(1, 2, 0).contiguous().permute(2, 0, 1), quality=50)
    assert torch.equal(a, b)


def test_tiles_have_no_seams(codec, monkeypatch):
    """What the tiles synthesise is what one transform of the whole field gives."""
    monkeypatch.setattr(light, "TILE", 192)
    x = picture(3, 400, 450)
    decoded, packets = round_trip(codec, x, quality=70)
    assert len(packets) == 9
    grid = light.Grid(450, 400, 192)
    tiles = [light._decode_tile(codec.model, grid.box(n), p.body, 3) for n, p in enumerate(packets)]
    rows = [torch.cat([t.y_hat for t in tiles[r * 3 : r * 3 + 3]], 3) for r in range(3)]
    with torch.inference_mode():
        whole = codec.model.g_s(torch.cat(rows, 2), torch.tensor([packets_position(packets) / 64]))
    expected = ((whole[0, :, :400, :450] + 0.5) * 255).clamp(0, 255).round()
    assert (decoded.float() - expected).abs().max() <= 1


def packets_position(packets):
    return int.from_bytes(packets[0].body[:2], "little")


def test_analysis_of_tiles_is_that_of_the_whole(codec, monkeypatch):
    x = picture(3, 384, 416)
    with torch.inference_mode():
        whole = codec.analyse(x, (0, 0, 384, 416), 200)
        part = codec.analyse(x, (192, 192, 192, 224), 200)
    assert (part - whole[:, :, 12:, 12:]).abs().max() < 1e-3


def measures(x, decoded, packets):
    size = len(packets[0].body)
    mse = (decoded.float() - x.float()).square().mean()
    return {
        "bpp": size * 8 / x[0].numel(),
        "ratio": x.numel() / size,
        "psnr": 10 * math.log10(255**2 / mse),
    }


@pytest.mark.parametrize("name", ["bpp", "ratio", "psnr"])
def test_targets(codec, name):
    x = picture(3, 128, 128, seed=3)
    low, high = (measures(x, *round_trip(codec, x, quality=q))[name] for q in (10, 90))
    target = (low + high) / 2
    reached = measures(x, *round_trip(codec, x, **{name: target}))[name]
    assert reached == pytest.approx(target, rel=0.03)


def test_max_bytes_is_kept_or_refused(codec):
    x = picture(3, 128, 128)
    limit = len(round_trip(codec, x, quality=50)[1][0].body) + 1
    _, packets = round_trip(codec, x, max_bytes=limit)
    assert 0.9 * limit < len(packets[0].body) <= limit
    with pytest.raises(ValueError, match="smallest file of this picture takes"):
        codec.encode(x, Rate(max_bytes=5))


@pytest.mark.parametrize("rate", [Rate(kbps=3), Rate(quality=101)])
def test_rates_it_does_not_take(codec, rate):
    with pytest.raises(ValueError, match="quality"):
        codec.encode(picture(3, 16, 16), rate)


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 8, 8), torch.zeros(5, 8, 8, dtype=torch.uint8), torch.zeros(3, 0, 8)]
)
def test_signals_it_does_not_take(codec, x):
    with pytest.raises(ValueError, match="takes a picture"):
        codec.encode(x)


def test_nan_in_the_latents_is_said(codec, monkeypatch):
    monkeypatch.setattr(codec, "analyse", lambda *_: torch.full((1, 256, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        list(codec.encode(picture(3, 64, 64)))


def test_other_weights_are_refused(codec, tmp_path, write_light_weights):
    x = picture(3, 32, 32)
    packets = list(codec.encode(x))
    other = Light(write_light_weights(tmp_path / "other.safetensors", seed=9))
    with pytest.raises(ValueError, match="was made with weights"):
        other.decode(codec.header(x), packets)


def test_a_file_that_holds_no_weights(tmp_path):
    (tmp_path / "w").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a weights file"):
        list(Light(tmp_path / "w").encode(picture(3, 8, 8)))


def test_damaged_tiles(codec):
    """Cut or flipped all over: an error of the bitstream, or a picture."""
    x = picture(4, 32, 32)
    header, (packet,) = codec.header(x), codec.encode(x, Rate(quality=20))
    for i in sorted({*range(12), *range(12, len(packet.body), len(packet.body) // 60)}):
        flipped = bytearray(packet.body)
        flipped[i] ^= 1 << i % 8
        for body in (packet.body[:i], bytes(flipped)):
            try:
                assert codec.decode(header, [Packet(None, body)]).shape == x.shape
            except BitstreamError:
                pass


@pytest.mark.parametrize("size", [None, [0, 1, 3], [1, 1, 5], [1, 1], ["1", 1, 3], [1 << 40, 1, 3]])
def test_illegal_headers(codec, size):
    with pytest.raises(BitstreamError):
        codec.decode({"s": size, "w": codec.model.digest}, [])


def test_tiles_in_wrong_order(codec):
    x = picture(3, 16, 16)
    (packet,) = codec.encode(x)
    for packets in ([], [Packet(1, packet.body)], [packet, packet], [Packet("a", packet.body)]):
        with pytest.raises(BitstreamError):
            codec.decode(codec.header(x), packets)
