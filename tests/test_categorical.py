import math

import numpy as np
import pytest
import torch

from latentpack.entropy.coder import Decoder, Encoder
from latentpack.entropy.models import categorical
from latentpack.entropy.models.categorical import IntegerTreeHead, TreeHead, tree_order
from latentpack.kernels.errors import BitstreamError


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = TreeHead(16, 8)
    with torch.no_grad():
        head.weight += torch.randn_like(head.weight) * 0.7
        head.bias += torch.randn_like(head.bias)
    return head


def features(count, width=8):
    return torch.randint(0, 128, (count, width), dtype=torch.int8)


def test_path_by_hand():
    nodes, decisions = categorical._path(torch.tensor([5, 0]), 3)
    assert nodes.tolist() == [[1, 3, 6], [1, 2, 4]]
    assert decisions.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_rows_by_hand():
    head = IntegerTreeHead(2, 2)
    head.weight[1] = torch.tensor([2, -1])
    head.bias[1] = 16
    given = torch.tensor([[10, 20], [100, 0], [0, 127], [0, 0]], dtype=torch.int8)
    # (0 + 16 + 16) >> 5 = 1; (200 + 32) >> 5 = 7; (-127 + 32) >> 5 = -3; 32 >> 5 = 1
    assert head.rows(given, torch.ones(4, dtype=torch.int64)).tolist() == [128, 134, 124, 128]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_codes_come_back(head, count):
    frozen, tables = head.freeze(), categorical.freeze()
    h, codes = features(count), torch.randint(0, 16, (count,))
    encoder = Encoder(tables)
    frozen.put(encoder, h, codes)
    decoder = Decoder(tables, encoder.finish())
    assert torch.equal(frozen.get(decoder, h), codes)
    decoder.finish()


def test_estimated_bits_are_those_of_the_stream(head):
    frozen, tables = head.freeze(), categorical.freeze()
    h, codes = features(20_000), torch.randint(0, 16, (20_000,))
    encoder = Encoder(tables)
    frozen.put(encoder, h, codes)
    estimated = head.rate_bits(h.float() * categorical.FEATURE_STEP, codes).sum()
    assert len(encoder.finish()) * 8 == pytest.approx(float(estimated.detach()), rel=0.01)


def test_probabilities_add_to_one(head):
    h = (features(5) * categorical.FEATURE_STEP).float()
    bits = torch.stack([head.rate_bits(h, torch.full((5,), k)) for k in range(16)])
    assert torch.allclose((2**-bits).sum(0), torch.ones(5), atol=1e-5)


def test_untrained_codes_cost_log2_k():
    bits = TreeHead(64, 4).rate_bits(torch.zeros(3, 4), torch.tensor([0, 5, 63]))
    assert torch.allclose(bits, torch.full((3,), 6.0))


def test_it_learns_a_distribution_given_features():
    torch.manual_seed(0)
    head = TreeHead(8, 4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    codes = torch.randint(0, 8, (400,))
    h = torch.nn.functional.one_hot(codes // 2, 4).float()  # leaves one bit open
    for _ in range(100):
        loss = head.rate_bits(h, codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0.9 < float(loss.detach()) < 1.2


def test_tree_order_keeps_neighbours_together():
    torch.manual_seed(0)
    codebook = torch.randn(64, 1)[torch.randperm(64)]
    order = tree_order(codebook)
    assert sorted(order.tolist()) == list(range(64))
    halves = codebook[order].view(2, 32)
    assert halves[0].max() < halves[1].min() or halves[1].max() < halves[0].min()


@pytest.mark.parametrize("size", [0, 1, 3, 1000])
def test_sizes_that_are_no_power_of_two(size):
    with pytest.raises(ValueError, match="power of two"):
        TreeHead(size, 4)


def test_tables_are_logistic():
    tables = categorical.freeze()
    assert len(tables) == categorical.ROWS and tables.precision == 16
    p = tables.freqs.reshape(-1, 3)[:, 1] / 65536
    expected = 1 / (1 + np.exp(-(np.arange(255) - 127) / 16))
    assert np.abs(p - expected).max() < 1e-4
    assert math.isclose(p[127], 0.5, abs_tol=1e-4)


def test_escapes_are_damage():
    head, tables = IntegerTreeHead(4, 2), categorical.freeze()
    encoder = Encoder(tables)
    encoder.put(torch.tensor([7, 0], dtype=torch.int16), torch.full((2,), 127, dtype=torch.uint8))
    with pytest.raises(BitstreamError, match="neither 0 nor 1"):
        head.get(Decoder(tables, encoder.finish()), torch.zeros(1, 2, dtype=torch.int8))
