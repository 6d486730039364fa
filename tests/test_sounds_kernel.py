"""The kernel of sounds: every backend gives exactly what the reference gives."""

import numpy as np
import pytest
import torch

from latentpack.kernels import rans, sounds
from latentpack.kernels.sounds import Channel
from latentpack.kernels.sounds_filters_ref import Gradient, LeastSquares, blocks

COMPILED = [name for name in rans.backends() if name != "ref"]
FULL = Channel(-(1 << 31), (1 << 31) - 1, 0)


def tones(channels, length, peak, seed=0, noise=0.05):
    """Two tones and noise, int32 [channels, length]."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    base = 0.5 * np.sin(0.07 * t) + 0.3 * np.sin(0.31 * t + 1)
    many = base + rng.normal(0, noise, (channels, length))
    return np.rint(many.clip(-1, 1) * peak).astype(np.int32)


def ranges(samples, partners):
    return [Channel(int(r.min()), int(r.max()), p) for r, p in zip(samples, partners, strict=True)]


def clicks(length):
    """Silence, full scale, and steps between."""
    samples = np.zeros((1, length), np.int32)
    samples[0, 10:30:3] = (1 << 31) - 1
    samples[0, 11:30:3] = -(1 << 31)
    samples[0, 40:] = 5
    return samples


CASES = {
    "one sample": (tones(1, 1, 9000), [0], 1),
    "two samples": (tones(1, 2, 9000), [0], 2),
    "speech-like": (tones(1, 150, 9000), [0], 1),
    "fast": (tones(1, 130, 9000), [0], 0),
    "stereo": (tones(2, 90, 3000), [1, 0], 1),
    "best": (tones(2, 60, 3000), [1, 0], 2),
    "many": (tones(4, 30, 500), [1, 0, 0, 3], 1),
    "quiet": (tones(1, 150, 2), [0], 1),
    "24 bits": (tones(1, 120, 1 << 22), [0], 1),
    "32 bits": (tones(2, 60, (1 << 31) - 1), [1, 0], 1),
    "clicks": (clicks(60), [0], 1),
    "none": (np.zeros((2, 0), np.int32), None, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_every_backend_equals_the_reference(name):
    samples, partners, effort = CASES[name]
    channels = ranges(samples, partners) if partners else [Channel(-5, 5, 0), Channel(0, 0, 0)]
    data = sounds.encode(samples, channels, effort, backend="ref")
    length = samples.shape[1]
    for backend in rans.backends():
        if backend != "ref":
            assert sounds.encode(samples, channels, effort, backend=backend) == data
        if backend != "ref" or samples.size < 70:
            back = sounds.decode(data, channels, length, effort, backend=backend)
            assert np.array_equal(back, samples)


@pytest.mark.parametrize("effort", range(sounds.MAX_EFFORT + 1))
def test_compiled_backends_agree_on_longer_sounds(effort):
    samples = tones(3, 2000, 20000, seed=effort)
    samples[1, 500:1000] = 0
    samples[2, 1000:] = np.random.default_rng(1).integers(-32768, 32768, 1000)
    channels = [Channel(-32768, 32767, partner) for partner in (1, 0, 0)]
    files = {sounds.encode(samples, channels, effort, backend=backend) for backend in COMPILED}
    assert len(files) == min(1, len(COMPILED))
    for data in files:
        for backend in COMPILED:
            back = sounds.decode(data, channels, 2000, effort, backend=backend)
            assert np.array_equal(back, samples)


def test_flushing_denormal_numbers_changes_nothing():
    samples = tones(1, 4000, 300)
    samples[:, 500:] = 0  # sums decay
    expected = sounds.encode(samples, ranges(samples, [0]))
    assert torch.set_flush_denormal(True) in (True, False)  # False: this CPU always has them
    try:
        assert sounds.encode(samples, ranges(samples, [0])) == expected
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("effort", range(sounds.MAX_EFFORT + 1))
def test_any_bytes_decode_within_the_range(backend, effort):
    rng = np.random.default_rng(effort)
    for size in (0, 1, 40, 400):
        data = rng.bytes(size)
        for channel in (FULL, Channel(-3, 8, 0), Channel(7, 7, 0)):
            back = sounds.decode(data, [channel], 500, effort, backend=backend)
            assert back.min() >= channel.low and back.max() <= channel.high


def test_what_sounds_get_small():
    tone = tones(1, 20000, 8000, noise=0.001)  # the noise has 5 bits of entropy
    assert len(sounds.encode(tone, ranges(tone, [0]))) < 5.4 / 8 * 20000
    pair = np.concatenate([tone, tone * 2 + 1])  # the second is known from the first
    more = len(sounds.encode(pair, ranges(pair, [1, 0]))) - len(sounds.encode(tone, [FULL]))
    assert more < 0.5 / 8 * 20000
    silence = np.zeros((1, 20000), np.int32)
    assert len(sounds.encode(silence, [FULL])) < 30


def test_wrong_arguments():
    samples = tones(1, 10, 100)
    for wrong, message in (
        ((samples.astype(np.int16), [FULL]), "expected int32"),
        ((samples, [FULL, FULL]), "2 channels for samples"),
        ((samples, []), "0 channels"),
        ((samples, [FULL], 3), "effort must be 0 to 2"),
        ((samples, [Channel(-5, 5, 0)]), "not in its range"),
        ((samples, [Channel(5, -5, 0)]), "has the range 5 to -5"),
        ((samples, [FULL._replace(partner=1)]), "partner 1 of 1 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            sounds.encode(*wrong)
    with pytest.raises(ValueError, match="samples"):
        sounds.decode(b"", [FULL], -1)


def test_least_squares_find_a_recurrence():
    """A tone follows x[t] = 2 cos(w) x[t-1] - x[t-2]."""
    fit = LeastSquares(16, 4, 4, 0.998)
    x = 1e5 * np.sin(0.2 * np.arange(300))
    for t in range(16, 299):
        fit.learn(x[t - 16 : t][::-1], x[t])
    assert abs(fit.predict(x[299 - 16 : 299][::-1]) - x[299]) < 50


def test_gradient_filters_find_an_echo():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1000, 4000).astype(np.float32)
    x[20:] += np.float32(0.9) * x[:-20]
    fit, missed = Gradient(32, 0.01), []
    for value in x:
        missed.append(value - fit.predicted)
        fit.learn(missed[-1], value)
    assert np.std(missed[-500:]) < 0.9 * np.std(x)  # of 0.74 that white noise would leave


def test_sums_by_hand():
    assert blocks(np.arange(128, dtype=np.float32), 16, 4) == 127 * 64
    v = np.zeros(32, np.float32)
    v[[0, 8, 16, 24]] = 1e8, 1, -1e8, 1  # 0 and 16 meet in one sum of two blocks
    assert blocks(v, 16, 4) == 1.0 + np.float32(1.0)
