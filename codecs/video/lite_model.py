"""The networks of `video/lite` over a clip: one frame that stands alone, then those that follow.

A frame that stands alone is coded as `lite_intra.py` says, one that follows as `lite_inter.py`
says, from the last decoded frame moved by a field of block vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..image.light_model import LEVELS
from .lite_inter import Decoded, InterModel, after_intra
from .lite_intra import IntraModel

Search = Callable[[Tensor, Tensor, Tensor], Tensor]
TOP = float(LEVELS - 1)
INTRA_STEP = 1.8  # levels that the first frame lies above the others, which are made from it


class LiteModel(nn.Module):
    """All networks in their training form."""

    def __init__(self, intra: IntraModel | None = None) -> None:
        """Make a model, with new networks unless there are some for frames that stand alone."""
        super().__init__()
        self.intra = intra or IntraModel()
        self.inter = InterModel()

    def forward(
        self, clip: Tensor, t: Tensor, search: Search, reach: int = 4
    ) -> tuple[Tensor, Tensor]:
        """One training pass over a clip.

        Args:
            clip: [B, T, 6, h, w] in [0, 1], h and w multiples of 16.
            t: rate positions [B] in [0, LEVELS - 1]; the first frame's lies INTRA_STEP above.
            search: finds the field [B, h/4, w/4, 2] of a frame from the one decoded before.
            reach: gradients pass through so many frames.

        Returns:
            Decoded frames [B, T, 6, h, w] and estimated bits [B, T] without those of fields.
        """
        with torch.set_grad_enabled(self.training and self.trains_intra):
            x_hat, bits = self.intra(clip[:, 0], (t + INTRA_STEP).clamp(max=TOP))
        state = after_intra(x_hat.detach().float().clamp(0, 1))
        decoded, spent = [x_hat], [bits]
        for i in range(1, clip.shape[1]):
            if i % reach == 1:
                state = Decoded(*(part.detach() for part in state))
            vectors = search(clip[:, i], state.x_hat.detach(), t)
            state, bits = self.inter(clip[:, i], state, vectors, t)
            state = state._replace(x_hat=state.x_hat.clamp(0, 1))
            decoded.append(state.x_hat)
            spent.append(bits)
        return torch.stack(decoded, 1), torch.stack(spent, 1)

    @property
    def trains_intra(self) -> bool:
        """Whether the networks of frames that stand alone are trained."""
        return next(self.intra.parameters()).requires_grad


def luma(x: Tensor) -> Tensor:
    """The luma of [B, 6, h, w] as uint8 [B, H, W]: what fields are searched in."""
    full = F.pixel_shuffle(x[:, :4], 2)[:, 0]
    return (full * 255).round().clamp(0, 255).to(torch.uint8)
