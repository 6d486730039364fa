import math
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.image import fit, fit_encoder, fit_stream
from latentpack.codecs.image.fit import Fit
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.pictures import decode_picture, encode_picture

GOLDEN = Path(__file__).parent / "golden" / "image_fit"


@pytest.fixture(scope="module")
def path(tmp_path_factory, write_fit_prior):
    return write_fit_prior(tmp_path_factory.mktemp("prior") / "prior.lpkw").path


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(fit_encoder, "STEPS", (12,) * 10)


def codec(path, **options):
    return Fit(preset="fast", weights=path, threads=1, **options)


def picture(channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, height // 16 + 2, width // 16 + 2, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (x.clamp(0, 1) * 255).to(torch.uint8)


def round_trip(path, x, rate, **options):
    packets = list(codec(path, **options).encode(x, rate))
    return codec(path).decode(codec(path).header(x), packets), packets


def psnr(x, y):
    return 10 * math.log10(255**2 / (x.float() - y.float()).square().mean().item())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 33)])
def test_round_trip(path, channels, size):
    x = picture(channels, *size)
    decoded, (packet,) = round_trip(path, x, Rate(quality=90))
    assert decoded.shape == x.shape and decoded.dtype == torch.uint8 and packet.key is None
    if channels in (2, 4):
        assert torch.equal(decoded[-1], x[-1])


def test_fitting_helps(path, monkeypatch):
    monkeypatch.setattr(fit_encoder, "STEPS", (250,) * 10)
    x = picture(3, 64, 64, seed=3)
    decoded, (packet,) = round_trip(path, x, Rate(quality=80))
    mean = x.float().mean((1, 2), True).expand(x.shape)
    assert psnr(x, decoded) > psnr(x, mean) + 9
    assert len(packet.body) < x.numel() / 6


def test_tiles(path, monkeypatch):
    monkeypatch.setattr(fit, "TILE", 32)
    x = picture(4, 40, 70)
    decoded, packets = round_trip(path, x, Rate(quality=60))
    assert [p.key for p in packets] == list(range(6))
    assert decoded.shape == x.shape and torch.equal(decoded[-1], x[-1])
    header = codec(path).header(x)
    (alone,) = codec(path).encode(x[:, 32:, 64:], Rate(quality=60))
    assert alone.body == packets[5].body  # tiles know nothing of each other
    for wrong in (packets[:5], packets[1:], [*packets, packets[0]], packets[::-1]):
        with pytest.raises(BitstreamError):
            codec(path).decode(header, wrong)


def test_whole_files_and_what_they_say(path):
    x = picture(3, 40, 30)
    data = encode_picture(codec(path), x, Rate(quality=50))
    decoded, _ = decode_picture(data, codec(path))
    assert decoded.shape == x.shape
    reader = Reader(data)
    (packet,) = reader.packets()
    about = codec(path).describe(reader.params, packet)
    assert about["preset"] == "fast" and about["lmbda"] == pytest.approx(0.005, rel=0.03)
    assert about["network_bytes"] + about["latent_bytes"] + 3 == len(packet.body)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_size_of_a_file_is_never_exceeded(path, channels, monkeypatch):
    x = picture(channels, 24, 24, seed=2)
    free = len(encode_picture(codec(path), x, Rate(quality=50)))
    data = encode_picture(codec(path), x, Rate(max_bytes=free))
    assert 0.5 * free < len(data) <= free
    monkeypatch.setattr(fit_encoder, "optimise", noise)
    with pytest.raises(ValueError, match="smallest file of this picture takes"):
        codec(path).encode(x, Rate(max_bytes=60))


def noise(x, preset, lmbda, mean, **_):
    """In the place of a fit: latents of a size that grows with lmbda, and the prior's networks."""
    generator = torch.Generator().manual_seed(0)
    grids = [
        (torch.randn(shape, generator=generator) * 40 * lmbda**0.5).round().to(torch.int16)
        for shape in fit_encoder.networks.grid_shapes(*x.shape[1:])
    ]
    return fit_encoder.Fitted(grids, mean, torch.zeros(0), 0.0, 0.0)


@pytest.mark.parametrize("name", ["bpp", "ratio", "max_bytes"])
def test_targets(path, name, monkeypatch):
    monkeypatch.setattr(fit_encoder, "optimise", noise)
    x = picture(3, 48, 48, seed=4)
    target = {"bpp": 4.0, "ratio": 6.0, "max_bytes": 1152}[name]
    data = encode_picture(codec(path), x, Rate(**{name: target}))
    assert len(data) == pytest.approx(1152, rel=0.03)
    assert name != "max_bytes" or len(data) <= 1152


