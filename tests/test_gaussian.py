import math

import numpy as np
import torch

from latentpack.entropy.coder import Encoder
from latentpack.entropy.models import gaussian


def test_estimate_agrees_with_tables_and_bytes():
    """Estimated bits, the tables' exact cost and real bytes differ by less than 1 %."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(4, 64, (60_000,), generator=generator)
    scale = gaussian.MIN_SCALE * torch.exp(gaussian.STEP * row)
    q = (torch.randn(row.shape, generator=generator) * scale).round()
    estimate = gaussian.rate_bits(q, row.float()).sum().item()
    tables = gaussian.freeze()
    symbols, index = q.to(torch.int16), row.to(torch.uint8)
    cost = tables.cost_bits(symbols.numpy(), index.numpy())
    encoder = Encoder(tables)
    encoder.put(symbols, index)
    size = 8 * len(encoder.finish())
    assert abs(cost / estimate - 1) < 0.01
    assert abs(size / estimate - 1) < 0.01


def test_row_zero_is_not_coded():
    assert gaussian.freeze().lengths[0] == 0 and len(gaussian.freeze()) == gaussian.ROWS


def test_gradients_reach_rows_that_are_far_off():
    q = torch.tensor([0.0, 30.0, 500.0])
    row = torch.tensor([80.0, 0.0, -5.0], requires_grad=True)
    gaussian.rate_bits(q, row).sum().backward()
    assert torch.isfinite(row.grad).all()
    assert row.grad[0] > 0 and row.grad[1] < 0 and row.grad[2] < 0


def test_dead_zone_minimises_rate_plus_distortion():
    """At full strength each integer is the best of all, for error worth 6 / ln 2 bits."""
    tables = gaussian.freeze()
    factors = gaussian.dead_zone(tables, 1.0)
    assert factors[0] == 0 and (factors.diff() > -0.01).all() and factors[-1] > 0.99
    assert (gaussian.dead_zone(tables, 0.0)[1:] == 1).all()
    for row in range(20, 64, 7):
        ks = np.arange(6, dtype=np.int16)
        bits = [tables.cost_bits(ks[k : k + 1], np.array([row], np.uint8)) for k in range(6)]
        scale = gaussian.MIN_SCALE * math.exp(gaussian.STEP * row)
        r = torch.linspace(0, min(4, 3 * scale), 801)[:, None]  # beyond it are the escapes
        cost = 6 / math.log(2) * (r - torch.from_numpy(ks)) ** 2 + torch.tensor(bits)
        chosen = (r * factors[row]).round().long()
        excess = cost.gather(1, chosen) - cost.amin(1, keepdim=True)
        assert excess.max() < 0.15, row
