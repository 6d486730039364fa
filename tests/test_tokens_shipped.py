"""The weights of image/tokens that ship, on the photograph that ships."""

import itertools
import math

import pytest

import latentpack
from latentpack.codecs.container import Reader
from latentpack.codecs.image.tokens import Tokens
from latentpack.codecs.image.tokens_frozen import SHIPPED, load_weights
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import ms_ssim, psnr_db
from latentpack.datasets.picture_peers import peer
from latentpack.scripts.showcase import SAMPLE


@pytest.fixture(scope="module")
def picture():
    return read_image(SAMPLE)[0][:, :512, :512]


@pytest.fixture(scope="module")
def data(picture):
    return latentpack.encode(picture, codec="image/tokens", rate=latentpack.Rate(bpp=0.05))


def test_it_beats_the_smallest_jpeg_at_half_its_size(picture, data):
    jpeg = peer("jpeg")
    smallest = jpeg.encode(picture, 0)
    assert len(data) < 0.6 * len(smallest)
    x_hat, other = latentpack.decode(data), jpeg.decode(smallest)
    assert psnr_db(picture, x_hat) > psnr_db(picture, other) + 0.5
    assert ms_ssim(picture, x_hat) > ms_ssim(picture, other) + 0.02


def test_every_level_adds_quality(picture):
    codec = Tokens()
    coarse, fine = codec.encode_tokens(picture[None])
    reached = []
    for n in range(4):
        x_hat = codec.decode_tokens((coarse, fine[:, :n]), picture.shape[1:])
        reached.append(-10 * math.log10((x_hat - picture / 255).square().mean()))
    assert reached[0] > 17 and all(b > a + 0.3 for a, b in itertools.pairwise(reached))


def test_the_prior_saves_bits(picture):
    codec = Tokens()
    levels = codec.levels_in(codec.header(picture), codec.encode(picture))
    for level in levels:
        assert level["bits_per_code"] < 0.95 * math.log2(level["codebook_size"])


def test_the_readme_names_the_digest(data):
    digest = load_weights().digest
    text = (SHIPPED.parent / "README.md").read_text()
    assert f"| `{SHIPPED.name}` |" in text and digest.hex() in text
    assert Reader(data).params["w"] == digest
    assert SHIPPED.stat().st_size < 5e6
