import itertools

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from latentpack.codecs.codec import Rate
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_model import Size
from latentpack.codecs.image.light_training import TrainingConfig, train
from latentpack.datasets.crops import crops, load_pictures
from latentpack.scripts.train import train as command

CONFIG = TrainingConfig(Size(16, 24, 1), steps=4, batch=2, crop=32, checkpoint_seconds=0.0)


def batches():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.rand(2, 3, 32, 32, generator=generator)


def test_resuming_gives_the_same_model(tmp_path):
    whole = train(CONFIG, batches(), tmp_path / "whole")
    stream = batches()

    def cut():  # one batch to start the rows, two steps, then the power fails
        yield from itertools.islice(stream, 3)
        raise OSError("power")

    with pytest.raises(OSError, match="power"):
        train(CONFIG, cut(), tmp_path / "cut")
    resumed = train(CONFIG, stream, tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "cut" / "config.json").exists()


def test_command_makes_weights_that_code_a_picture(tmp_path):
    pixels = torch.randint(0, 256, (40, 48, 3), dtype=torch.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / "a.png")
    arguments = ["image/light", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(
        command, [*arguments, "--steps", "2", "--batch", "1", "--crop", "32"]
    )
    assert result.exit_code == 0, result.output
    codec = Light(tmp_path / "run" / "weights.safetensors")
    x = pixels.permute(2, 0, 1)
    packets = list(codec.encode(x, Rate(quality=80)))
    decoded = codec.decode(codec.header(x), packets)
    assert (decoded.float() - x.float()).square().mean() < 60**2


def test_crops(tmp_path):
    Image.new("RGB", (70, 64), (255, 0, 0)).save(tmp_path / "red.png")
    pictures = load_pictures([tmp_path])
    assert [tuple(p.shape) for p in pictures] == [(3, 64, 70), (3, 32, 35)]
    batch = next(crops(pictures, 4, 64, seed=0))
    assert batch.shape == (4, 3, 64, 64) and 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(batch, next(crops(pictures, 4, 64, seed=0)))
    with pytest.raises(ValueError, match="smaller crop"):
        next(crops(pictures, 1, 128, seed=0))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        load_pictures([tmp_path / "none"])
