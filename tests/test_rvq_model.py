import pytest
import torch

from latentpack.codecs.audio.rvq_model import RvqModel, Size, Stft

TINY = Size(dim=32, hidden=64, encoder=2, decoder=2, latent=16, n_q=4, codebook_size=64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return RvqModel(TINY).eval().requires_grad_(False)


def test_the_inverse_transform_gives_the_signal_one_hop_late():
    stft, past = Stft(160), torch.zeros(2, 160)
    x = torch.randn(2, 1600)
    spectrum, last = stft.analyse(x, past)
    y, _ = stft.synthesise(spectrum, past)
    assert torch.allclose(y[:, 160:], x[:, :-160], atol=1e-5)
    assert torch.equal(last, x[:, -160:])
    assert y[:, :160].abs().max() < 1e-5


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_chunks_give_what_the_whole_gives(model, cut):
    x = torch.randn(2, 10 * TINY.frame)
    whole, _ = model.analyse(x)
    first, state = model.analyse(x[:, : cut * TINY.frame])
    second, _ = model.analyse(x[:, cut * TINY.frame :], state)
    assert torch.allclose(torch.cat([first, second], 2), whole, atol=1e-5)
    x_hat, _ = model.synthesise(whole)
    first, state = model.synthesise(whole[:, :, :cut])
    second, _ = model.synthesise(whole[:, :, cut:], state)
    assert torch.allclose(torch.cat([first, second], 1), x_hat, atol=1e-5)


def test_nothing_looks_ahead(model):
    x = torch.randn(1, 8 * TINY.frame)
    changed = x.clone()
    changed[:, 5 * TINY.frame :] = 0
    latents, other = model.analyse(x)[0], model.analyse(changed)[0]
    assert torch.allclose(latents[:, :, :5], other[:, :, :5], atol=1e-6)
    assert not torch.allclose(latents[:, :, 5:], other[:, :, 5:], atol=1e-3)
    latents[:, :, 5:] = 0
    kept = model.synthesise(model.analyse(x)[0])[0]
    assert torch.allclose(
        model.synthesise(latents)[0][:, : 5 * TINY.frame], kept[:, : 5 * TINY.frame], atol=1e-6
    )


def test_a_signal_of_no_whole_frames_is_refused(model):
    with pytest.raises(ValueError, match="multiple of 320"):
        model.analyse(torch.zeros(1, 321))


def test_the_shipped_speech_model_has_at_most_five_million_parameters():
    model = RvqModel(Size())
    codebooks = sum(b.numel() for name, b in model.named_buffers() if name.endswith("codebook"))
    assert sum(p.numel() for p in model.parameters()) + codebooks <= 5_000_000
    assert model.size.frame_rate == 50


def test_loud_silent_and_huge_signals_stay_finite(model):
    for x in (torch.zeros(1, 960), torch.full((1, 960), 1e-30), torch.randn(1, 960) * 100):
        latents, _ = model.analyse(x)
        assert latents.isfinite().all()
        assert model.synthesise(latents * 100)[0].isfinite().all()
