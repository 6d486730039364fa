import math

import pytest

from latentpack.codecs.image.fit_search import LOWEST, Goal, search


class Picture:
    """Bytes as a power of lmbda, with a little that each fit adds or takes."""

    def __init__(self, scale=20_000, power=0.5, jitter=0.0):
        self.scale, self.power, self.jitter = scale, power, jitter
        self.fits = []

    def fit(self, lmbda, near):
        self.fits.append((lmbda, near))
        noise = self.jitter * math.sin(1e6 * lmbda)
        return self.scale * lmbda**self.power * math.exp(noise)


@pytest.mark.parametrize("power", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("size", [1200, 4000, 9000])
def test_sizes_are_met_in_few_fits(size, power):
    picture = Picture(power=power)
    found, _ = search(picture.fit, math.log, Goal.of_bytes(size), 0.005)
    assert found == pytest.approx(size, rel=0.02)
    assert len(picture.fits) <= 5
    lmbdas = [lmbda for lmbda, _ in picture.fits]
    for i, (lmbda, near) in enumerate(picture.fits):
        close = [v for v in lmbdas[:i] if 1 / 3.01 < v / lmbda < 3.01]
        assert (near is None) == (not close)


@pytest.mark.parametrize("size", [300, 1000, 2500, 7000])
@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.05])
def test_a_ceiling_is_never_exceeded(size, jitter):
    picture = Picture(jitter=jitter)
    found, _ = search(picture.fit, math.log, Goal.of_bytes(size, ceiling=True), 0.005)
    assert 0.7 * size < found <= size
    assert len(picture.fits) <= 10


def test_none_below_the_lowest():
    picture = Picture()
    low = picture.scale * LOWEST**0.5
    for size, ceiling in ((0.9 * low, True), (1.1 * low, True), (0.5 * low, False)):
        goal = Goal.of_bytes(size, ceiling=ceiling)
        found, smallest = search(picture.fit, math.log, goal, 0.005)
        assert (found is None) == (ceiling and size < low)
        assert smallest == pytest.approx(low, rel=0.2)


def test_psnr():
    def fit(lmbda, near):
        return 45 + 1.7 * math.log(lmbda)

    for target in (28.0, 36.0, 41.0):
        assert search(fit, float, Goal.of_psnr(target), 0.005)[0] == pytest.approx(target, abs=0.1)


def test_a_measure_that_does_not_move_ends():
    calls = []

    def fit(lmbda, near):
        calls.append(lmbda)
        return 1000.0

    assert search(fit, math.log, Goal.of_bytes(5000), 0.005) == (1000, 1000)
    assert len(calls) <= 5
