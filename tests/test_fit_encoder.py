"""The optimisation of image/fit: it gets better, goes on exactly, and runs everywhere alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_encoder, fit_networks, fit_prior, fit_state
from latentpack.kernels import fit_train

PRESET = "fast"


def picture(colours=3, height=40, width=56):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = torch.stack([(x * (c + 2) / 9).sin() + (y / (3 + c)).cos() for c in range(colours)])
    return (127 + 60 * wave).round().to(torch.uint8)


def mean(colours=3):
    generator = torch.Generator().manual_seed(1)
    return fit_networks.initial(fit_networks.PRESETS[PRESET], colours, generator)


def cost(x, fitted, lmbda=0.01):
    return fitted.bits / x[0].numel() + lmbda * 255**2 * fitted.mse


def fit(x, **options):
    options = {"steps": 60, "threads": 1} | options
    return fit_encoder.optimise(x, PRESET, 0.01, mean(x.shape[0]), **options)


@pytest.mark.parametrize(("colours", "height", "width"), [(1, 1, 1), (3, 5, 1), (3, 40, 56)])
def test_more_steps_are_better(colours, height, width):
    x = picture(colours, height, width)
    short, long = fit(x, steps=20), fit(x, steps=200)
    assert cost(x, long) < 0.8 * cost(x, short)
    assert [tuple(g.shape) for g in long.grids] == fit_networks.grid_shapes(height, width)
    assert all(g.dtype == torch.int16 for g in long.grids)


def test_what_is_returned_costs_what_it_says():
    x = picture()
    fitted = fit(x)
    p = fit_networks.split(fitted.parameters, fit_networks.PRESETS[PRESET], 3)
    grids = [grid.float() for grid in fitted.grids]
    bits = fit_networks.rate_bits(p, grids, fit_networks.PRESETS[PRESET].taps)
    x_hat = fit_networks.synthesise(p, fit_networks.upsample(p, grids))
    assert fitted.bits == pytest.approx(bits.item(), rel=1e-4)
    assert fitted.mse == pytest.approx((x_hat - x / 255).square().mean().item(), rel=1e-3)


def test_a_broken_run_ends_like_an_unbroken_one(tmp_path, monkeypatch):
    x, file = picture(), tmp_path / "state.npz"
    whole = fit(x)
    monkeypatch.setattr(fit_encoder, "CHECKPOINT_SECONDS", 0.0)
    real = fit_state.State.advance

    def stops(state, *rest):
        if state.step == 37:
            raise KeyboardInterrupt
        return real(state, *rest)

    monkeypatch.setattr(fit_state.State, "advance", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(x, checkpoint=file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.npz"]
    seen = []
    monkeypatch.setattr(
        fit_state.State, "advance", lambda state, *rest: seen.append(1) or real(state, *rest)
    )
    resumed = fit(x, checkpoint=file)
    assert len(seen) == 60 - 37
    assert torch.equal(resumed.parameters, whole.parameters)
    assert all(torch.equal(a, b) for a, b in zip(resumed.grids, whole.grids, strict=True))
    with pytest.raises(ValueError, match="another picture or other settings"):
        fit(x.flip(1), checkpoint=file)
    file.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        fit(x, checkpoint=file)


def test_a_time_budget_and_progress(monkeypatch):
    monkeypatch.setattr(fit_encoder, "_REPORT_SECONDS", 0.0)
    calls = []
    fit(picture(), time_budget=0.3, progress=lambda *values: calls.append(values))
    steps, totals, bpps, psnrs = zip(*calls, strict=True)
    assert len(calls) > 5 and list(steps) == sorted(steps) and steps[-1] == totals[-1]
    assert psnrs[-1] > psnrs[0] and all(np.isfinite(bpps))


def test_a_time_too_short_still_gives_a_picture():
    x = picture()
    with pytest.warns(UserWarning, match="time budget of 0.001 s is too short: 60 steps"):
        hasty = fit(x, time_budget=0.001)
    steps = fit(x, steps=fit_encoder.LEAST_STEPS)
    assert cost(x, hasty) < 1.1 * cost(x, steps)


def test_going_on_at_another_rate_is_better_than_beginning():
    x = picture()
    start = fit(x, steps=200)
    again = fit_encoder.optimise(x, PRESET, 0.02, mean(), steps=30, threads=1, start=start)
    fresh = fit_encoder.optimise(x, PRESET, 0.02, mean(), steps=30, threads=1)
    assert cost(x, again, 0.02) < cost(x, fresh, 0.02)


@pytest.mark.skipif(not fit_train.available(), reason="the C++ extension is not built")
def test_torch_and_the_compiled_iteration_agree():
    x = picture().float() / 255
    preset = fit_networks.PRESETS[PRESET]
    rng = np.random.default_rng(2)
    count = sum(r * c for r, c in fit_networks.grid_shapes(*x.shape[1:]))
    latents = rng.normal(size=count).astype(np.float32)
    steps = [
        engine.step(latents, mean().numpy(), fit_encoder.objective_for(0.01))
        for engine in (
            fit_encoder.engine_for(preset, x, 1),
            fit_encoder.TorchEngine(preset, x, "cpu"),
        )
    ]
    assert steps[0].bits == pytest.approx(steps[1].bits, rel=1e-4)
    assert np.abs(steps[0].latent_grads - steps[1].latent_grads).max() < 1e-4
    top = np.abs(steps[1].param_grads).max()
    assert np.abs(steps[0].param_grads - steps[1].param_grads).max() < 1e-4 * top


def test_phases_end_with_rounding():
    recipe = replace(fit_encoder.RECIPE, hard=0.2)
    phases = [fit_encoder.phase_at(recipe, i / 100) for i in range(100)]
    assert [p.temperature == 0 for p in phases].index(True) == 80
    assert all(p.temperature == 0 and p.noise == 0 for p in phases[80:])
    assert all(p.latent_rate > 0 and p.network_rate > 0 for p in phases)


def test_parameters_stay_near_a_prior():
    x = picture()
    start = fit_encoder.start_of(fit_networks.PRESETS[PRESET], 3)
    prior = fit_prior.load().nearest(PRESET, 3, 0.01)

    def away(**options):
        fitted = fit_encoder.optimise(x, PRESET, 0.01, start, steps=150, threads=1, **options)
        scale = 2.0 ** ((prior.scale - 60) / 3)
        return float(np.mean(np.abs(fitted.parameters.numpy() - prior.mean) / scale))

    assert away(prior=prior) < 0.9 * away()


def test_the_pull_is_the_slope_of_its_cost():
    rng = np.random.default_rng(4)
    mean, params = rng.normal(size=(2, 9)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 9).astype(np.float32)
    pull = fit_state.Pull(mean, weight, np.full(9, 1e-3, np.float32))
    assert pull.gradient(params) == pytest.approx(weight * np.sign(params - mean), rel=0.02)
    assert (pull.gradient(mean) == 0).all()
