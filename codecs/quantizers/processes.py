"""What quantizers need of torch.distributed; without it each function does the obvious."""

import torch.distributed as dist
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total(x: Tensor) -> Tensor:
    """The sum over all processes."""
    if _several():
        x = x.contiguous()
        dist.all_reduce(x)
    return x


def from_first(x: Tensor) -> Tensor:
    """The tensor of the first process, on all of them."""
    if _several():
        x = x.contiguous()
        dist.broadcast(x, 0)
    return x


def mean_count(count: int) -> float:
    """Vectors of all processes together, if each has about so many."""
    return float(count * (dist.get_world_size() if _several() else 1))
