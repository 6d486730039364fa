import pytest
import torch

from latentpack.codecs.transforms import integer
from latentpack.codecs.transforms.integer import (
    ACTIVATION_STEP,
    IntegerConv2d,
    QuantConv2d,
    int_matmul,
    unfold,
)

SHAPES = [(1, 1, 1), (3, 7, 5), (17, 8, 8), (64, 513, 33), (5, 1024, 16), (40, 2305, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_matmuls_equal_int64(shape, extreme, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(integer, "_has_exact_products", lambda k, n: False)
    m, k, n = shape
    generator = torch.Generator().manual_seed(k)
    a = torch.randint(-127, 128, (m, k), generator=generator, dtype=torch.int8)
    b = torch.randint(-127, 128, (k, n), generator=generator, dtype=torch.int8)
    if extreme:
        a, b = a.sign().masked_fill(a == 0, 1) * 127, torch.full_like(b, 127)
    expected = a.long() @ b.long()
    assert torch.equal(int_matmul(a, b).long(), expected)
    assert torch.equal((a.double() @ b.double()).long(), expected)


def test_layers_equal_integer_arithmetic():
    """Sums of up to 31 bits, multipliers and shifts of every size."""
    generator = torch.Generator().manual_seed(0)

    def some(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    for number in range(20):
        layer = IntegerConv2d(20, 64, 3, relu=number % 2 == 0)
        layer.weight.copy_(some(-127, 128, 180, 64))
        layer.bias.copy_(some(-(2**30), 2**30, 64) >> number)
        layer.multiplier.copy_(some(0, 2**15 + 1, 64))
        layer.shift.copy_(some(1 if layer.relu else 15, 41, 64))
        x = some(-127, 128, 1, 20, 5, 7).to(torch.int8)
        acc = unfold(x, 3).long() @ layer.weight.long() + layer.bias
        shift = layer.shift.long()
        expected = (acc * layer.multiplier + (1 << (shift - 1))) >> shift
        if layer.relu:
            expected = expected.clamp(0, 127)
        assert torch.equal(layer(x)[0].permute(1, 2, 0).reshape(35, 64).long(), expected)


def test_unfold_matches_torch():
    x = torch.randint(-127, 128, (2, 3, 5, 4), dtype=torch.int8)
    expected = torch.nn.functional.unfold(x.float(), 3, padding=1).transpose(1, 2).reshape(-1, 27)
    assert torch.equal(unfold(x, 3).float(), expected)


def test_worked_example():
    """1 x 1 convolution, acc = 2 * 3 + 10 = 16, times 5 over 2^3, rounded: 80 / 8 = 10."""
    layer = IntegerConv2d(1, 1, 1, relu=True)
    layer.weight.fill_(3), layer.bias.fill_(10), layer.multiplier.fill_(5), layer.shift.fill_(3)
    x = torch.tensor([[[[2, -20, 127]]]], dtype=torch.int8)
    # -20 * 3 + 10 = -50 -> clamp to 0; 127 * 3 + 10 = 391 -> 244 -> clamp to 127
    assert layer(x).flatten().tolist() == [10, 0, 127]


@pytest.mark.parametrize("relu", [False, True])
def test_frozen_layer_follows_the_trained_one(relu):
    torch.manual_seed(0)
    layer = QuantConv2d(24, 40, 3, relu, ACTIVATION_STEP)
    torch.nn.init.normal_(layer.bias)
    x = torch.randint(0, 128, (2, 24, 9, 7), dtype=torch.int8)
    expected = layer(x.float() * ACTIVATION_STEP) / ACTIVATION_STEP
    got = layer.freeze()(x).float()
    assert (got - expected).abs().max() <= 1.0
    assert (got - expected).abs().mean() < 0.3
