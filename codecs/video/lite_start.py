"""Where the training of `video/lite` starts: the networks of `image/light`, turned to 4:2:0.

What these do to RGB pictures is linear at their ends, so colours and the size of chroma can be
changed in the weights of the first and last layers. Latents have the units of `image/light`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..image.light_frozen import load_weights, thaw
from ..image.light_model import MAIN, block_dct
from ..transforms.conv import Conv2d
from .lite_blocks import CELL, LATENTS, frequencies
from .lite_intra import IntraModel

# R, G, B minus one half of Y', U, V minus their middles, BT.601, limited range.
_RGB = torch.tensor([[1.1644, 0.0, 1.5960], [1.1644, -0.3918, -0.8130], [1.1644, 2.0172, 0.0]])
_STEP_OF_CHROMA = 0.666  # chroma errors count less here than in the error of RGB


def from_light() -> IntraModel:
    """The intra networks that the shipped weights of `image/light` give."""
    light, model = thaw(load_weights()), IntraModel()
    rgb, yuv = _cells()
    latents = _latents()
    # The linear transforms of image/light are DCTs up to a factor for each latent.
    dct = block_dct()
    before = (light.g_a.linear * dct).sum(1)[latents]
    behind = (light.g_s.linear * dct).sum(1)[latents]
    with torch.no_grad():
        for name in ("modulation", "blocks"):
            _copy(getattr(model.g_a, name), getattr(light.g_a, name))
            _copy(getattr(model.g_s, name), getattr(light.g_s, name))
        model.g_a.tail.weight.copy_(light.g_a.tail.weight / before[:MAIN, None])
        model.g_a.tail.bias.copy_(light.g_a.tail.bias / before[:MAIN])
        model.g_s.squash.copy_(8 / behind[:MAIN])
        for name in ("head", "up"):
            _copy(getattr(model.g_s, name), getattr(light.g_s, name))
        _mix_inputs(model.g_a.head, light.g_a.head, rgb)
        _mix_outputs(model.g_s.tail, light.g_s.tail, yuv)
        _copy(model.means, light.means)
        for layer in ("first", "second", "third"):
            _copy(getattr(model.h_s, layer), getattr(light.h_s, layer))
        model.h_s.last.weight.copy_(light.h_s.last.weight[latents])
        model.h_s.last.bias.copy_(light.h_s.last.bias[latents])
        model.h_s.offset.copy_(light.h_s.offset[:, latents])
        model.z_row.copy_(light.z_row)
        _copy(model.h_a[2], light.h_a.layers[2])
        _copy(model.h_a[4], light.h_a.layers[4])
        kept = torch.cat((torch.arange(256), 256 + latents))
        first, ours = light.h_a.layers[0], model.h_a[0]
        assert isinstance(first, Conv2d) and isinstance(ours, Conv2d)
        ours.weight.copy_(first.weight.view(first.shape)[:, kept].flatten(1))
        ours.bias.copy_(first.bias)
        step = torch.ones(LATENTS)
        step[192:256] = step[320:] = _STEP_OF_CHROMA
        model.gains.log_up.copy_(light.log_gain[:, latents] + (step * before).log())
        model.gains.log_down.copy_(light.log_degain[:, latents] + (behind / step).log())
    return model


def _copy(target: torch.nn.Module, source: torch.nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _mix_inputs(target: Conv2d, source: Conv2d, matrix: Tensor) -> None:
    """Weights for inputs x of a layer that takes matrix @ x."""
    weight = torch.einsum("ocyx,ck->okyx", source.weight.view(source.shape), matrix)
    target.weight.copy_(weight.flatten(1))
    target.bias.copy_(source.bias)


def _mix_outputs(target: Conv2d, source: Conv2d, matrix: Tensor) -> None:
    """Weights that give matrix @ y where a layer gives y."""
    weight = torch.einsum("ko,ocyx->kcyx", matrix, source.weight.view(source.shape))
    target.weight.copy_(weight.flatten(1))
    target.bias.copy_(matrix @ source.bias)


def _cells() -> tuple[Tensor, Tensor]:
    """A cell of 8 x 8 luma samples to RGB [192, CELL], and RGB to a cell [CELL, 192]."""
    to_rgb, to_yuv = torch.zeros(3, 8, 8, 6, 4, 4), torch.zeros(6, 4, 4, 3, 8, 8)
    inverse = torch.linalg.inv(_RGB)
    for row in range(8):
        for column in range(8):
            place, phase = (row // 2, column // 2), 2 * (row % 2) + column % 2
            to_rgb[:, row, column, phase, *place] = _RGB[:, 0]
            to_rgb[:, row, column, 4:, *place] = _RGB[:, 1:]
            to_yuv[phase, *place, :, row, column] = inverse[0]
            to_yuv[4:, *place, :, row, column] += inverse[1:] / 4
    return to_rgb.reshape(192, CELL), to_yuv.reshape(CELL, 192)


def _latents() -> Tensor:
    """Which latent of `image/light` each of ours is, int64 [LATENTS]."""
    places = {pair: i for i, pair in enumerate(frequencies(16))}
    chroma = [places[pair] for pair in frequencies(8)]
    low = [*range(192), *(192 + i for i in chroma[:32]), *(224 + i for i in chroma[:32])]
    # The high ones of light: 64 of luma, then those of chroma from the 32nd to the 128th.
    high = [256 + i for i in range(64)]
    high += [320 + min(i - 32, 95) for i in chroma[32:]]
    high += [416 + min(i - 32, 95) for i in chroma[32:]]
    return torch.tensor(low + high)
