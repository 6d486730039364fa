"""The compiled iteration of image/fit against torch's gradients of the same networks."""

import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_networks as networks
from latentpack.kernels import fit_train, rans

BACKENDS = [name for name in rans.backends() if name in ("scalar", "avx2", "avx512")]
OBJECTIVE = fit_train.Objective(
    300.0, networks.B_MIN, networks.B_STEP, networks.SCALES, networks.LATENT_UNIT
)
# Of the largest gradient of a slice: float32 sums over all pixels, in another order.
TOLERANCE = 1e-4

compiled = pytest.mark.skipif(not BACKENDS, reason="the C++ extension is not built")


def case(preset, colours, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(colours, height, width, generator=generator)
    params = networks.initial(preset, colours, generator)
    params += 0.02 * torch.randn(len(params), generator=generator)
    shapes = networks.grid_shapes(height, width)
    grids = [3 * torch.randn(shape, generator=generator) for shape in shapes]
    return picture, params, grids


def by_torch(preset, colours, picture, params, grids):
    params = params.double().requires_grad_()
    grids = [grid.double().requires_grad_() for grid in grids]
    p = networks.split(params, preset, colours)
    bits = networks.rate_bits(p, grids, preset.taps)
    x_hat = networks.synthesise(p, networks.upsample(p, grids))
    mse = (x_hat - picture).square().mean()
    (bits / picture[0].numel() + OBJECTIVE.weight * mse).backward()
    return bits.item(), mse.item(), torch.cat([g.grad.flatten() for g in grids]), params.grad


def close(got, wanted):
    assert np.abs(got - wanted).max() <= TOLERANCE * max(np.abs(wanted).max(), 1e-6)


@compiled
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "colours", "height", "width"),
    [
        ("fast", 1, 1, 1),
        ("fast", 3, 1, 7),
        ("default", 3, 13, 2),
        ("best", 1, 33, 41),
        ("best", 3, 64, 96),
        ("max", 3, 37, 65),
    ],
)
def test_gradients_are_those_of_torch(backend, threads, name, colours, height, width):
    preset = networks.PRESETS[name]
    picture, params, grids = case(preset, colours, height, width)
    bits, mse, latent_grads, param_grads = by_torch(preset, colours, picture, params, grids)
    net = fit_train.Net(preset.taps, preset.hidden, preset.width, colours)
    trainer = fit_train.Trainer(net, picture.numpy(), len(params), threads=threads, backend=backend)
    latents = torch.cat([grid.flatten() for grid in grids]).numpy()
    for _ in range(2):  # the second iteration finds the memory used
        step = trainer.step(latents, params.numpy(), OBJECTIVE)
    assert step.bits == pytest.approx(bits, rel=1e-5)
    assert step.mse == pytest.approx(mse, rel=1e-5)
    close(step.latent_grads, latent_grads.numpy())
    for piece in networks.layout(preset, colours).values():
        part = slice(piece.start, piece.stop)
        close(step.param_grads[part], param_grads[part].numpy())


@compiled
def test_a_row_outside_the_table_moves_only_back():
    preset = networks.PRESETS["fast"]
    picture, params, grids = case(preset, 1, 8, 8)
    b3 = networks.layout(preset, 1)["context.b3"]
    trainer = fit_train.Trainer(
        fit_train.Net(preset.taps, preset.hidden, preset.width, 1), picture.numpy(), len(params)
    )
    wide = torch.cat([grid.flatten() for grid in grids]).mul(40).numpy()
    for row, latents, moves in ((-50.0, wide, True), (-50.0, 0 * wide, False)):
        p = params.clone()
        networks.split(p, preset, 1)["context.b3"][:] = torch.tensor([0.0, row])
        networks.split(p, preset, 1)["context.w3"][:] = 0
        networks.split(p, preset, 1)["context.skip"][:] = 0
        grads = trainer.step(latents, p.numpy(), OBJECTIVE).param_grads[b3.start : b3.stop]
        assert bool(grads.reshape(-1, 2)[0, 1] < 0) == moves


@compiled
def test_memory_is_checked():
    preset = networks.PRESETS["fast"]
    picture, params, grids = case(preset, 1, 8, 8)
    net = fit_train.Net(preset.taps, preset.hidden, preset.width, 1)
    trainer = fit_train.Trainer(net, picture.numpy(), len(params))
    latents = torch.cat([grid.flatten() for grid in grids]).numpy()
    with pytest.raises(ValueError, match="size that was prepared"):
        trainer.step(latents[1:], params.numpy(), OBJECTIVE)
    with pytest.raises(ValueError, match="params is float64"):
        trainer.step(latents, params.double().numpy(), OBJECTIVE)
    with pytest.raises(ValueError, match=r"expected float32 \[3, H, W\]"):
        fit_train.Trainer(net._replace(colours=3), picture.numpy(), len(params))
    with pytest.raises(ValueError, match="out of range"):
        fit_train.Trainer(net._replace(taps=15), picture.numpy(), len(params))


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
def test_soften(backend):
    x = np.linspace(-3, 3, 1003, dtype=np.float32)
    values, slope = np.empty_like(x), np.empty_like(x)
    fit_train.soften(x, 0.0, 0.3, 1, values, slope, backend=backend)
    assert (values == np.rint(x)).all() and (slope == 1).all()

    def soft(v, t=0.25):
        r = v - torch.floor(v) - 0.5
        return torch.floor(v) + 0.5 + torch.tanh(r / t) / (2 * np.tanh(1 / (2 * t)))

    v = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    wanted = soft(soft(v))
    wanted.sum().backward()
    fit_train.soften(x, 0.25, 0.0, 1, values, slope, backend=backend)
    inner = np.abs(x - np.rint(x)) > 1e-3  # at an integer both neighbours' ends are right
    assert np.abs(values - wanted.detach().numpy())[inner].max() < 1e-5
    assert np.abs(slope - v.grad.numpy())[inner].max() < 1e-4


def test_noise_is_about_normal_and_the_same_everywhere():
    x = np.full(100_001, 0.5, np.float32)
    found = []
    for backend in ["ref", *BACKENDS]:
        values, slope = np.empty_like(x), np.empty_like(x)
        fit_train.soften(x, 1e3, 0.1, 7, values, slope, backend=backend)
        found.append(values)  # so high a temperature leaves the values alone
    noise = (found[0] - 0.5) / 0.1
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02
    for other in found[1:]:
        assert np.abs(other - found[0]).max() < 1e-3


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
def test_adam(backend):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(77, generator=generator)
    wanted = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([wanted], lr=0.01, betas=(0.9, 0.99))
    ours = x.numpy().copy()
    state = fit_train.Adam(np.zeros(77, np.float32), np.zeros(77, np.float32), beta2=0.99)
    for _ in range(5):
        grads, slope = torch.randn(2, 77, generator=generator)
        wanted.grad = grads * slope
        optimizer.step()
        fit_train.adam(state, 0.01, grads.numpy(), slope.numpy(), ours, backend=backend)
    assert np.abs(ours - wanted.detach().numpy()).max() < 1e-5
