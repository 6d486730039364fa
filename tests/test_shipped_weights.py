"""The weights that ship, on the photograph that ships."""

from pathlib import Path

import pytest

import latentpack
from latentpack.codecs.container import Reader
from latentpack.codecs.image.light_frozen import SHIPPED, load_weights
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import psnr_db
from latentpack.datasets.picture_peers import peer
from latentpack.scripts.showcase import SAMPLE


@pytest.fixture(scope="module")
def picture():
    return read_image(SAMPLE)[0]


def test_it_beats_jpeg_of_the_same_size(picture):
    data = latentpack.encode(picture, codec="image/light", rate=latentpack.Rate(bpp=0.5))
    assert abs(len(data) * 8 / picture[0].numel() / 0.5 - 1) < 0.02
    jpeg = peer("jpeg")
    files = [jpeg.encode(picture, quality) for quality in range(20, 80, 5)]
    larger = next(file for file in files if len(file) >= len(data))
    ours = psnr_db(picture, latentpack.decode(data))
    assert ours > psnr_db(picture, jpeg.decode(larger)) + 0.5


@pytest.mark.parametrize("quality", [0, 100])
def test_ends_of_the_scale(picture, quality):
    rate = latentpack.Rate(quality=quality)
    data = latentpack.encode(picture[:, :100, :150], codec="image/light", rate=rate)
    assert psnr_db(picture[:, :100, :150], latentpack.decode(data)) > (36 if quality else 24)


def test_the_readme_names_the_digest(picture):
    digest = load_weights().digest
    data = latentpack.encode(picture[:, :32, :32], codec="image/light")
    assert Reader(data).params["w"] == digest
    assert digest.hex() in (Path(SHIPPED).parent / "README.md").read_text()
    assert sum(p.stat().st_size for p in SHIPPED.parent.iterdir()) < 40e6
