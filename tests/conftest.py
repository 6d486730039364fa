"""Fixtures that several test modules use."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton asks when a kernel's module is imported, which any test may be the first to do.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def write_light_weights():
    """A function that writes weights of narrow random networks of image/light to a path."""
    from latentpack.codecs import weight_files
    from latentpack.codecs.image.light_frozen import frozen_state
    from latentpack.codecs.image.light_model import LightModel, Size

    def write(path, seed=0):
        torch.manual_seed(seed)
        model = LightModel(Size(16, 24, 1))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith(".weight"):
                    p += torch.randn_like(p) * 0.3 / p.shape[1] ** 0.5
                elif name.endswith(".bias"):
                    p += torch.randn_like(p) * 0.1
            model.h_s.offset += torch.randn_like(model.h_s.offset) * 8
        weight_files.write(path, "image/light", frozen_state(model), {}, force=True)
        return path

    return write


@pytest.fixture(scope="session")
def rvq_weights(tmp_path_factory):
    """A file with weights of narrow random networks of audio/rvq, whose codes follow the sound."""
    from latentpack.codecs import weight_files
    from latentpack.codecs.audio.rvq_frozen import config_of, frozen_state
    from latentpack.codecs.audio.rvq_model import RvqModel, Size
    from latentpack.entropy.models.code_prior import CodePrior
    from latentpack.entropy.models.code_prior import Size as PriorSize

    torch.manual_seed(0)
    size = Size(dim=32, hidden=48, encoder=2, decoder=2, latent=16, n_q=6, codebook_size=64)
    model = RvqModel(size)
    rest, _ = model.analyse(torch.randn(4, 320 * 200) * torch.rand(4, 1) * 0.3)
    for stage in model.quantizer.stages:
        stage.start(rest)
        rest = rest - stage.decode(stage.encode(rest))
    path = tmp_path_factory.mktemp("rvq") / "tiny.lpkw"
    prior = CodePrior([size.codebook_size] * size.n_q, PriorSize(16, 16, 16, 16, 2)).freeze()
    prior.bias += torch.randint(-3000, 3000, prior.bias.shape, dtype=torch.int32)
    weight_files.write(path, "audio/rvq", frozen_state(model, prior), config_of(size, prior))
    return path


@pytest.fixture(scope="session")
def write_fit_prior():
    """A function that writes a prior file of image/fit around initial networks, and opens it."""
    from latentpack.codecs.image import fit_networks, fit_prior

    def write(path, presets=("fast",), lmbdas=(0.001, 0.02)):
        priors = {}
        for name in presets:
            preset = fit_networks.PRESETS[name]
            for colours in (1, 3):
                generators = (torch.Generator().manual_seed(rate) for rate in range(len(lmbdas)))
                means = [fit_networks.initial(preset, colours, g) for g in generators]
                slices = len(fit_networks.layout(preset, colours))
                priors[f"{name}.{colours}"] = {
                    "mean": torch.stack(means),
                    "scale": torch.full((len(lmbdas), len(means[0])), 52),
                    "q": torch.full((len(lmbdas), slices), 6),
                }
        fit_prior.save(path, list(lmbdas), priors)
        return fit_prior.PriorFile(path)

    return write


@pytest.fixture(scope="session")
def write_tokens_weights():
    """A function that writes weights of narrow random networks of image/tokens to a path."""
    from latentpack.codecs import weight_files
    from latentpack.codecs.image.tokens_frozen import frozen_state
    from latentpack.codecs.image.tokens_model import Size, TokensModel
    from latentpack.codecs.image.tokens_prior import TokenPrior
    from latentpack.codecs.image.tokens_training import start

    def write(path, seed=0):
        torch.manual_seed(seed)
        size = Size(16, 24, 16, 1, coarse=(32, 8), fine=(16, 16), fine_dim=8)
        networks = TokensModel(size)
        start(networks, torch.rand(4, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3))
        prior = TokenPrior(networks.codebook_sizes)
        with torch.no_grad():
            for name, p in networks.named_parameters():
                if name.endswith(".weight"):
                    p += torch.randn_like(p) * 0.2 / p.shape[1] ** 0.5
            for level in prior.levels:
                level.head.weight += torch.randn_like(level.head.weight) * 0.1
                level.head.bias += torch.randn_like(level.head.bias) * 0.3
        weight_files.write(path, "image/tokens", *frozen_state(networks, prior))
        return path

    return write
