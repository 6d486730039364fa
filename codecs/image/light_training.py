"""Training of `image/light`: R + lmbda * D (D = 255^2 MSE) at all rates in one model."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...entropy.models.gaussian import MIN_SCALE, ROWS, STEP
from .light_model import LATENTS, LEVELS, LightModel, S, Size, interpolate, lmbda_of


@dataclass(frozen=True)
class TrainingConfig:
    """All that a run depends on besides the pictures.

    The learning rate warms up over 2 % of the steps, stays, and falls linearly to zero over the
    last `decay` of them.
    """

    size: Size = S
    steps: int = 16_000
    batch: int = 16
    crop: int = 128
    lr: float = 1e-3
    decay: float = 0.4
    ema: float = 0.999
    balance: float = 0.4  # a picture's loss is weighted by lmbda ** -balance
    seed: int = 1
    checkpoint_seconds: float = 180.0


def train(
    config: TrainingConfig,
    batches: Iterator[Tensor],
    folder: Path,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda step: None,
) -> LightModel:
    """Train from scratch, or go on from the checkpoint in `folder`; returns the averaged model.

    Writes `config.json`, `log.jsonl` (a line per 50 steps) and `checkpoint.pt` into `folder`.
    `batches` yields float [B, 3, H, W] in [0, 1]; after a restart it should begin differently.
    `progress` is called with the number of steps that are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1))
    torch.manual_seed(config.seed)
    model = LightModel(config.size).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))  # type: ignore[no-untyped-call]
    optimizers = _optimizers(model, config)
    step = _resume(folder / "checkpoint.pt", model, average, optimizers)
    if step == 0:
        start_rows(model, next(batches).to(device))
    log = (folder / "log.jsonl").open("a")
    saved, sums = time.monotonic(), torch.zeros(3)
    while step < config.steps:
        _schedule(optimizers, config, step)
        sums += _step(model, next(batches).to(device), optimizers, config)
        average.update_parameters(model)
        step += 1
        progress(step)
        if step % 50 == 0:
            loss, bpp, psnr = (sums / 50).tolist()
            row = {"step": step, "loss": loss, "bpp_est": bpp, "psnr_db": psnr, "time": time.time()}
            print(json.dumps(row), file=log, flush=True)
            sums.zero_()
        if step == config.steps or time.monotonic() - saved > config.checkpoint_seconds:
            _save(folder / "checkpoint.pt", step, model, average, optimizers)
            saved = time.monotonic()
    assert isinstance(average.module, LightModel)
    return average.module


def _step(
    model: LightModel, x: Tensor, optimizers: list[torch.optim.Optimizer], config: TrainingConfig
) -> Tensor:
    """One update; returns the loss, the estimated bpp and the PSNR in dB of the batch."""
    t = torch.rand(len(x), device=x.device) * (LEVELS - 1)
    lmbda = lmbda_of(t)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        x_hat, bits = model.train()(x, t)
    mse = (x - x_hat).square().mean((1, 2, 3))
    bpp = bits / (x.shape[2] * x.shape[3])
    loss = ((bpp + lmbda * 255**2 * mse) * (lmbda / 0.01) ** -config.balance).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    psnr = -10 * mse.detach().log10().mean()
    return torch.stack((loss.detach(), bpp.detach().mean(), psnr)).cpu()


def _optimizers(model: LightModel, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions' matrices, Adam for tables of rows, other tables, and the rest."""
    named = dict(model.named_parameters())
    matrices = [n for n in named if n.endswith(".weight")]
    rows = ["h_s.offset", "z_row"]
    tables = [n for n in named if named[n].shape[0] == LEVELS and n not in rows]
    others = named.keys() - {*matrices, *rows, *tables}
    lr = config.lr
    groups = ((rows, 10 * lr), (tables, lr), (sorted(others), lr / 4))
    return [
        torch.optim.Muon(
            [named[n] for n in matrices], lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.Adam(
            [{"params": [named[n] for n in names], "lr": rate} for names, rate in groups],
            betas=(0.9, 0.99),
        ),
    ]


def _schedule(optimizers: list[torch.optim.Optimizer], config: TrainingConfig, step: int) -> None:
    warm = min(1.0, (step + 1) / (0.02 * config.steps))
    left = min(1.0, (config.steps - step) / (config.decay * config.steps))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * warm * left


@torch.no_grad()
def start_rows(model: LightModel, x: Tensor) -> None:
    """Start each level's table rows at the scales that a batch really has."""
    for level in range(LEVELS):
        t = torch.full((len(x),), float(level), device=x.device)
        y = model.g_a(x - 0.5, t) * interpolate(model.log_gain, t).exp()
        scale = y.transpose(0, 1).reshape(LATENTS, -1).abs().mean(1) * math.sqrt(math.pi / 2)
        row = torch.log(scale.clamp_min(MIN_SCALE) / MIN_SCALE) / STEP
        model.h_s.offset[level] = row.clamp(0, ROWS - 1)


def _save(
    path: Path,
    step: int,
    model: nn.Module,
    average: nn.Module,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "rng": torch.get_rng_state(),
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _resume(
    path: Path, model: nn.Module, average: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["rng"])
    return int(state["step"])
