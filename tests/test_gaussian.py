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
