"""`image/light --effort`: what refinement gains, and that nothing else changes."""

import math

import pytest
import torch

from latentpack.codecs.codec import Rate
from latentpack.codecs.image import light, light_refine
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import load_weights
from latentpack.codecs.image.light_model import lmbda_of
from latentpack.datasets.images import read_image
from latentpack.scripts.showcase import SAMPLE


@pytest.fixture(scope="module")
def photo():
    return read_image(SAMPLE)[0][:, 40:168, 60:188].contiguous()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Eight iterations at every effort."""
    monkeypatch.setattr(light, "ITERATIONS", (0, *[8] * 9))


def size_of(packets):
    return sum(len(packet.body) for packet in packets)


def cost(codec, x, quality):
    """R + lmbda * D in bits per pixel, from the bytes and the decoded pixels."""
    packets = list(codec.encode(x, Rate(quality=quality)))
    error = (codec.decode(codec.header(x), packets).float() - x.float()).square().mean().item()
    lmbda = lmbda_of(torch.tensor(quality / 100 * 7)).item()
    return size_of(packets) * 8 / x[0].numel() + lmbda * error


@pytest.mark.parametrize("quality", [20, 75])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_pays(photo, channels, quality):
    x = photo[:channels].contiguous()
    assert cost(Light(effort=5), x, quality) < cost(Light(), x, quality)


def test_it_pays_across_tiles(photo, monkeypatch):
    monkeypatch.setattr(light, "TILE", 64)
    x = photo[:, :64, :128].contiguous()
    assert cost(Light(effort=5), x, 50) < cost(Light(), x, 50)


def test_without_iterations_all_stays(photo):
    """The search returns where it began if nothing better was seen."""
    codec = Light()
    model = codec.model
    box = (0, 0, *photo.shape[1:])
    with torch.inference_mode():
        chosen = light.light_latents.choose(model, codec.analyse(photo, box, 200), 200)
    scene = codec._scene(photo, box, 200)
    same = light_refine.refine(model, scene, *chosen[:2], 0)
    assert all(torch.equal(a, b) for a, b in zip(same, chosen, strict=True))


def test_a_scene_is_what_the_decoder_paints(photo, monkeypatch):
    """Distortion in the search is that of the decoded tile, with its neighbours around it."""
    monkeypatch.setattr(light, "TILE", 64)
    codec = Light()
    x, position = photo[:, :128, :128].contiguous(), 300
    packets = list(codec.encode(x, Rate(quality=position / 4.48)))
    error = (codec.decode(codec.header(x), packets).float() - x.float()).square()
    with torch.no_grad():
        y = codec.analyse(x, (64, 64, 64, 64), position)
        z, q, _ = light.light_latents.choose(codec.model, y, position)
        search = light_refine._Search(
            codec.model, codec._scene(x, (64, 64, 64, 64), position), z, q
        )
        mu = search._means(search._z_hat(), search.q)
        lmbda = lmbda_of(torch.tensor(position / 64)).item()
        expected = lmbda * error[:, 64:, 64:].sum().item() / 3
        assert search._distortion(search.q + mu).item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (33, 20)])
def test_odd_sizes_and_alpha(photo, channels, size):
    x = torch.cat((photo, photo[:1]))[-channels:, : size[0], : size[1]].contiguous()
    codec = Light(effort=1)
    decoded = codec.decode(codec.header(x), list(codec.encode(x, Rate(quality=80))))
    assert decoded.shape == x.shape and torch.equal(decoded[-1], x[-1])


def test_targets_are_met(photo):
    codec = Light(effort=1)
    x = photo[:, :64, :64].contiguous()
    free = [size_of(codec.encode(x, Rate(quality=q))) for q in (30, 60)]
    middle = sum(free) // 2
    assert size_of(codec.encode(x, Rate(max_bytes=middle))) <= middle
    for name, value in (("bpp", middle * 8 / 64**2), ("psnr", 32.0)):
        packets = list(codec.encode(x, Rate(**{name: value})))
        decoded = codec.decode(codec.header(x), packets)
        error = (decoded.float() - x.float()).square().mean().item()
        reached = size_of(packets) * 8 / 64**2 if name == "bpp" else 10 * math.log10(255**2 / error)
        assert reached == pytest.approx(value, rel=0.03)


def test_progress_counts_all_tiles(photo, monkeypatch):
    monkeypatch.setattr(light, "TILE", 64)
    told = []
    codec = Light(effort=2, progress=lambda step, total: told.append((step, total)))
    list(codec.encode(photo[:, :64, :96], Rate(quality=40)))
    assert told == [(i, 16) for i in range(1, 17)]


def test_weights_first_loaded_by_the_decoder(photo, tmp_path, write_light_weights):
    """Decoding runs in inference mode; the weights it loads must still take part in a search."""
    path = write_light_weights(tmp_path / "w.lpkw")
    codec = Light(path)
    packets = list(codec.encode(photo[:, :32, :32], Rate(quality=50)))
    load_weights.cache_clear()
    codec.decode({"s": [32, 32, 3], "w": codec.model.digest}, packets)
    list(Light(path, effort=1).encode(photo[:, :32, :32], Rate(quality=50)))


def test_weights_for_another_distortion(photo):
    with pytest.raises(ValueError, match="is for ms-ssim; leave effort at 0"):
        Light("ms-ssim", effort=1).encode(photo)


@pytest.mark.parametrize("effort", [-1, 10, 1.5, "3"])
def test_efforts_that_are_not(effort):
    with pytest.raises(ValueError, match=r"effort is .*, expected 0 to 9"):
        Light(effort=effort)
