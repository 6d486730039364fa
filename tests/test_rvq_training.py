import math

import pytest
import torch

from latentpack.codecs import training, weight_files
from latentpack.codecs.audio.rvq_frozen import config_of, frozen_state, load_networks
from latentpack.codecs.training_config import TrainingConfig

SIZES = {"size": "tiny", "unquantised": 3, "adversary_channels": 2, "prior_crops": 4}


class Tones(torch.utils.data.Dataset[torch.Tensor]):
    """Chords with noise, a function of step and number."""

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(1000 * key[0] + key[1])
        t = torch.arange(6400) / 16_000
        pitches = 100 + 900 * torch.rand(3, 1, generator=generator)
        x = torch.sin(2 * math.pi * pitches * t).sum(0) * 0.1
        return x + 0.01 * torch.randn(6400, generator=generator)


def run(folder, steps=6, init=None, **options):
    recipe = training.recipe("audio/rvq", SIZES | options)
    config = TrainingConfig(steps=steps, batch=4, crop=6400, lr=1e-3, log_every=1, validate_every=3)
    samples = Tones()
    held = [torch.stack([samples[99, i] for i in range(2)])]
    return recipe, training.train(recipe, config, samples, folder, validation=held, init=init)


def frozen(folder, name, recipe, model):
    tensors, config = recipe.freeze(model)
    weight_files.write(folder / name, "audio/rvq", tensors, config, force=True)
    return weight_files.read(folder / name, "audio/rvq")


def test_a_run_starts_codebooks_and_adversary_and_ends_in_weights(tmp_path):
    recipe, model = run(tmp_path, adversary_after=4, prior_steps=2)
    assert all(bool(stage.started) for stage in model.codec.stages)
    assert float(model.balancer.counts.min()) > 0  # every loss took part
    shares = []
    recipe.finish(model, Tones(), 6, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    networks, prior = load_networks(frozen(tmp_path, "w.lpkw", recipe, model))
    assert prior is not None
    x = Tones()[50, 0][None]
    with torch.no_grad():
        latents, _ = networks.analyse(x)
        near, _ = model.codec.analyse(x)
    assert torch.allclose(latents, near, atol=0.05 * float(near.std()) + 0.02)  # int8
    codes = networks.quantizer.encode(latents)[0]
    assert torch.equal(prior.decode(prior.encode(codes), *codes.shape), codes)


def test_weights_that_are_loaded_freeze_to_themselves(tmp_path):
    recipe, model = run(tmp_path, steps=4, prior_steps=1)
    recipe.finish(model, Tones(), 4, lambda share: None)
    weights = frozen(tmp_path, "w.lpkw", recipe, model)
    networks, prior = load_networks(weights)
    again = frozen_state(networks, prior)
    assert config_of(networks.size, prior) == weights.config
    for name, value in weights.tensors.items():
        assert torch.allclose(again[name].double(), value.double(), rtol=1e-6), name


def test_a_run_goes_on_bit_for_bit(tmp_path):
    _, whole = run(tmp_path / "whole", steps=6)
    recipe = training.recipe("audio/rvq", SIZES)
    config = TrainingConfig(steps=6, batch=4, crop=6400, lr=1e-3, log_every=1, validate_every=3)
    count = iter(range(100))
    training.train(recipe, config, Tones(), tmp_path / "cut", stop=lambda: next(count) == 3)
    model = training.train(recipe, config, Tones(), tmp_path / "cut")
    for (name, a), b in zip(whole.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_decoder_alone_learns_and_keeps_the_prior(tmp_path):
    recipe, model = run(tmp_path / "first", steps=5, prior_steps=1)
    recipe.finish(model, Tones(), 5, lambda share: None)
    before = frozen(tmp_path, "w.lpkw", recipe, model)
    recipe, model = run(
        tmp_path / "second", steps=3, init=before, decoder_only=True, adversary_after=0
    )
    after = frozen(tmp_path, "again.lpkw", recipe, model)
    for name in before.tensors:
        same = torch.equal(before.tensors[name], after.tensors[name])
        if name.startswith(("encoder.", "quantizer.", "prior.")) and not name.endswith(".scale"):
            assert same, name
    assert not torch.equal(before.tensors["decoder.out.bias"], after.tensors["decoder.out.bias"])


def test_fine_tuning_keeps_the_codebooks(tmp_path):
    recipe, model = run(tmp_path / "first", steps=5, prior_steps=0)
    before = frozen(tmp_path, "w.lpkw", recipe, model)
    _, tuned = run(tmp_path / "second", steps=1, init=before)
    for old, new in zip(load_networks(before)[0].stages, tuned.codec.stages, strict=True):
        moved = (old.codebook - new.codebook).norm(dim=1) / old.codebook.norm(dim=1).mean()
        assert moved.median() < 0.1 and moved.mean() < 0.2
    with pytest.raises(ValueError, match="16000 Hz, the samples have 48000 Hz"):
        training.recipe("audio/rvq", {"size": "general"}).load(before)


def test_what_is_no_weights_of_this_codec_is_refused(tmp_path):
    recipe, model = run(tmp_path, steps=1, prior_steps=0)
    tensors, config = recipe.freeze(model)
    for wrong in (config | {"dim": 48}, config | {"dim": -1}, {}):
        weight_files.write(tmp_path / "w.lpkw", "audio/rvq", tensors, wrong, force=True)
        with pytest.raises(ValueError, match="audio/rvq"):
            load_networks(weight_files.read(tmp_path / "w.lpkw", "audio/rvq"))
    with pytest.raises(ValueError, match="size is 'huge'"):
        training.recipe("audio/rvq", {"size": "huge"})
