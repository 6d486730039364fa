import math

import pytest
import torch

from latentpack.codecs.audio.rvq_discriminator import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from latentpack.codecs.audio.rvq_losses import (
    Balancer,
    Envelopes,
    Loudness,
    loudness_scale,
    mel_loss,
    stft_loss,
    waveform_loss,
)

RATE = 16_000


def speechlike(seed=0):
    """A gliding tone with harmonics in a changing envelope, RMS 1."""
    t = torch.arange(24_000) / RATE
    pitch = 120 + 40 * torch.sin(2 * math.pi * 1.5 * t + seed)
    phase = 2 * math.pi * pitch.cumsum(0) / RATE
    x = sum(torch.sin(k * phase) / k for k in range(1, 30)) * (1.1 + torch.sin(2 * math.pi * 4 * t))
    return (x * loudness_scale(x[None])[0])[None]


LOSSES = {
    "mel": lambda x, y: mel_loss(x, y, RATE),
    "stft": lambda x, y: stft_loss(x, y, RATE),
    "waveform": waveform_loss,
    "loudness": Loudness(RATE),
    "envelope": Envelopes(RATE),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_vanish_for_equal_sounds_and_grow_with_noise(name):
    x, loss = speechlike(), LOSSES[name]
    torch.manual_seed(1)
    noise = torch.randn_like(x)
    values = [float(loss(x, x + gain * noise)) for gain in (0, 0.03, 0.3, 1.0)]
    assert values[0] < 0.01 * values[-1]
    assert values == sorted(values)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_finite_gradients_at_silence(name):
    for x in (speechlike(), torch.zeros(1, 24_000)):
        y = torch.zeros(1, 24_000, requires_grad=True)
        (gradient,) = torch.autograd.grad(LOSSES[name](x, y), y, allow_unused=True)
        assert gradient is None or gradient.isfinite().all()


def test_what_loudness_masks_and_what_it_hears():
    x, loss = speechlike(), LOSSES["loudness"]
    assert loss(x, 0.95 * x) < 0.05  # a level that is a little lower
    spectrum = torch.fft.rfft(x)
    tone = torch.zeros_like(spectrum)
    tone[:, 4500] = 300
    added = torch.fft.irfft(spectrum + tone, x.shape[1])
    spectrum[:, 4000:5000] = 0
    missing = torch.fft.irfft(spectrum, x.shape[1])
    assert loss(x, added) > loss(x, missing)


def test_the_balancer_gives_each_loss_its_share_of_the_gradient():
    x_hat = torch.randn(4, 100, requires_grad=True)
    leaf = x_hat.detach().requires_grad_()
    balancer = Balancer({"a": 3.0, "b": 1.0, "c": 1.0})
    losses = {"a": 1e6 * leaf[:, :50].sum(), "b": 1e-6 * leaf[:, 50:].sum()}
    balancer(x_hat, leaf, losses).backward()
    first, second = x_hat.grad[:, :50], x_hat.grad[:, 50:]
    assert first.norm(dim=1).mean() == pytest.approx(0.75, rel=1e-3)
    assert second.norm(dim=1).mean() == pytest.approx(0.25, rel=1e-3)


def test_the_adversary_learns_and_its_losses_say_so():
    torch.manual_seed(0)
    judge = Discriminator((256, 128), 4)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
    real, fake = speechlike().repeat(2, 1)[:, :4000], torch.randn(2, 4000)
    before = discriminator_loss(judge(real), judge(fake)).item()
    for _ in range(15):
        optimizer.zero_grad()
        discriminator_loss(judge(real), judge(fake)).backward()
        optimizer.step()
    assert discriminator_loss(judge(real), judge(fake)).item() < 0.7 * before
    assert adversarial_loss(judge(fake)) > adversarial_loss(judge(real))
    assert feature_loss(judge(real), judge(real)) == 0
    assert feature_loss(judge(real), judge(fake)) > 0
