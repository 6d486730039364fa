"""What a training run depends on besides its samples and the codec's own options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingConfig:
    """The numbers of a run.

    The learning rate warms up over the first `warmup` of the steps, stays, and falls linearly to
    zero over the last `decay` of them.

    Attributes:
        steps: updates in all.
        batch: samples to an update, over all processes.
        accumulate: parts in which a process takes its share, for batches larger than memory.
        crop: side of a sample, in the signal's own unit.
        lr: learning rate at its height.
        warmup: share of the steps.
        decay: share of the steps.
        ema: factor of the running average of the weights, which is what is kept in the end; the
            average is over fewer steps at the start.
        clip: largest norm of a gradient.
        seed: of everything that is random.
        precision: "fp32", or "bf16" or "fp16" for autocast.
        compile: whether the loss goes through torch.compile.
        log_every: updates between lines of the log.
        validate_every: updates between looks at the held-out samples.
        checkpoint_minutes: between checkpoints.
    """

    steps: int = 16_000
    batch: int = 16
    accumulate: int = 1
    crop: int = 128
    lr: float = 1e-3
    warmup: float = 0.02
    decay: float = 0.4
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 1
    precision: str = "fp32"
    compile: bool = False
    log_every: int = 20
    validate_every: int = 500
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        """Raise ValueError for what no run can have."""
        for field in dataclasses.fields(self):
            self._check(field.name, getattr(self, field.name), type(field.default))
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )

    def _check(self, name: str, value: Any, kind: type) -> None:
        right = isinstance(value, (int, float) if kind is float else kind)
        if not right or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} is {value!r}, expected {kind.__name__}")
        if kind is int and name != "seed" and value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
        low, high = _RANGES.get(name, (None, None))
        if low is not None and not (low <= value <= high):
            raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")

    def rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by in the update after `step` others."""
        warm = (step + 1) / max(1.0, self.warmup * self.steps)
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, warm) * min(1.0, left)


_RANGES = {
    "lr": (0.0, 10.0),
    "warmup": (0.0, 1.0),
    "decay": (0.0, 1.0),
    "ema": (0.0, 1.0),
    "clip": (0.0, float("inf")),
    "checkpoint_minutes": (0.0, float("inf")),
    "seed": (0, 2**62),
}
