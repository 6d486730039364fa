"""The recipe of image/light."""

import pytest
import torch

from latentpack.codecs import weight_files
from latentpack.codecs.codec import Rate
from latentpack.codecs.image.light import Light
from latentpack.codecs.image.light_frozen import SHIPPED, frozen_state, load_weights, thaw
from latentpack.codecs.image.light_model import LightModel, Size
from latentpack.codecs.image.light_training import LightRecipe
from latentpack.codecs.training import train
from latentpack.codecs.training_config import TrainingConfig


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


def test_thawed_weights_freeze_to_the_same():
    state = frozen_state(thaw(load_weights()))
    shipped = weight_files.read(SHIPPED, "image/light").tensors
    assert state.keys() == shipped.keys()
    for name, value in shipped.items():
        assert torch.equal(state[name], value), name


def test_a_size_that_is_not():
    with pytest.raises(ValueError, match="size is 'xl', expected one of s, m"):
        LightRecipe(size="xl")