def test_psnr_is_measured_on_what_is_decoded(path, monkeypatch):
    monkeypatch.setattr(fit_encoder, "optimise", noise)
    seen = []

    def search(run, measure, goal, first):
        result = run(first, None)
        seen.append(measure(result))
        return result, result

    monkeypatch.setattr(fit.fit_search, "search", search)
    x = picture(4, 20, 30)
    packets = list(codec(path).encode(x, Rate(psnr=30)))
    decoded = codec(path).decode(codec(path).header(x), packets)
    assert seen[0] == pytest.approx(psnr(x[:3], decoded[:3]))


def test_progress_and_time(path):
    said = []
    x = picture(3, 32, 32)
    options = {"progress": lambda *now: said.append(now), "time_budget": 0.2}
    list(codec(path, **options).encode(x))
    step, total, bpp, db = said[-1]
    assert step == total > 0 and bpp > 0 and 0 < db < 60


def test_checkpoints_of_tiles_have_names_of_their_own(path, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_encoder, "CHECKPOINT_SECONDS", 0.0)
    kept = tmp_path / "state"
    list(codec(path, resume=kept).encode(picture(1, 20, 20)))
    assert kept.exists()
    monkeypatch.setattr(fit, "TILE", 32)
    list(codec(path, resume=kept).encode(picture(1, 20, 40)))
    assert {p.name for p in tmp_path.iterdir()} == {"state", "state.0", "state.1"}


@pytest.mark.parametrize(
    "options", [{"preset": "huge"}, {"effort": 10}, {"effort": -1}, {"time_budget": 0}]
)
def test_options_it_does_not_take(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Fit(**options)


@pytest.mark.parametrize("rate", [Rate(kbps=3), Rate(quality=101)])
def test_rates_it_does_not_take(path, rate):
    with pytest.raises(ValueError, match="quality"):
        codec(path).encode(picture(3, 16, 16), rate)


def test_signals_it_does_not_take(path):
    with pytest.raises(ValueError, match="image/fit takes a picture"):
        codec(path).encode(torch.zeros(3, 8, 8))


def test_other_priors_are_refused_and_the_shipped_one_is_found(path):
    x = picture(3, 8, 8)
    packets = list(codec(path).encode(x))
    with pytest.raises(ValueError, match="was made with weights"):
        Fit().decode(codec(path).header(x), packets)
    shipped = list(Fit(preset="fast").encode(x))
    assert codec(path).decode(Fit().header(x), shipped).shape == x.shape


def test_damaged_tiles(path):
    """Cut or flipped all over: an error of the bitstream, or a picture."""
    x = picture(4, 32, 32)
    one = codec(path)
    header, (packet,) = one.header(x), one.encode(x, Rate(quality=20))
    length = len(packet.body)
    for i in sorted({*range(40), *range(40, length, length // 60)}):
        flipped = bytearray(packet.body)
        flipped[i] ^= 1 << i % 8
        for body in (packet.body[:i], bytes(flipped)):
            try:
                assert one.decode(header, [Packet(None, body)]).shape == x.shape
            except BitstreamError:
                pass


def test_heads_of_tiles(path):
    one, x = codec(path), picture(3, 8, 8)
    (packet,) = one.encode(x)
    bodies = [b"", packet.body[:2]]  # then rate 63, a preset that the prior lacks, an eighth grid
    bodies += [head + packet.body[2:] for head in (b"\xfc\x7f", b"\x01\x7f", b"\x00\x80")]
    for body in bodies:
        with pytest.raises(BitstreamError):
            one.decode(one.header(x), [Packet(None, body)])


@pytest.mark.parametrize("size", [None, [0, 1, 3], [1, 1, 5], [1, 1], ["1", 1, 3], [1 << 40, 1, 3]])
def test_illegal_headers(path, size):
    with pytest.raises(BitstreamError):
        codec(path).decode({"s": size, "w": bytes(8)}, [])
    with pytest.raises(BitstreamError):
        codec(path).decode({"s": [1, 1, 3], "w": 7}, [])


def test_positions_of_lmbda():
    for lmbda in (2.0**-15, 0.0005, 0.005, 0.05, 0.9):
        again = fit_stream.lmbda_of(fit_stream.position_of(lmbda))
        assert again == pytest.approx(lmbda, rel=0.023)
    assert fit_stream.position_of(1e-9) == 0 and fit_stream.position_of(100) == 255


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.lpk")), ids=lambda p: p.stem)
def test_golden_files_decode_to_the_same_pixels(file):
    decoded, _ = decode_picture(file.read_bytes(), Fit(weights=GOLDEN / "prior.lpkw"))
    expected = np.frombuffer(file.with_suffix(".bin").read_bytes(), np.uint8)
    assert np.array_equal(decoded.numpy().ravel(), expected)


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 4
