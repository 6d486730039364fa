"""Resampling block by block: the whole-signal result, the exact length, no delay."""

import pytest
import torch

from latentpack.datasets.resampling import Resampler, resample, resample_blocks

RATES = [
    (44100, 16000),
    (16000, 44100),
    (48000, 24000),
    (8000, 48000),
    (22050, 22050),
    (1000, 1003),
]


@pytest.mark.parametrize(("source", "target"), RATES)
def test_blocks_give_what_the_whole_gives(source, target):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3001, generator=generator)
    whole = resample(x, source, target)
    sizes = [0, 1, 2, 700, 1, 0, 1297, 1000]
    parts = list(resample_blocks(x.split(sizes, dim=1), source, target))
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_the_length_comes_back(source, target):
    for length in (0, 1, 2, 3, 159, 160, 161, 997):
        there = resample(torch.ones(1, length), source, target)
        assert there.shape == (1, -(-length * target // source))
        assert resample(there, target, source, length).shape == (1, length)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_keeps_its_place_and_height(source, target):
    seconds = torch.arange(source, dtype=torch.float64) / source
    tone = 0.4 * min(source, target)  # Hz
    y = resample(torch.sin(2 * torch.pi * tone * seconds)[None], source, target)[0]
    expected = torch.sin(2 * torch.pi * tone * torch.arange(target, dtype=torch.float64) / target)
    inner = slice(target // 4, -target // 4)
    error = (y - expected)[inner].abs().max()
    assert error < 10 ** (-90 / 20)


def test_what_a_lower_rate_can_not_hold_is_gone():
    tone = torch.sin(2 * torch.pi * 9000 * torch.arange(48000, dtype=torch.float64) / 48000)
    y = resample(tone[None], 48000, 16000)[:, 400:-400]
    assert y.abs().max() < 10 ** (-85 / 20)


def test_memory_stays_small():
    resampler = Resampler(192000, 8000)
    for _ in range(30):
        resampler.push(torch.zeros(1, 1000))
        assert resampler._kept.shape[1] < 4000


def test_wrong_arguments():
    with pytest.raises(ValueError, match="is 999 Hz, expected 1000 to 768000"):
        Resampler(16000, 999)
    with pytest.raises(ValueError, match="length is 5; 100 samples become about 50"):
        resample(torch.zeros(1, 100), 16000, 8000, length=5)
    assert list(resample_blocks([], 16000, 8000)) == []
