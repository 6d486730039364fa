"""Change of sample rate in the codec: right values, and the same for any cuts."""

import math

import pytest
import torch

from latentpack.codecs.transforms.resample import LEAST_RATE, MOST_RATE, Resampler, length, reach

PAIRS = [(44_100, 16_000), (16_000, 44_100), (48_000, 16_000), (8_000, 16_000), (16_000, 11_025)]


def tone(rate, count, hertz):
    return torch.sin(2 * math.pi * hertz * torch.arange(count).double() / rate)[None].float()


def whole(x, source, target):
    resampler = Resampler(source, target)
    return torch.cat([resampler.push(x), resampler.finish(len(x))], 1)


@pytest.mark.parametrize("source, target", [*PAIRS, (44_101, 16_000), (192_000, 48_000)])
def test_a_tone_stays_a_tone(source, target):
    hertz = 0.2 * min(source, target)
    y = whole(tone(source, source // 4, hertz), source, target)
    assert y.shape[1] == length(source // 4, source, target)
    expected = tone(target, y.shape[1], hertz)
    assert (y - expected)[:, 300:-300].abs().max() < 2e-4


def test_what_the_target_cannot_hold_is_gone():
    y = whole(tone(48_000, 12_000, 9_500), 48_000, 16_000)
    assert y[:, 300:-300].abs().max() < 2e-4


@pytest.mark.parametrize("source, target", [*PAIRS, (16_000, 16_000)])
def test_any_cuts_give_the_same(source, target):
    x = torch.randn(2, 1_500, generator=torch.Generator().manual_seed(0))
    expected = whole(x, source, target)
    for size in (1, 13, 160, 1_001):
        pieces = x.split(size if size > 1 else 50, 1) if size > 1 else [x[:, :1], x[:, 1:]]
        resampler = Resampler(source, target)
        made = [resampler.push(piece) for piece in pieces]
        assert torch.equal(torch.cat([*made, resampler.finish(2)], 1), expected)


@pytest.mark.parametrize("source, target", PAIRS)
def test_a_later_start_gives_the_same(source, target):
    x = torch.randn(1, 6_000, generator=torch.Generator().manual_seed(0))
    resampler = Resampler(source, target, 1_234)
    first = resampler.next
    y = torch.cat([resampler.push(x[:, 1_234:]), resampler.finish()], 1)
    later = length(2 * reach(source, target), source, target)
    assert torch.equal(y[:, later:], whole(x, source, target)[:, first + later :])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_lengths_of_next_to_nothing(count):
    for source, target in [*PAIRS, (LEAST_RATE, MOST_RATE), (MOST_RATE, LEAST_RATE)]:
        assert whole(torch.ones(3, count), source, target).shape == (
            3,
            length(count, source, target),
        )


def test_rates_that_are_none():
    for source, target in ((999, 16_000), (16_000, -1), (MOST_RATE + 1, 16_000)):
        with pytest.raises(ValueError, match="rate is"):
            Resampler(source, target)
