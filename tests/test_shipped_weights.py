"""The weights that ship, on the photograph that ships."""

import pytest
import torch

import latentpack
from latentpack.codecs import weight_files
from latentpack.codecs.audio import rvq_frozen
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import DEFAULT, SHIPPED, load_weights
from latentpack.datasets.audio import read_audio
from latentpack.datasets.audio_metrics import mel_distance, si_sdr_db
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import psnr_db
from latentpack.datasets.picture_peers import peer
from latentpack.scripts.showcase import SAMPLE, VOICE
from latentpack.scripts.sound_codecs import open_codecs


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


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readme_names_the_digest(name):
    path = SHIPPED[name]
    text = (path.parent / "README.md").read_text()
    assert f"| `{path.name}` |" in text and load_weights(path).digest.hex() in text


@pytest.mark.parametrize("name", [n for n, p in rvq_frozen.SHIPPED.items() if p.exists()])
def test_the_readme_names_the_digest_of_sounds(name):
    path = rvq_frozen.SHIPPED[name]
    weights = weight_files.read(path, "audio/rvq")
    text = (path.parent / "README.md").read_text()
    assert f"| `{path.name}` |" in text and weights.digest.hex() in text
    model, prior = rvq_frozen.load_networks(weights)
    codebooks = sum(stage.codebook.numel() for stage in model.stages)
    assert prior is not None
    assert name != "speech" or sum(p.numel() for p in model.parameters()) + codebooks < 5e6


def test_a_voice_is_nearer_than_opus_of_more_bytes():
    x, rate = read_audio(VOICE)
    sizes, mel, si_sdr = {}, {}, {}
    for codec in open_codecs("audio/rvq@kbps=6,opus@6"):
        data = codec.encode(x, rate, 16)
        x_hat = codec.decode(data, rate)[:, : x.shape[1]]
        sizes[codec.ours], mel[codec.ours] = len(data), mel_distance(x, x_hat, rate)
        si_sdr[codec.ours] = si_sdr_db(x, x_hat)
    assert sizes[True] <= 6 * x.shape[1] / rate * 125 < sizes[False]
    assert mel[True] < mel[False] - 0.05 and si_sdr[True] > si_sdr[False] + 2


def test_all_shipped_weights_are_small():
    assert DEFAULT == next(iter(SHIPPED.values())) and DEFAULT.stat().st_size < 6e6
    assert sum(p.stat().st_size for p in DEFAULT.parent.iterdir()) < 40e6


@pytest.mark.parametrize("name", SHIPPED)
def test_streams_find_their_weights(picture, name):
    """Whatever weights the decoder was given, those that ship are found by their digest."""
    x = picture[:, :64, :64]
    codec = Light(name)
    header, packets = codec.header(x), list(codec.encode(x))
    assert header["w"] == load_weights(SHIPPED[name]).digest
    others = [Light(), *(Light(other) for other in SHIPPED)]
    decoded = [other.decode(header, packets) for other in others]
    assert all(torch.equal(decoded[0], x_hat) for x_hat in decoded[1:])
    assert psnr_db(x, decoded[0]) > 25
