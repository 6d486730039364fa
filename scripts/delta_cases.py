"""Models before and after: real checkpoints, a small real training, and simulated steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .kv_cases import load_model, text

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
State = dict[str, torch.Tensor]
SEQUENCES, LENGTH = 4, 256  # of a step of the training


class Pair(NamedTuple):
    """A model and what it was before."""

    name: str
    new: State
    base: State


@dataclass(frozen=True)
class Moment:
    """A training after a step: weights, and what the optimiser holds, all float32."""

    weights: State
    gradients: State
    m: State
    v: State


def checkpoints() -> Iterator[Pair]:
    """Two steps of the training of gutenberg3M that follow each other, bfloat16."""
    from safetensors.torch import load_file

    paths = [WEIGHTS / "gutenberg3M" / f"ckpt_step{i}.bf16.safetensors" for i in (878, 879)]
    if not all(path.is_file() for path in paths):
        print(f"no checkpoints: {paths[0]} is not there, its rows are skipped", file=sys.stderr)
        return
    yield Pair("gutenberg3M step 878 to 879", load_file(paths[1]), load_file(paths[0]))


def trained(rate: float, steps: int) -> Iterator[Moment]:
    """Fine-tune gutenberg3M on text it has not seen: Adam (0.9, 0.999), weights in float32.

    The batches are 4 sequences of 256 tokens; the rate is constant. Yields the last two steps.
    """
    torch.manual_seed(0)
    model: Any = load_model(torch.float32)
    if model is None:
        return
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = text(steps * SEQUENCES * LENGTH).view(steps, SEQUENCES, LENGTH)
    for i, batch in enumerate(batches):
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        if i >= steps - 2:
            yield _moment(model, optimizer)


def _moment(model: Any, optimizer: torch.optim.Optimizer) -> Moment:
    named = dict(model.named_parameters())

    def state(name: str) -> State:
        return {key: optimizer.state[p][name].clone() for key, p in named.items()}

    weights = {key: p.detach().clone() for key, p in named.items()}
    gradients = {key: p.grad.clone() for key, p in named.items()}
    return Moment(weights, gradients, state("exp_avg"), state("exp_avg_sq"))


def rounded(state: State, dtype: torch.dtype) -> State:
    """Weights as they are sent or stored."""
    return {name: x.to(dtype) for name, x in state.items()}


def steps(count: int) -> Iterator[Pair]:
    """Steps of a real training, by learning rate and the dtype that the weights are stored in."""
    for rate in (1e-6, 1e-5):
        moments = list(trained(rate, count))
        if len(moments) < 2:
            return
        old, new = (moment.weights for moment in moments)
        for dtype in (torch.bfloat16, torch.float32):
            name = f"Adam step, rate {rate:g} {str(dtype)[6:]}"
            yield Pair(name, rounded(new, dtype), rounded(old, dtype))


def simulated(elements: int) -> Iterator[Pair]:
    """Weights N(0, 0.02) and a normal step of three sizes, bfloat16."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(elements, generator=generator) * 0.02
    for size in (1e-7, 1e-6, 5e-6):
        moved = x + size * torch.randn(elements, generator=generator)
        yield Pair(f"simulated {size:g}", {"w": moved.bfloat16()}, {"w": x.bfloat16()})


def fine_tuned() -> Iterator[Pair]:
    """A published model and its fine-tune: every weight moved far, float32."""
    paths = [WEIGHTS / "textgenrnn" / n for n in ("hacker_news.hdf5", "textgenrnn_weights.hdf5")]
    if not all(path.is_file() for path in paths):
        print(f"no fine-tune: {paths[0]} is not there, its rows are skipped", file=sys.stderr)
        return
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        print("h5py is not installed: the fine-tune is skipped", file=sys.stderr)
        return

    def read(path: Path) -> State:
        found: State = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = torch.from_numpy(item[()])

        with h5py.File(path) as file:
            file.visititems(visit)
        return found

    yield Pair("textgenrnn to hacker_news float32", read(paths[0]), read(paths[1]))
