import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.codecs.audio.rvq_prior_training import train_prior
from latentpack.entropy.models.code_prior import CodePrior, IntegerCodePrior, Size
from latentpack.kernels.errors import BitstreamError

SMALL = Size(dim=16, context=16, hidden=16, features=16, past=2)
SIZES = (16, 32, 8)


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    prior = CodePrior(SIZES, SMALL)
    with torch.no_grad():
        prior.weight.mul_(8)
        prior.bias.normal_()
        for layers in (prior.first, prior.past, prior.hidden, prior.features):
            layers.bias.normal_(0, 0.3)
    return prior


def drawn(count, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in SIZES[:k]])


def moving(count, noise=0.05, seed=0):
    """Vectors that turn, coded by two codebooks of points on circles: int64 [2, count]."""
    torch.manual_seed(seed)
    points = torch.linspace(0, 6.28, 33)[:-1]
    coarse = torch.stack((points.cos(), points.sin()), 1)
    codebooks = [coarse[::2], coarse[::2] * 0.15]
    angle = torch.cumsum(0.3 + noise * torch.randn(count), 0)
    rest = torch.stack((angle.cos(), angle.sin()), 1)
    codes = []
    for book in codebooks:
        codes.append(torch.cdist(rest, book).argmin(1))
        rest = rest - book[codes[-1]]
    return torch.stack(codes), codebooks


@given(st.integers(0, 30), st.integers(1, 3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_codes_come_back(prior, count, k, seed):
    frozen, codes = prior.freeze(), drawn(count, k, seed)
    assert torch.equal(frozen.decode(frozen.encode(codes), k, count), codes)


def test_estimated_bits_are_those_of_the_stream(prior):
    codes = drawn(12_000)
    with torch.no_grad():
        estimated = float(prior.rate_bits(codes[None]).sum())
    size = len(prior.freeze().encode(codes))
    assert size > 10_000
    assert size * 8 == pytest.approx(estimated, rel=0.01)


def test_a_packet_of_a_trained_prior_costs_what_is_estimated():
    codes, codebooks = moving(3000)
    frozen = train_prior([codes], codebooks, 60, size=SMALL, lr=0.02)
    trained = CodePrior((16, 16), SMALL)
    trained.thaw(frozen)
    part = moving(400, seed=1)[0]
    with torch.no_grad():
        estimated = float(trained.rate_bits(part[None]).sum()) / 8
    assert abs(len(frozen.encode(part)) - estimated) < 2 + 0.005 * estimated
    assert estimated < 0.7 * 400 * 8 / 8  # of 8 bits to a frame


def test_fewer_codebooks_and_some_prices(prior):
    codes = drawn(20)[None]
    bits = prior.rate_bits(codes)
    assert bits.shape == (1, 3, 20)
    assert torch.equal(prior.rate_bits(codes, [2, 0]), bits[:, [2, 0]])
    few = prior.rate_bits(codes[:, :2])
    assert torch.equal(few[:, :, 0], bits[:, :2, 0])  # nothing is before the first frame
    assert not torch.equal(few, bits[:, :2])


def test_only_what_is_before_counts(prior):
    codes = drawn(12)[None]
    bits = prior.rate_bits(codes)
    changed = codes.clone()
    changed[0, 1, 5] = (changed[0, 1, 5] + 1) % SIZES[1]
    moved = prior.rate_bits(changed) != bits
    assert not moved[0, :, :5].any() and not moved[0, 0, 5]
    assert moved[0, 1:, 5].any() and moved[0, :, 6].any()


def test_probabilities_add_to_one(prior):
    codes = drawn(1).expand(3, 1)[None].repeat(SIZES[1], 1, 1)
    codes[:, 1, 0] = torch.arange(SIZES[1])
    bits = prior.rate_bits(codes, [1]).detach().double()
    assert float((2**-bits).sum()) == pytest.approx(1, abs=1e-4)


def test_everything_learns(prior):
    model = copy.deepcopy(prior)
    model.rate_bits(drawn(30)[None]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_thaw_and_freeze_are_the_same_again(prior):
    frozen = prior.freeze()
    again = CodePrior(SIZES, SMALL)
    again.thaw(frozen)
    state, other = frozen.state_dict(), again.freeze().state_dict()
    assert list(state) == list(other)
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def test_loaded_weights_are_the_ones_that_code(prior):
    frozen, codes = prior.freeze(), drawn(50)
    other = IntegerCodePrior(SIZES, SMALL)
    with pytest.raises(ValueError, match="shift"):
        other.load_state_dict({n: v * 0 for n, v in frozen.state_dict().items()})
        other.encode(codes)
    other.load_state_dict(frozen.state_dict())
    assert other.encode(codes) == frozen.encode(codes) == copy.deepcopy(frozen).encode(codes)
    torch.nn.ModuleList([other]).load_state_dict(
        {f"0.{n}": v for n, v in CodePrior(SIZES, SMALL).freeze().state_dict().items()}
    )
    assert other.encode(codes) != frozen.encode(codes)


def test_damage():
    frozen, codes = CodePrior(SIZES, SMALL).freeze(), drawn(50)
    data = frozen.encode(codes)
    assert torch.equal(frozen.decode(memoryview(data), 3, 50), codes)
    for cut in (5, 9, 40):  # without less, only the last codes would be others
        with pytest.raises(BitstreamError):
            frozen.decode(data[:-cut], 3, 50)
    with pytest.raises(BitstreamError):
        frozen.decode(data, 3, 60)


def test_start_needs_the_codebooks():
    with pytest.raises(ValueError, match=r"codebooks have \(4,\) codes, expected \(8,\)"):
        CodePrior([8], SMALL).start([torch.zeros(4, 2)])


@pytest.mark.parametrize("lengths", [[], [0], [1], [3, 0, 1], [99], [100], [101]])
def test_few_codes_are_enough_to_train(lengths):
    codes, codebooks = moving(101)
    prior = train_prior([codes[:, :n].short() for n in lengths], codebooks, 2, size=SMALL)
    assert torch.equal(prior.decode(prior.encode(codes), 2, 101), codes)


def test_training_is_repeatable_and_reports():
    codes, codebooks = moving(300)
    seen = []
    runs = [
        train_prior([codes], codebooks, 3, seed, SMALL, report=lambda *step: seen.append(step))
        for seed in (5, 5, 6)
    ]
    data = [run.encode(codes) for run in runs]
    assert data[0] == data[1] != data[2]
    assert [number for number, _ in seen] == [1, 2, 3] * 3
    assert all(0 < bits < 10 for _, bits in seen)


def test_codes_of_other_codebooks():
    _, codebooks = moving(1)
    with pytest.raises(ValueError, match=r"expected \[2, T\]"):
        train_prior([torch.zeros(3, 5, dtype=torch.int16)], codebooks, 1, size=SMALL)
    with pytest.raises(ValueError, match="outside their codebooks"):
        train_prior([torch.full((2, 5), 16)], codebooks, 1, size=SMALL)
