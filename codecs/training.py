"""Training of any codec that has trained weights: what a codec brings, and the loop.

A codec brings a `Recipe`, in a module that is named in `RECIPES` and exports it as `RECIPE`: the
model, its loss for a batch, figures to look at, and what is kept of the trained model. The rest is
here and the same for all: mixed precision, several processes, averaged weights, checkpoints, log.

An update takes `batch` samples in parts of equal size: `accumulate` of them, one after another, in
each process. The samples of a part and its random numbers follow from the seed, the number of
the update and that of the part, from nothing else. So weights, optimisers and counts are all that a
run needs to go on bit for bit, and two processes do what one does in two parts.
"""

from __future__ import annotations

import importlib
import inspect
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import xxhash
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .training_config import TrainingConfig
from .training_run import RunFolder, TrainingState
from .weight_files import Weights

# Codec -> the module in this folder that exports its RECIPE.
RECIPES = {
    "image/light": "image.light_training",
    "image/tokens": "image.tokens_training",
    "audio/rvq": "audio.rvq_training",
    "video/lite": "video.lite_training",
}

Figures = dict[str, Tensor]  # name -> mean over the batch, one number


class Recipe(ABC):
    """What a codec brings to its training.

    Its options are parameters of the constructor, with annotations and defaults.

    Attributes:
        name: of the codec.
        defaults: fields of TrainingConfig that this codec wants different.
        signal: what it is trained on, "picture", "sound" or "clip".
        sample_rate: of sounds, in Hz.
        mix: share of the samples that are two sounds at once.
        frames: of clips.
        synthetic: share of the clips that are photographs in motion.
        exclude: what of which film is not used, "NAME:FROM-TO" in seconds, separated by commas.
        multiple: the sides of crops are multiples of it, in samples of the signal.
        shipped: weights that come with the library, by name, to start from.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    signal: ClassVar[str] = "picture"
    sample_rate: int = 0
    mix: float = 0.0
    frames: int = 5
    synthetic: float = 0.3
    exclude: str = ""
    multiple: int = 1
    shipped: ClassVar[Mapping[str, Path]] = {}

    @abstractmethod
    def model(self) -> nn.Module:
        """Make a new model; its random numbers come from torch's global generator."""

    @abstractmethod
    def load(self, weights: Weights) -> nn.Module:
        """Make a model that goes on from frozen weights, for fine-tuning."""

    @abstractmethod
    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """Make the optimisers; the loop scales their learning rates over the steps."""

    def start(self, model: nn.Module, batch: Tensor) -> None:  # noqa: B027  (optional)
        """Fit a new model to the first batch before the first update, without gradients."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Figures]:
        """Return the loss to minimise and figures for the log, e.g. bpp_est and psnr_db.

        Runs under autocast: what needs float32 says so. Random numbers come from torch's global
        generator. The model is in training mode.

        Args:
            model: as `model` or `load` made it.
            batch: what the dataset yields, stacked; of pictures float [B, 3, H, W] in [0, 1],
                of sounds float [B, N] in [-1, 1], of clips uint8 [B, T, 6, H/2, W/2]: of 4:2:0
                the four phases of Y (pixel_unshuffle by 2), U and V.
        """

    @abstractmethod
    def validate(self, model: nn.Module, batch: Tensor) -> Figures:
        """Return figures of held-out samples, without noise; the model is in evaluation mode."""

    def finish(  # noqa: B027  (optional)
        self,
        model: nn.Module,
        samples: Dataset[Tensor],
        step: int,
        progress: Callable[[float], object],
    ) -> None:
        """Learn what needs the finished model, once, from `samples[step, number]`.

        `progress` is called with the share that is done.
        """

    @abstractmethod
    def freeze(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors of a weights file and the configuration that stands beside them."""


