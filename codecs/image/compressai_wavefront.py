"""Autoregressive context of CompressAI models, all positions of an anti-diagonal in one step.

The masked k x k convolution of a position sees p = k // 2 rows above, p columns to both sides, and
p positions before it (Minnen et al., "Joint Autoregressive and Hierarchical Priors for Learned
Image Compression", NeurIPS 2018). So all positions with the same

    t = column + (p + 1) row

see only positions of smaller t, and W + (p + 1) (H - 1) steps do what takes W H steps in raster
order. Encoder and decoder run the same products of the same shapes, in the same order, on memory
that is laid out alike: what they compute is equal bit for bit on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import MaskedConv2d
from torch import Tensor, nn

from .compressai_session import Scales, Session

_POINTWISE = (nn.LeakyReLU, nn.ReLU, nn.GELU, nn.SiLU, nn.Identity)


class Wavefront:
    """The context of one masked convolution and the 1 x 1 layers behind it."""

    def __init__(self, context: Any, parameters: Any, scales: Scales) -> None:
        """Take the layers of a model.

        Args:
            context: `MaskedConv2d` of mask type A, [M] -> [C].
            parameters: 1 x 1 convolutions and activations, [P + C] -> scales and means [2 M].
            scales: of the Gaussian conditional.

        Raises:
            ValueError: the layers are of other kinds.
        """
        layers = list(parameters)
        plain = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        if not all(_is_1x1(x) if x in plain else isinstance(x, _POINTWISE) for x in layers):
            raise ValueError("entropy parameters of other layers than 1x1 convolutions")
        if not _is_causal(context) or layers[:1] != plain[:1]:
            raise ValueError("a context that is no masked convolution before a 1x1 convolution")
        self.reach = context.kernel_size[0] // 2
        self.channels = context.in_channels
        self._scales = scales
        weight = context.weight.permute(2, 3, 1, 0).flatten(0, 1)  # [k k, M, C]
        self._seen = weight[: len(weight) // 2].flatten(0, 1).contiguous()
        self._bias = context.bias
        first = plain[0].weight[:, :, 0, 0]
        side = first.shape[1] - context.out_channels
        self._side = first[:, :side].t().contiguous()
        self._first = first[:, side:].t().contiguous()
        self._first_bias: Tensor = plain[0].bias  # type: ignore[assignment]  # see _is_1x1
        self._layers = [_as_product(layer) for layer in layers[1:]]

    def run(self, session: Session, params: Tensor, y: Tensor | None) -> Tensor:
        """Code latents, or read them.

        Args:
            session: where symbols go or come from.
            params: what the hyperprior says, [1, P, H, W].
            y: latents [1, M, H, W] to code; None to read.

        Returns:
            y_hat [1, M, H, W].
        """
        height, width = params.shape[2:]
        p, m = self.reach, self.channels
        side = params[0].permute(1, 2, 0).reshape(height * width, -1) @ self._side
        side = (side + self._first_bias).view(height, width, -1)
        given = None if y is None else y[0].permute(1, 2, 0).contiguous()
        y_hat = torch.zeros(height + p, width + 2 * p, m)  # with the border that contexts see
        for top, left, count in _diagonals(height, width, p + 1):
            seen = [_slant(y_hat, top + i, left, count, p, 2 * p + 1) for i in range(p)]
            seen.append(_slant(y_hat, top + p, left, count, p, p))
            context = torch.addmm(self._bias, torch.cat(seen, 1), self._seen)
            x = torch.addmm(_slant(side, top, left, count, p), context, self._first)
            for layer in self._layers:
                x = layer(x)
            steps = self._scales.steps(x[:, :m])
            means = x[:, m:]
            session.note(steps)
            old = None if given is None else quantise(_slant(given, top, left, count, p), means)
            symbols = session.code(steps, old, self._scales)
            _slant(y_hat, top + p, left + p, count, p).copy_(symbols + means)
        session.seal()
        return y_hat[p:, p : p + width].permute(2, 0, 1)[None].contiguous()


def quantise(y: Tensor, means: Tensor | float) -> Tensor:
    """Rounded y - means, int16, in the layout that the decoder's symbols have.

    Raises:
        ValueError: a latent is not finite, or so far from its mean that no escape reaches it.
    """
    symbols = (y - means).round_()
    low, high = (bound.item() for bound in symbols.aminmax())
    if not (low >= -32768 and high <= 32767):
        raise ValueError(
            f"latents minus their means reach from {low:.0f} to {high:.0f}, legal are -32768 to "
            "32767; the weights or the picture are damaged"
        )
    return symbols.to(torch.int16).reshape(-1).view(y.shape)


def _diagonals(height: int, width: int, slope: int) -> Iterator[tuple[int, int, int]]:
    """Top row, its column, and the count of positions of each step."""
    for t in range(width + slope * (height - 1)):
        top = max(0, -(-(t - width + 1) // slope))
        yield top, t - slope * top, min(height - 1, t // slope) - top + 1


def _slant(grid: Tensor, top: int, left: int, count: int, reach: int, places: int = 1) -> Tensor:
    """A view [count, places * C] of a contiguous grid [H, W, C].

    Row i is `places` neighbours from (top + i, left - (reach + 1) i) on.
    """
    width, channels = grid.shape[1:]
    step = max(0, width - reach - 1) * channels  # narrower grids have one row to a diagonal
    start = grid.storage_offset() + (top * width + left) * channels
    return grid.as_strided((count, places * channels), (step, 1), start)


def _is_1x1(layer: nn.Conv2d) -> bool:
    plain = layer.stride == (1, 1) and layer.groups == 1 and layer.bias is not None
    return plain and layer.kernel_size == (1, 1)


def _is_causal(context: Any) -> bool:
    if type(context) is not MaskedConv2d or context.bias is None or context.groups != 1:
        return False
    k = context.kernel_size[0]
    mask = context.mask.flatten(2)
    causal = not mask[:, :, k * k // 2 :].any()
    return causal and context.kernel_size == (k, k) and k % 2 == 1 and context.stride == (1, 1)


def _as_product(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """A pointwise layer on [n, C]."""
    if not isinstance(layer, nn.Conv2d):
        return layer
    weight, bias = layer.weight[:, :, 0, 0].contiguous(), layer.bias
    return lambda x: F.linear(x, weight, bias)
