"""Measures of sounds against values worked out by hand, and those of packages at their ends."""

import math

import numpy as np
import pytest
import torch

from latentpack.datasets import audio_metrics as metrics

RATE = 16000


def noise(channels=1, samples=RATE, seed=0):
    return torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture(scope="module")
def voice():
    """Something that PESQ and STOI take for speech: a buzz in syllables."""
    t = torch.arange(3 * RATE) / RATE
    pitch = torch.cumsum(120 + 30 * torch.sin(2 * math.pi * 0.7 * t), 0) / RATE
    buzz = sum(torch.sin(2 * math.pi * k * pitch) / k for k in range(1, 40))
    syllables = (torch.sin(2 * math.pi * 3 * t).clamp(min=0)) ** 0.5
    return (0.1 * buzz * syllables)[None].float()


# ---- SI-SDR


@pytest.mark.parametrize("decibels", [-5.0, 0.0, 20.0])
def test_si_sdr_is_the_ratio_of_what_was_added(decibels):
    x, added = noise(2), noise(2, seed=1)
    x, added = x - x.mean(1, keepdim=True), added - added.mean(1, keepdim=True)
    added -= x * (x * added).sum(1, keepdim=True) / x.square().sum(1, keepdim=True)
    gain = (x.square().sum(1) / added.square().sum(1) / 10 ** (decibels / 10)).sqrt()
    assert metrics.si_sdr_db(x, x + gain[:, None] * added) == pytest.approx(decibels, abs=1e-3)


def test_si_sdr_knows_no_gain_sign_or_offset():
    x, x_hat = noise(), noise() + noise(seed=1) / 3
    expected = metrics.si_sdr_db(x, x_hat)
    for other in (5 * x_hat, -x_hat, x_hat + 0.3):
        assert metrics.si_sdr_db(x, other) == pytest.approx(expected, abs=1e-3)


def test_si_sdr_of_equals_and_of_silence():
    x, silent = noise(), torch.zeros(1, RATE)
    assert metrics.si_sdr_db(x, x) == metrics.si_sdr_db(silent, silent) == 150
    assert metrics.si_sdr_db(silent, x) == -150
    with pytest.raises(ValueError, match="of one shape"):
        metrics.si_sdr_db(x, x[:, :-1])
    with pytest.raises(ValueError, match="a sample at least"):
        metrics.si_sdr_db(x[:, :0], x[:, :0])


# ---- spectral distances


def test_distances_of_equals_are_nothing():
    x = noise(2)
    assert metrics.stft_distance(x, x) == metrics.log_spectral_distance(x, x) == 0
    assert metrics.mel_distance(x, x, RATE) == 0


def test_distances_of_a_gain_are_its_logarithm():
    """Half the amplitude: log10 of the power falls by 0.602 in every bin, magnitudes by half."""
    x = noise(samples=2 * RATE) * 10  # every bin lies above the least power
    step = 2 * math.log10(2)
    magnitudes = [metrics._magnitudes(x, window) for window in (2048, 512)]
    halves = sum(float(y.mean()) / 2 for y in magnitudes)
    assert metrics.log_spectral_distance(x, x / 2) == pytest.approx(step, abs=1e-3)
    assert metrics.stft_distance(x, x / 2) == pytest.approx(2 * step + halves, rel=1e-3)
    # In silence nothing lies above the least power: both logarithms are those of 1e-5.
    assert metrics.log_spectral_distance(x * 0, x * 0 + 1e-7) == 0


def test_the_spectrum_is_that_of_the_definition():
    """One frame worked out with NumPy: the second one of a window of 512 starts at -128."""
    x = noise(samples=4096)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    start = 4 * 128 - 256
    expected = np.abs(np.fft.rfft(x[0, start : start + 512].numpy() * window))
    assert metrics._magnitudes(x, 512)[0, :, 4].numpy() == pytest.approx(expected, rel=1e-4)


def test_mel_bands_have_area_one_below_half_the_rate():
    filters = metrics._mel_filters(2048, 80, RATE)
    assert filters.shape == (1025, 80)
    areas = filters.sum(0) * RATE / 2048
    assert areas[20:].numpy() == pytest.approx(np.ones(60), abs=0.02)
    peaks = filters.argmax(0) * RATE / 2048
    # Slaney's scale: steps of 200/3 Hz up to 1 kHz, i.e. mel 15, then by 6.4^(1/27).
    top = 15 + 27 * math.log(8) / math.log(6.4)
    assert float(peaks[9]) == pytest.approx(10 * top / 81 * 200 / 3, abs=8)
    assert float(peaks[-1]) == pytest.approx(1000 * 6.4 ** ((80 * top / 81 - 15) / 27), abs=8)


