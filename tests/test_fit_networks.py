import math

import pytest
import torch

from latentpack.codecs.image import fit_networks as net


@pytest.mark.parametrize("name", net.PRESETS)
@pytest.mark.parametrize("colours", [1, 3])
def test_layout_has_no_gaps(name, colours):
    preset = net.PRESETS[name]
    at = 0
    for s in net.layout(preset, colours).values():
        assert s.start == at and s.stop == at + math.prod(s.shape)
        at = s.stop
    assert at == net.count(preset, colours) == len(net.initial(preset, colours))


def test_bits_of_all_integers_add_to_one():
    y = torch.arange(-400, 401, dtype=torch.float64)
    for row in (0.0, 5.5, 14.0, 27.0):
        for mu in (0.0, 0.3, -0.5, 2.75):
            bits = net.laplace_bits(y, torch.full_like(y, mu), torch.full_like(y, row))
            assert (2**-bits).sum() == pytest.approx(1, abs=1e-5)


def test_context_is_causal_and_reaches_the_coarser_grids():
    preset = net.PRESETS["max"]
    grids = [torch.zeros(r, c) for r, c in net.grid_shapes(19, 21)]
    before = net.contexts(grids, 0, preset.taps)
    grids[0][7, 9] = 5
    rows = (net.contexts(grids, 0, preset.taps) != before).any(1).nonzero().flatten()
    position = {divmod(int(i), 21) for i in rows}
    assert position == {(7 - r, 9 - c) for r, c in net.TAPS}
    assert all(c + 3 * r > 9 + 3 * 7 for r, c in position)
    grids[1][3, 4] = 2
    parents = net.contexts(grids, 0, preset.taps)[:, preset.taps :].view(19, 21, net.CROSS)
    assert parents[6, 8, 0] == parents[7, 9, 0] == 2  # the children
    assert parents[6, 7, 1] == parents[5, 8, 2] == parents[5, 7, 3] == 2  # seen from the side
    assert (parents[:, :, :4] != 0).sum() == 16
    grids[2][1, 2] = 3
    parents = net.contexts(grids, 0, preset.taps)[:, -1].view(19, 21)
    assert (parents[4:8, 8:12] == 3).all() and (parents != 0).sum() == 16


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 40), (64, 33)])
def test_a_flat_picture_stays_flat_and_gradients_reach_everything(size):
    preset = net.PRESETS["fast"]
    parameters = net.initial(preset, 3, torch.Generator().manual_seed(1)).requires_grad_()
    p = net.split(parameters, preset, 3)
    grids = [torch.full(shape, float(k)) for k, shape in enumerate(net.grid_shapes(*size))]
    u = net.upsample(p, grids)
    assert u.shape == (net.GRIDS, *size)
    for k in range(net.GRIDS):
        torch.testing.assert_close(u[net.GRIDS - 1 - k], grids[k].new_full(size, float(k)))
    x_hat = net.synthesise(p, u)
    assert x_hat.shape == (3, *size)
    y = [g.clone().requires_grad_() for g in grids]
    j = net.rate_bits(p, y, preset.taps) + net.synthesise(p, net.upsample(p, y)).square().sum()
    j.backward()
    assert parameters.grad is not None and parameters.grad.isfinite().all()
    assert all(g.grad is not None and g.grad.isfinite().all() for g in y)
