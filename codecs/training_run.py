"""The state of a training run, and the folder that keeps it: log, events, checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from .output import create
from .training_config import TrainingConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


class TrainingState:
    """All that changes during a run.

    Attributes:
        step: updates that are done.
        model: what is trained.
        average: running average of its weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        config: TrainingConfig,
        device: str,
    ) -> None:
        """Start a run."""
        self.step = 0
        self.model, self._optimizers, self._config, self.device = model, optimizers, config, device
        self.average = AveragedModel(model, multi_avg_fn=_averaging(config.ema))
        kind = torch.device(device).type
        self.scaler = GradScaler(kind, enabled=config.precision == "fp16")
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["full_lr"] = group["lr"]

    def update(self) -> None:
        """Step all optimisers along the gradients that are there."""
        factor = self._config.rate_factor(self.step)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * factor
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip)
        for optimizer in self._optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad()
        self.scaler.update()
        self.average.update_parameters(self.model)
        self.step += 1
        # The scaler leaves out updates with infinite gradients, and tries smaller scales.
        self.add({"gradient": norm.nan_to_num(0, 0, 0) if self.scaler.is_enabled() else norm})

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Count figures; nothing waits for the device."""
        for name, value in figures.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def figures(self) -> dict[str, float]:
        """Means of what was counted since the last call.

        Raises:
            RuntimeError: one is infinite or NaN.
        """
        means = self._means()
        self._sums, self._counts = {}, {}
        return means

    def _means(self) -> dict[str, float]:
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise RuntimeError(
                    f"{name} is {value} at step {self.step}; go on from the last checkpoint "
                    "with fp32, or start again with a smaller learning rate"
                )
        return means

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint; RuntimeError where the run has gone wrong."""
        self._means()
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "scaler": self.scaler.state_dict(),
            "sums": self._sums,
            "counts": self._counts,
        }

    def load_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.scaler.load_state_dict(saved["scaler"])
        self._sums, self._counts, self.step = saved["sums"], saved["counts"], saved["step"]


def _averaging(ema: float) -> Any:
    """The average of AveragedModel: over the last tenth of few steps, over 1 / (1 - ema) of many.

    With a fixed factor the random start would make up most of a short run's average.
    """

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        factor = min(ema, (1 + int(count)) / (10 + int(count)))
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value.to(average), 1 - factor)

    return update


class RunFolder:
    """A folder with `log.jsonl`, `checkpoint.pt` and TensorBoard's events.

    Attributes:
        latest: the newest figures, those of the held-out samples as "validation/...".
        has_events: whether TensorBoard is installed and gets its events.
    """

    def __init__(self, folder: Path, writes: bool) -> None:
        """Open or make the folder; without `writes` nothing is written."""
        self.latest: dict[str, float] = {}
        self._folder, self._writes = folder, writes
        self._log: Any = None
        self._events: Any = None
        self._saved = self._began = time.monotonic()
        self._seconds = 0.0  # of training in earlier sittings
        if writes:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint is, or will be."""
        return self._folder / "checkpoint.pt"

    def resume(self, state: TrainingState) -> bool:
        """Load the checkpoint if there is one; what was logged after it is forgotten."""
        found = self.checkpoint.exists()
        if found:
            try:
                saved = torch.load(self.checkpoint, map_location=state.device, weights_only=True)
                state.load_dict(saved)
            except Exception as error:  # pickle, zip and shapes fail in many ways
                raise ValueError(
                    f"{self.checkpoint} is damaged or of another model; remove it to start again "
                    f"({str(error).splitlines()[0]})"
                ) from error
            self._seconds, self.latest = saved["seconds"], saved["latest"]
        if self._writes:
            for left in self._folder.glob(".latentpack-*.tmp"):  # a checkpoint that was cut short
                left.unlink()
            self._open_log(state.step)
        return found

    def _open_log(self, step: int) -> None:
        path = self._folder / "log.jsonl"
        kept: Sequence[str] = []
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
        with create(path, force=True) as file:
            file.write("".join(line + "\n" for line in kept).encode())
        self._log = path.open("a")
        self._events = _event_writer(self._folder, step)

    @property
    def has_events(self) -> bool:
        """Whether TensorBoard's events are written."""
        return self._events is not None

    def log(self, step: int, figures: Mapping[str, float], prefix: str = "") -> None:
        """Write a line of the log, and events."""
        named = {prefix + name: value for name, value in figures.items()}
        self.latest |= named
        if not self._writes:
            return
        row = {"step": step, **named, "seconds": round(self._elapsed(), 2)}
        print(json.dumps(row), file=self._log, flush=True)
        if self._events is not None:
            for name, value in named.items():
                name = name if prefix else "training/" + name
                self._events.add_scalar(name, value, step)

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began

    def seconds_since_save(self) -> float:
        """Time since the last checkpoint, or the start."""
        return time.monotonic() - self._saved

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, which takes its name when it is complete."""
        self._saved = time.monotonic()
        saved = state.to_dict()
        if self._writes:
            saved |= {"seconds": self._elapsed(), "latest": self.latest}
            with create(self.checkpoint, force=True) as file:
                torch.save(saved, file)

    def close(self) -> None:
        """Finish the log."""
        if self._log is not None:
            self._log.close()
        if self._events is not None:
            self._events.close()


def _step_of(line: str) -> float:
    """The step of a line of the log; a line that was cut when the power failed has none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _event_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
