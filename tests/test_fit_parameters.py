from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpack.codecs import weight_files
from latentpack.codecs.image import fit_networks as net
from latentpack.codecs.image import fit_parameters, fit_prior
from latentpack.entropy.models import laplace
from latentpack.kernels import rans
from latentpack.kernels.errors import BitstreamError


@pytest.fixture(scope="module")
def priors(tmp_path_factory, write_fit_prior):
    return write_fit_prior(tmp_path_factory.mktemp("prior") / "prior.lpkw")


def networks(prior, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    return (prior.mean + spread * rng.standard_normal(len(prior.mean))).astype(np.float32)


def coded(prior, parameters):
    """Quantised with no thought of their costs."""
    return fit_parameters.choose(prior, parameters, lambda _: 0.0, lambda _: 0.0)


def round_trip(prior, networks_coded):
    symbols, rows = fit_parameters.symbols(prior, networks_coded)
    data = rans.encode(fit_prior.tables(), symbols, rows)
    decoder = rans.Decoder(fit_prior.tables(), data)
    again = fit_parameters.parse(prior, decoder.get)
    decoder.finish()
    return again, data


def test_the_shipped_tables_are_the_laplace_tables():
    made = laplace.freeze()
    assert len(fit_prior.tables()) == len(made)
    off = np.abs(fit_prior.tables().freqs.astype(int) - made.freqs)  # other machines may round so
    assert off.max() <= 1
    assert fit_prior.tables().digest.hex() == "e98daf6ac3cfa2e2"  # never to change


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("rate", [0, 1])
def test_round_trip(priors, colours, rate):
    prior = priors.at("fast", colours, rate)
    chosen = coded(prior, networks(prior))
    chosen = replace(chosen, q=chosen.q + np.arange(17) % 3, shift=np.arange(17) - 8)
    again, _ = round_trip(prior, chosen)
    for field in ("q", "shift", "delta"):
        assert np.array_equal(getattr(again, field), getattr(chosen, field))
    for a, b in zip(
        fit_parameters.context(prior, again), fit_parameters.context(prior, chosen), strict=True
    ):
        assert np.array_equal(a, b)


def test_values_are_exact_multiples_around_the_mean(priors):
    prior = priors.at("fast", 3, 0)
    nothing = fit_parameters.Coded(prior.q, 0 * prior.q, np.zeros(len(prior.mean), np.int64))
    some = replace(nothing, delta=np.arange(len(prior.mean)) % 7 - 3)
    for name, a, b in zip(
        prior.slices,
        [*fit_parameters.context(prior, nothing), *fit_parameters.synthesis(prior, nothing)],
        [*fit_parameters.context(prior, some), *fit_parameters.synthesis(prior, some)],
        strict=True,
    ):
        s = prior.slices[name]
        unit = 2.0**-12 if name.startswith("context") else 1.0
        moved = (b.astype(np.float64) - a).ravel() * unit
        assert np.array_equal(moved, some.delta[s.start : s.stop] / 64)
        assert np.abs(a.ravel() * unit - prior.mean[s.start : s.stop]).max() <= 2.0**-12


def test_choice_of_steps_weighs_bits_against_their_effect(priors):
    prior = priors.at("fast", 3, 0)
    parameters = networks(prior)
    truth = parameters[prior.slices["up"].start :]

    def blur(weight):
        def cost(synthesis):
            values = np.concatenate([a.ravel() for a in synthesis])
            return weight * float(np.square(values - truth).sum())

        return cost

    coarse, fine = (
        fit_parameters.choose(prior, parameters, lambda _: 0.0, blur(w)) for w in (1e2, 1e6)
    )
    assert fit_parameters.bits(prior, coarse) < 0.7 * fit_parameters.bits(prior, fine)
    assert blur(1)(fit_parameters.synthesis(prior, coarse)) > 10 * blur(1)(
        fit_parameters.synthesis(prior, fine)
    )
    exact = fit_parameters.symbols(prior, fine)
    assert len(round_trip(prior, fine)[1]) * 8 == pytest.approx(
        fit_prior.tables().cost_bits(*exact), rel=0.03, abs=60
    )


def test_parameters_beyond_the_range_are_clamped(priors):
    prior = priors.at("fast", 1, 1)
    wild = coded(prior, np.sign(networks(prior)) * np.float32(1e6))
    assert abs(fit_parameters.context(prior, wild).w1).max() <= 32767
    again, _ = round_trip(prior, wild)
    assert np.array_equal(again.delta, wild.delta)


@pytest.mark.parametrize("steps", [(60, 0), (-7, 0), (0, 29)])
def test_illegal_steps(priors, steps):
    prior = priors.at("fast", 3, 0)
    chosen = coded(prior, networks(prior))
    symbols, rows = fit_parameters.symbols(prior, chosen)
    symbols[0], symbols[17] = steps
    data = rans.encode(fit_prior.tables(), symbols, rows)
    with pytest.raises(BitstreamError, match=r"context\.w1 has step"):
        fit_parameters.parse(prior, rans.Decoder(fit_prior.tables(), data).get)


def test_illegal_values(priors):
    prior = priors.at("fast", 3, 0)
    chosen = coded(prior, networks(prior))
    chosen.delta[3] = 32767
    symbols, rows = fit_parameters.symbols(prior, chosen)
    data = rans.encode(fit_prior.tables(), symbols, rows)
    with pytest.raises(BitstreamError, match=r"context\.w1 has a value beyond"):
        fit_parameters.parse(prior, rans.Decoder(fit_prior.tables(), data).get)


def test_costs_are_those_of_the_tables():
    rng = np.random.default_rng(0)
    symbols = rng.integers(-1022, 1023, 2000).astype(np.int16)
    rows = rng.integers(0, len(fit_prior.tables()), 2000).astype(np.uint8)
    quick = fit_prior.bits_of(symbols, rows)
    assert quick == pytest.approx(fit_prior.tables().cost_bits(symbols, rows))


def test_which_prior(priors, tmp_path):
    assert priors.nearest("fast", 3, 0.004).rate == 0
    assert priors.nearest("fast", 3, 0.9).rate == 1
    with pytest.raises(ValueError, match="has no prior 0 of preset 'best'"):
        priors.at("best", 3, 0)
    with pytest.raises(ValueError, match="has no prior 2"):
        priors.at("fast", 3, 2)
    assert fit_prior.find(priors.digest, priors.path).digest == priors.digest
    shipped = fit_prior.load().digest
    assert fit_prior.find(shipped, priors.path).digest == shipped
    with pytest.raises(ValueError, match="was made with weights 0000"):
        fit_prior.find(bytes(8), priors.path)


def test_files_that_are_no_priors(tmp_path):
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a weights file"):
        fit_prior.PriorFile(Path(tmp_path / "a"))
    weight_files.write(tmp_path / "b", "image/fit", {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="no priors"):
        fit_prior.PriorFile(Path(tmp_path / "b"))


def test_the_shipped_file_has_every_preset():
    file = fit_prior.load()
    for name in net.PRESETS:
        for colours in (1, 3):
            prior = file.nearest(name, colours, 0.01)
            assert np.isfinite(prior.mean).all()
            assert all(
                0 <= q <= fit_prior.unit_of(s) for s, q in zip(prior.slices, prior.q, strict=True)
            )
