"""Peers of the sound codecs: files of about the rate asked for, which lie on their original."""

import math

import pytest
import torch

from latentpack.datasets.audio_metrics import si_sdr_db
from latentpack.datasets.audio_peers import PEERS, AudioCoder

HERE = [
    name
    for name, coder in PEERS.items()
    if isinstance(coder, AudioCoder) and coder.missing() is None
]


def chirps(channels, sample_rate, seconds=2.0):
    """Sweeps below 3 kHz, which every codec keeps, and no two places alike."""
    t = torch.arange(int(seconds * sample_rate)) / sample_rate
    waves = [torch.sin(2 * math.pi * (300 + 100 * c + 500 * t) * t) for c in range(channels)]
    return 0.3 * torch.stack(waves) * (1 + torch.sin(2 * math.pi * 2 * t)) / 2


def lag(x, x_hat):
    """Samples by which `x_hat` comes late, where the two correlate best."""
    size = 2 * max(x.shape[1], x_hat.shape[1])
    spectra = [torch.fft.rfft(y[0], n=size) for y in (x, x_hat)]
    best = int(torch.fft.irfft(spectra[1] * spectra[0].conj(), n=size).argmax())
    return best - size if best > size // 2 else best


def test_opus_is_here():
    assert {"opus", "opus-voip", "aac"} <= set(HERE)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 48000])
@pytest.mark.parametrize("name", HERE)
def test_files_give_the_sound_back_in_its_place(name, sample_rate):
    coder = PEERS[name]
    x = chirps(1, sample_rate)
    sizes = [len(coder.encode(x, sample_rate, kbps)) for kbps in (coder.steps[0], coder.steps[-1])]
    assert sizes[0] < sizes[1]
    data = coder.encode(x, sample_rate, coder.steps[-1])
    kbps = coder.payload_bytes(data) * 8 / 2 / 1000
    assert coder.steps[-1] * 0.5 < kbps < coder.steps[-1] * 1.4 and coder.payload_bytes(data) < len(
        data
    )
    x_hat = coder.decode(data, sample_rate)
    assert x_hat.dtype == torch.float32 and len(x_hat) == 1
    assert x.shape[1] * 0.99 < x_hat.shape[1] < x.shape[1] + 0.1 * sample_rate
    assert abs(lag(x, x_hat)) <= sample_rate / 4000
    if coder.channels == 2:  # codecs of waveforms
        length = min(x.shape[1], x_hat.shape[1])
        floor = 1 if name == "opus-voip" else 12
        assert si_sdr_db(x[:, :length], x_hat[:, :length]) > floor


@pytest.mark.parametrize("name", HERE)
def test_stereo(name):
    coder, x = PEERS[name], chirps(2, 16000)
    if coder.channels == 1:
        with pytest.raises(ValueError, match=f"{name} takes 1 channels at most, got 2"):
            coder.encode(x, 16000, coder.steps[0])
        return
    x_hat = coder.decode(coder.encode(x, 16000, 64), 16000)[:, : x.shape[1]]
    assert len(x_hat) == 2
    for channel, other in ((0, 1), (1, 0)):
        own = si_sdr_db(x[channel : channel + 1, : x_hat.shape[1]], x_hat[channel : channel + 1])
        assert own > si_sdr_db(x[other : other + 1, : x_hat.shape[1]], x_hat[channel : channel + 1])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="rate must be above 0 kbit/s"):
        PEERS["opus"].encode(chirps(1, 16000), 16000, 0)
    with pytest.raises(ValueError, match="channels at most, got 6"):
        PEERS["opus"].encode(torch.zeros(6, 1000), 16000, 12)