@pytest.mark.parametrize("samples", [1, 2, 300, 1025])
def test_short_sounds_have_distances(samples):
    x, x_hat = noise(2, samples), noise(2, samples, seed=1)
    assert metrics.stft_distance(x, x_hat) > 0
    assert metrics.mel_distance(x, x_hat, 8000) > 0


def test_distances_grow_with_noise_and_with_a_lost_band():
    x = noise(samples=2 * RATE)
    values = [metrics.mel_distance(x, x + g * noise(samples=2 * RATE, seed=1), RATE)
              for g in (0.01, 0.1, 1)]  # fmt: skip
    assert values == sorted(values)
    low = torch.fft.irfft(torch.fft.rfft(x) * (torch.arange(RATE + 1) < 4000), n=2 * RATE)
    assert metrics.stft_distance(x, low) > 1 and metrics.log_spectral_distance(x, low) > 1


# ---- of packages


def test_pesq(voice):
    pytest.importorskip("pesq", reason="no pesq: install latentpack[bench]")
    assert metrics.pesq(voice, voice, RATE) == pytest.approx(4.644, abs=1e-3)
    assert metrics.pesq(voice, voice, RATE, "nb") == pytest.approx(4.549, abs=1e-3)
    worse = [metrics.pesq(voice, voice + g * noise(samples=3 * RATE), RATE) for g in (0.05, 0.5)]
    assert 4.644 > worse[0] > worse[1] >= 1
    stereo = voice.expand(2, -1)
    assert metrics.pesq(stereo, stereo, RATE) == pytest.approx(4.644, abs=1e-3)
    with pytest.raises(ValueError, match="band must be one of wb, nb"):
        metrics.pesq(voice, voice, RATE, "fb")


def test_stoi(voice):
    pytest.importorskip("pystoi", reason="no pystoi: install latentpack[bench]")
    for extended in (False, True):
        measure = [metrics.stoi(voice, voice + g * noise(samples=3 * RATE), RATE, extended)
                   for g in (0, 0.1, 3)]  # fmt: skip
        assert measure[0] == pytest.approx(1, abs=1e-3)
        assert measure[0] > measure[1] > measure[2]


def test_visqol(voice):
    pytest.importorskip("visqol", reason="no visqol-python: install latentpack[bench]")
    pytest.importorskip("ai_edge_litert", reason="no visqol-python[lattice]")
    equal = metrics.visqol(voice, voice, RATE, "speech")
    noisy = metrics.visqol(voice, voice + noise(samples=3 * RATE), RATE, "speech")
    assert 5 > equal > noisy >= 1
    with pytest.raises(ValueError, match="mode must be one of speech, audio"):
        metrics.visqol(voice, voice, RATE, "music")


def test_what_has_no_speech_has_no_value(voice):
    pytest.importorskip("pesq", reason="no pesq: install latentpack[bench]")
    pytest.importorskip("pystoi", reason="no pystoi: install latentpack[bench]")
    silent, short = torch.zeros(1, RATE), voice[:, :1000]
    assert metrics.pesq(silent, silent, RATE) is None and metrics.stoi(silent, silent, RATE) is None
    assert metrics.pesq(short, short, RATE) is None and metrics.stoi(short, short, RATE) is None
    muted = torch.zeros_like(voice)
    assert metrics.pesq(voice, muted, RATE) < 1.5 and metrics.stoi(voice, muted, RATE) < 0.1


def test_every_rate_is_measured(voice):
    pytest.importorskip("pesq", reason="no pesq: install latentpack[bench]")
    for rate in (22050, 48000):  # the same samples, faster
        assert metrics.pesq(voice, voice, rate) == pytest.approx(4.644, abs=1e-3)
        assert metrics.mel_distance(voice, voice / 2, rate) > 0


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda module: None)
    assert metrics.missing_packages() == [
        "pesq", "pystoi", "visqol-python", "visqol-python[lattice]",
    ]  # fmt: skip
