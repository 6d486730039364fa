"""The recipe of image/light."""

import pytest
import pytorch_msssim
import torch
from torch.utils.flop_counter import FlopCounterMode

from latentpack.codecs import weight_files
from latentpack.codecs.codec import Rate
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import frozen_state, load_weights, thaw
from latentpack.codecs.image.light_model import LightModel, Size, lmbda_of, quantise
from latentpack.codecs.image.light_training import SIZES, LightRecipe
from latentpack.codecs.training import train
from latentpack.codecs.training_config import TrainingConfig
from latentpack.entropy.models.gaussian import coded_bits, rate_bits


class Narrow(LightRecipe):
    """The recipe at a size for tests."""

    def model(self):
        return LightModel(Size(16, 24, 1))


class Noise(torch.utils.data.Dataset[torch.Tensor]):
    """Crops of smooth noise."""

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(hash(key) % 1000)
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        return torch.nn.functional.interpolate(coarse, 32, mode="bilinear")[0]


def test_training_lowers_the_loss_and_its_weights_code(tmp_path):
    config = TrainingConfig(steps=6, batch=2, crop=32, log_every=1)
    held = torch.stack([Noise()[9, i] for i in range(2)])
    recipe = Narrow()
    first = recipe.validate(recipe.model().eval(), held)
    model = train(recipe, config, Noise(), tmp_path)
    last = recipe.validate(model, held)
    assert last["loss"] < first["loss"]
    weight_files.write(tmp_path / "w.lpkw", "image/light", *recipe.freeze(model))
    codec = Light(tmp_path / "w.lpkw")
    x = (Noise()[1, 1] * 255).to(torch.uint8)
    packets = list(codec.encode(x, Rate(quality=80)))
    decoded = codec.decode(codec.header(x), packets)
    assert (decoded.float() - x.float()).square().mean() < 20**2


def test_thawed_weights_freeze_to_the_same(tmp_path, write_light_weights):
    path = write_light_weights(tmp_path / "w.lpkw")
    state = frozen_state(thaw(load_weights(path)))
    written = weight_files.read(path, "image/light").tensors
    assert state.keys() == written.keys()
    for name, value in written.items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": "xl"}, "size is 'xl', expected one of s, m"),
        ({"distortion": "lpips"}, "distortion is 'lpips', expected one of mse, ms-ssim"),
        ({"level": 7.5}, "level is 7.5, expected 0 to 7"),
    ],
)
def test_options_that_are_not(option, message):
    with pytest.raises(ValueError, match=message):
        LightRecipe(**option)


def macs_per_pixel(size):
    """Thousands of multiplications per pixel of the encoder's transforms and of the decoder."""
    model = LightModel(size).eval()
    x, t = torch.zeros(1, 3, 128, 128), torch.zeros(1)
    counts = []
    with torch.inference_mode():
        y = model.g_a(x, t)
        z = model.h_a(y)
        features = model.means.features(z, t)
        for run in (
            lambda: (model.g_a(x, t), model.h_a(y)),
            lambda: (model.h_s(z, t), model.means.features(z, t), model.means.of_anchors(features),
                     model.means.of_rest(features, y), model.g_s(y, t)),
        ):  # fmt: skip
            with FlopCounterMode(display=False) as counter:
                run()
            counts.append(counter.get_total_flops() / 2 / x[0, 0].numel() / 1000)
    return counts


def test_sizes_of_the_networks():
    encoder, decoder = macs_per_pixel(SIZES["s"])
    assert 11 < encoder < 16 and 14 < decoder < 18
    encoder, decoder = macs_per_pixel(SIZES["m"])
    assert encoder < decoder and 60 < decoder < 72


def test_size_m_trains_and_codes(tmp_path):
    config = TrainingConfig(steps=2, batch=1, crop=32)
    model = train(LightRecipe(size="m"), config, Noise(), tmp_path)
    path = tmp_path / "m.lpkw"
    weight_files.write(path, "image/light", *LightRecipe(size="m").freeze(model))
    codec = Light(path)
    x = (Noise()[1, 1] * 255).to(torch.uint8)
    decoded = codec.decode(codec.header(x), list(codec.encode(x, Rate(quality=60))))
    assert (decoded.float() - x.float()).square().mean() < 20**2


def test_ms_ssim_is_what_is_minimised():
    torch.manual_seed(0)
    recipe = Narrow(distortion="ms-ssim", level=3.0)
    model = recipe.model().train()
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), 192, mode="bilinear")
    loss, _ = recipe.loss(model, x)
    loss.backward()
    assert model.g_s.linear.grad.abs().sum() > 0
    with torch.no_grad():
        x_hat, bits = model.eval()(x, torch.tensor([3.0]))
    similarity = pytorch_msssim.ms_ssim(x, x_hat.clamp(0, 1), data_range=1.0)
    lmbda = lmbda_of(torch.tensor(3.0))
    expected = (bits / 192**2 + 1300 * lmbda * (1 - similarity)) * (lmbda / 0.01) ** -0.4
    assert torch.allclose(recipe.validate(model, x)["loss"], expected[0], rtol=1e-4)
    with pytest.raises(ValueError, match="crops of 161 pixels or more"):
        recipe.loss(model, x[:, :, :128, :128])


def test_the_rate_teaches_networks_by_integers_and_latents_by_noise():
    """Rows get the gradient of what is coded; the latents that of noise, at the same value."""
    torch.manual_seed(0)
    latents = torch.full((1, 4), 0.3, requires_grad=True)
    row = torch.full((1, 4), 20.0, requires_grad=True)
    bits = coded_bits(latents, quantise(latents, torch.ones(1, 4)), row, training=True)
    assert torch.allclose(bits, rate_bits(torch.zeros(1, 4), row.detach()))
    bits.sum().backward()
    assert (row.grad > 0).all(), "zeros are cheaper in narrower rows"
    assert latents.grad.abs().sum() > 0