def recipe(codec: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """Make the recipe of a codec with its options.

    Raises:
        ValueError: the codec is not trained, has no such option, or not this value of it.
    """
    known = _parameters(codec)
    for name, value in (options or {}).items():
        if name not in known:
            raise ValueError(
                f"{codec} has no training option {name!r}; it has {', '.join(sorted(known))}"
            )
        kind = known[name].annotation
        if not isinstance(value, kind) and not (type(value) is int and isinstance(1.0, kind)):
            raise ValueError(f"{name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
    return _recipe_class(codec)(**(options or {}))


def options_of(codec: str) -> dict[str, Any]:
    """The options of a codec's recipe with their defaults."""
    return {name: parameter.default for name, parameter in _parameters(codec).items()}


def _parameters(codec: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_recipe_class(codec), eval_str=True).parameters


def _recipe_class(codec: str) -> type[Recipe]:
    if codec not in RECIPES:
        raise ValueError(f"codec {codec!r} is not trained; these are: {', '.join(RECIPES)}")
    found: type[Recipe] = importlib.import_module("." + RECIPES[codec], __package__).RECIPE
    return found


def train(
    recipe: Recipe,
    config: TrainingConfig,
    samples: Dataset[Tensor],
    folder: Path,
    *,
    validation: Sequence[Tensor] = (),
    init: Weights | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: Callable[[int, Mapping[str, float]], object] = lambda step, figures: None,
    stop: Callable[[], bool] = lambda: False,
) -> nn.Module:
    """Train a new model, or go on from the checkpoint in `folder`; returns the averaged model.

    Where torch.distributed is set up, all processes call this with the same arguments; the first
    one writes.

    Args:
        recipe: of the codec.
        config: the same from the first step of a run to its last.
        samples: `samples[step, number]` is sample `number` (0 to batch - 1) of an update, the same
            whenever and wherever it is asked for.
        folder: for the log and the checkpoint, see `RunFolder`; all processes must see it.
        validation: batches of held-out samples.
        init: weights to start from; None starts a new model.
        device: where to compute.
        workers: processes that prepare samples; 0 prepares them between the updates.
        progress: called after each update with the number of updates done and the latest figures.
        stop: asked after each update; where it says so, the run is saved and ends early.

    Raises:
        ValueError: the batch can't be shared out, or the checkpoint is of another model.
        RuntimeError: the loss became infinite or NaN.
    """
    parts = Parts(config)
    run = RunFolder(folder, writes=rank() == 0)
    torch.manual_seed(config.seed)
    model = (recipe.load(init) if init else recipe.model()).to(device).train()
    state = TrainingState(model, recipe.optimizers(model, config.lr), config, device)
    fresh = not run.resume(state) and init is None
    batches = parts.batches(samples, state.step, workers, device)
    objective: nn.Module = _Objective(recipe, model)
    if config.compile:
        objective.compile()
    while state.step < config.steps:
        for number in parts.own:
            batch = next(batches).to(device, non_blocking=True)
            torch.manual_seed(_seed(config.seed, state.step, number))
            if fresh:
                _start(recipe, model, batch)
                fresh = False
            with _autocast(config, device):
                loss, figures = objective(batch)
            state.scaler.scale(loss / len(parts.own)).backward()
            state.add({"loss": loss, **figures})
        _average_gradients(model)
        state.update()
        at_end = state.step == config.steps or _anywhere(stop(), device)
        if state.step % config.log_every == 0 or at_end:
            run.log(state.step, _mean(state.figures(), device))
        if validation and (state.step % config.validate_every == 0 or at_end):
            run.log(state.step, _validate(recipe, state, validation, device), "validation/")
        progress(state.step, run.latest)
        if at_end or run.seconds_since_save() > 60 * config.checkpoint_minutes:
            run.save(state)
        if at_end:
            break
    run.close()
    averaged: nn.Module = state.average.module
    return averaged.eval()


class Parts:
    """Which samples of an update are taken together, and by which process."""

    def __init__(self, config: TrainingConfig) -> None:
        """Share the batch out; ValueError where that leaves a rest."""
        self.steps = config.steps
        count = processes() * config.accumulate
        if config.batch % count:
            raise ValueError(
                f"batch {config.batch} is not divisible by {count} ({processes()} processes x "
                f"accumulate {config.accumulate}); choose a multiple"
            )
        self.size = config.batch // count
        self.own = range(rank() * config.accumulate, (rank() + 1) * config.accumulate)

    def batches(
        self, samples: Dataset[Tensor], step: int, workers: int, device: str
    ) -> Iterator[Tensor]:
        """Batches of the parts of this process from an update on."""
        sampler: Any = self._keys(step)
        loader = DataLoader(
            samples,
            batch_sampler=sampler,
            num_workers=workers,
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator(),  # the global one belongs to the model
        )
        return iter(loader)

    def _keys(self, step: int) -> Iterator[list[tuple[int, int]]]:
        for update in range(step, self.steps):
            for part in self.own:
                yield [(update, part * self.size + i) for i in range(self.size)]


class _Objective(nn.Module):
    """The loss as a module: what torch.compile takes."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, batch: Tensor) -> tuple[Tensor, Figures]:
        """See Recipe.loss."""
        return self.recipe.loss(self.model, batch)


@torch.no_grad()
def _start(recipe: Recipe, model: nn.Module, batch: Tensor) -> None:
    """Fit a new model to a batch; all processes take what the first one got."""
    recipe.start(model, batch)
    if processes() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, 0)


def _seed(*numbers: int) -> int:
    return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(numbers)}q", *numbers))


def _autocast(config: TrainingConfig, device: str) -> torch.autocast:
    kind = torch.device(device).type
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    return torch.autocast(kind, dtype, enabled=dtype is not None)


@torch.no_grad()
def _validate(
    recipe: Recipe, state: TrainingState, batches: Sequence[Tensor], device: str
) -> dict[str, float]:
    """Means over the held-out samples, with the averaged weights in float32."""
    averaged: nn.Module = state.average.module
    averaged.eval()
    rows = [recipe.validate(averaged, batch.to(device)) for batch in batches]
    counts = [len(batch) for batch in batches]
    return {
        name: sum(float(row[name]) * n for row, n in zip(rows, counts, strict=True)) / sum(counts)
        for name in rows[0]
    }


def rank() -> int:
    """Number of this process among those that train together, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def _average_gradients(model: nn.Module) -> None:
    """Give all processes the mean gradient, and the mean of what buffers have gathered.

    A parameter that the loss did not use has a gradient of zeros, wherever it runs.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    if processes() == 1:
        return
    tensors = [p.grad for p in trained if p.grad is not None]
    tensors += [b for b in model.buffers() if b.is_floating_point()]
    flat = torch.cat([t.detach().float().flatten() for t in tensors])
    dist.all_reduce(flat)
    flat /= processes()
    for t, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))


def _mean(figures: dict[str, float], device: str) -> dict[str, float]:
    """Means of figures over the processes."""
    if processes() == 1:
        return figures
    values = torch.tensor(list(figures.values()), device=device)
    dist.all_reduce(values)
    return dict(zip(figures, (values / processes()).tolist(), strict=True))


def _anywhere(flag: bool, device: str) -> bool:
    """Whether any process says so."""
    if processes() == 1:
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value)
    return bool(value.item())
