"""The recipe of video/lite."""

import pytest
import torch
import torch.nn.functional as F

from latentpack.codecs import weight_files
from latentpack.codecs.training import recipe, train
from latentpack.codecs.training_config import TrainingConfig
from latentpack.codecs.video.lite_blocks import BlockTransform, units
from latentpack.codecs.video.lite_frozen import NAME, frozen_state, load_frozen, thaw
from latentpack.codecs.video.lite_inter import InterModel, field_integers
from latentpack.codecs.video.lite_model import LiteModel
from latentpack.codecs.video.lite_start import from_light
from latentpack.codecs.video.lite_training import LiteRecipe
from latentpack.codecs.video.lite_warp import warp_features, warp_planes


class Pans(torch.utils.data.Dataset[torch.Tensor]):
    """Clips of smooth noise that moves."""

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(hash(key) % 1000)
        wide = torch.rand(1, 6, 8, 10, generator=generator)
        wide = F.interpolate(wide, (32, 48), mode="bilinear")[0]
        return (torch.stack([wide[..., i : i + 32] for i in range(3)]) * 255).byte()


def test_training_lowers_the_loss_and_its_weights_come_back(tmp_path):
    config = TrainingConfig(steps=4, batch=2, crop=64, log_every=1, lr=1e-3)
    held = torch.stack([Pans()[9, i] for i in range(2)])
    made = LiteRecipe(frames=3, intra=False)
    torch.manual_seed(1)
    with torch.no_grad():
        first = made.validate(made.model().eval(), held)
    model = train(made, config, Pans(), tmp_path)
    with torch.no_grad():
        last = made.validate(model, held)
    assert last["loss"] < first["loss"]
    assert torch.equal(last["intra_bpp_est/3"], first["intra_bpp_est/3"])  # which were not trained
    state, config_of = made.freeze(model)
    weight_files.write(tmp_path / "w.lpkw", NAME, state, config_of)
    frozen = load_frozen(weight_files.read(tmp_path / "w.lpkw", NAME))
    again = frozen_state(thaw(frozen))
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_gradients_reach_all_networks():
    made = LiteRecipe(frames=3)
    model = made.model().train()
    for parameter in model.parameters():  # branches that start at zero pass nothing on
        parameter.data += 0.01 * torch.randn_like(parameter)
    loss, figures = made.loss(model, torch.stack([Pans()[0, i] for i in range(2)]))
    loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert figures["bpp_est"] > 0


def test_options_are_checked():
    assert recipe(NAME, {"frames": 5, "synthetic": 0.0}).frames == 5
    with pytest.raises(ValueError, match="frames is 1"):
        LiteRecipe(frames=1)


def test_the_block_transform_is_orthogonal_up_to_its_units():
    transform = BlockTransform()
    x = torch.rand(2, 6, 16, 24) - 0.5
    latents = transform(x)
    assert latents.shape == (2, 384, 2, 3)
    assert torch.allclose(transform.inverse(latents), x, atol=1e-5)
    energy = (latents / units()[:, None, None]).square().sum()
    assert torch.isclose(energy, x.square().sum(), rtol=1e-4)


def test_new_networks_are_a_hybrid_codec():
    """What is predicted exactly costs next to nothing and comes out as it was."""
    model = InterModel().eval()
    x = torch.rand(1, 6, 32, 32)
    clip = torch.stack((x, x), 1)
    whole = LiteModel(from_light()).eval()
    whole.inter.load_state_dict(model.state_dict())
    with torch.no_grad():
        t = torch.tensor([3.0])
        x_hat, _ = whole(clip, t, lambda now, last, t: torch.zeros(1, 8, 8, 2, dtype=torch.int16))
        same = torch.stack((x_hat[:, 0].clamp(0, 1),) * 2, 1)
        again, bits = whole(
            torch.stack((x, same[:, 0]), 1),
            t,
            lambda now, last, t: torch.zeros(1, 8, 8, 2, dtype=torch.int16),
        )
    assert (again[:, 1] - same[:, 0]).abs().max() < 1e-4
    assert bits[0, 1] < bits[0, 0] / 4


def test_warps_of_whole_samples_are_shifts():
    x, cells = torch.rand(1, 6, 32, 48), torch.rand(1, 5, 8, 12)
    vectors = torch.zeros(1, 8, 12, 2, dtype=torch.int16)
    assert torch.equal(warp_planes(x, vectors), x)
    vectors[..., 0] = 8  # two luma samples down, one of chroma
    moved = warp_planes(x, vectors)
    assert torch.allclose(moved[..., :31, :], x[..., 1:, :], atol=1e-6)
    vectors[:] = 32
    moved = warp_features(cells, vectors)
    assert torch.allclose(moved[..., :-1, :-1], cells[..., 1:, 1:])


def test_integers_of_a_field():
    vectors = torch.zeros(1, 4, 4, 2, dtype=torch.int16)
    assert not field_integers(vectors).any()
    vectors[0, 0, 1] = torch.tensor([3, -300])
    left, above, size, others = field_integers(vectors)[0].unbind()
    assert left[0, 0] == above[0, 0] == size[0, 0] == 127
    assert left[0, 1] == 127  # the step from it to its right neighbour
    assert others[0, 0] == 16
    assert not size[0, 1]
