"""The recipe of image/tokens."""

import pytest
import torch

from latentpack.codecs import weight_files
from latentpack.codecs.image import tokens_training
from latentpack.codecs.image.tokens import Tokens
from latentpack.codecs.image.tokens_model import Size, TokensModel
from latentpack.codecs.image.tokens_prior import TokenPrior
from latentpack.codecs.image.tokens_training import TokensRecipe, TokensTraining, texture_loss
from latentpack.codecs.training import train
from latentpack.codecs.training_config import TrainingConfig

NARROW = Size(16, 24, 16, 1, coarse=(32, 8), fine=(16, 16), fine_dim=8)


class Narrow(TokensRecipe):
    """The recipe at a size for tests."""

    def model(self):
        networks = TokensModel(NARROW)
        return TokensTraining(networks, TokenPrior(networks.codebook_sizes))


class Noise(torch.utils.data.Dataset[torch.Tensor]):
    """Crops of smooth noise."""

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(hash(key) % 1000)
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        return torch.nn.functional.interpolate(coarse, 64, mode="bilinear")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = Narrow()
    held = torch.stack([Noise()[9, i] for i in range(4)])
    first = recipe.validate(recipe.model().eval(), held)
    config = TrainingConfig(steps=25, batch=4, crop=64, log_every=5, ema=0.9)
    model = train(recipe, config, Noise(), folder)
    path = folder / "w.lpkw"
    weight_files.write(path, "image/tokens", *recipe.freeze(model))
    return path, first, recipe.validate(model, held), held


def test_training_lowers_the_loss_and_its_weights_code(run):
    path, first, last, _ = run
    assert last["loss"] < 0.9 * first["loss"]
    assert last["psnr_db/3"] > last["psnr_db/1"]
    codec = Tokens(path)
    x = (Noise()[1, 1] * 255).to(torch.uint8)
    decoded = codec.decode(codec.header(x), codec.encode(x))
    assert (decoded.float() - x.float()).square().mean() < x.float().var()


def test_validation_says_what_files_take(run):
    path, _, last, held = run
    codec = Tokens(path)
    x = (held * 255).round().to(torch.uint8)
    sizes = [[len(p.body) for p in codec.encode(picture)] for picture in x]
    bits = 8 * torch.tensor(sizes).float().cumsum(1).sum(0) / x[:, 0].numel()
    for level in range(3):
        # Each stream of these small pictures takes some bytes more than its codes.
        assert 0 < bits[level] - last[f"bpp_est/{level + 1}"] < 0.012 * (level + 1)
    assert 0 < last["usage/0"] <= 1 <= last["perplexity/0"] <= 32


def test_codes_can_be_kept(run, tmp_path):
    path, _, _, held = run
    recipe = TokensRecipe(codes="keep")
    init = weight_files.read(path, "image/tokens")
    config = TrainingConfig(steps=4, batch=2, crop=64)
    model = train(recipe, config, Noise(), tmp_path / "run", init=init)
    weight_files.write(tmp_path / "w.lpkw", "image/tokens", *recipe.freeze(model))
    before, after = Tokens(path), Tokens(tmp_path / "w.lpkw")
    for a, b in zip(before.encode_tokens(held), after.encode_tokens(held), strict=True):
        assert torch.equal(a, b)
    codes = before.encode_tokens(held)
    assert not torch.equal(before.decode_tokens(codes), after.decode_tokens(codes))


def test_every_part_of_the_loss_moves_what_it_should():
    torch.manual_seed(0)
    recipe = Narrow(ms_ssim=0.0, texture=0.0)
    model = recipe.model().train()
    batch = torch.stack([Noise()[0, i] for i in range(4)])
    recipe.start(model, batch)
    loss, figures = recipe.loss(model, batch)
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert idle == []
    assert 0 < figures["code_bits"] < 5.1


def test_without_weights_there_are_no_codes_to_keep():
    with pytest.raises(ValueError, match="no codes to keep"):
        TokensRecipe(codes="keep").model()
    with pytest.raises(ValueError, match="codes is 'lose'"):
        TokensRecipe(codes="lose")


def test_texture_loss():
    torch.manual_seed(0)
    noise = torch.rand(1, 1, 64, 64)
    flat = torch.full_like(noise, 0.5)
    shifted = noise.roll(1, 3)
    assert texture_loss(noise, noise) == 0
    assert texture_loss(noise, flat) > 10 * texture_loss(noise, shifted)


def test_transforms_start_from_those_of_light():
    from latentpack.codecs.image.light_model import LightModel
    from latentpack.codecs.image.light_model import Size as LightSize

    torch.manual_seed(0)
    light = LightModel(LightSize(16, 24, 1))
    with torch.no_grad():
        for p in light.parameters():
            p += 0.02 * torch.randn_like(p)
    networks = TokensModel(NARROW)
    tokens_training.start_transforms(networks, light.state_dict())
    x, t = torch.rand(1, 3, 64, 64), torch.zeros(1)
    with torch.no_grad():
        y = networks.g_a(x - 0.5)
        assert torch.allclose(y, light.g_a(x - 0.5, t)[:, :256], atol=1e-4)
        features = torch.zeros(1, 16, 4, 4)
        x_hat = networks.g_s(y, features, torch.tensor([2]))
        silent = torch.cat((y, torch.zeros_like(y)), 1)
        assert torch.allclose(x_hat, light.g_s(silent, t), atol=1e-4)
