"""Command line: latentpack train image/light --data photos/ --out runs/light."""

import errno
import importlib.util
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from latentpack.codecs.output import create
from latentpack.codecs.training_config import TrainingConfig
from latentpack.scripts.main import main

_LINE_SECONDS = 20.0  # between lines about progress where there is no terminal


def _setting(ctx: Any, param: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE ... -> {name: value}; a value that is no JSON is a string."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _number(flag: str, text: str) -> Callable[[Any], Any]:
    """An option for a number of TrainingConfig; None where it is not given."""
    default = getattr(TrainingConfig, flag.removeprefix("--").replace("-", "_"))
    return click.option(flag, type=type(default), help=f"{text}  [{default}]")


@click.command()
@click.argument("codec")
@click.option("--data", multiple=True, metavar="DIR", help="Folder to train on; may be repeated.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@_number("--steps", "Updates in all.")
@_number("--batch", "Samples to an update, over all processes.")
@_number("--crop", "Side of a sample in pixels, or samples of a sound.")
@_number("--lr", "Learning rate at its height.")
@_number("--seed", "Of weights, order and noise.")
@click.option("--size", help="Size of the codec: s for CPUs, m for GPUs.  [s]")
@click.option("--set", "options", multiple=True, callback=_setting, metavar="NAME=VALUE",
              help="Another option of the codec's recipe; may be repeated.")  # fmt: skip
@click.option(
    "--init",
    metavar="WEIGHTS",
    help="Fine-tune: start from a weights file, or shipped weights by name (mse).",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path, exists=True),
              help="config.json of a run, or your own; flags override it.")  # fmt: skip
@click.option("--validation", metavar="DIR|SHARE", help="Held-out files.  [0.05]")
@_number("--validate-every", "Steps between looks at the held-out pictures.")
@_number("--checkpoint-minutes", "Time between checkpoints.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]),
              help="[bf16 where the device is fast in it, else fp32]")  # fmt: skip
@_number("--accumulate", "Parts of a batch, one after another, where memory is short.")
@click.option("--compile/--no-compile", default=None, help="Use torch.compile.")
@click.option("--device", help="cpu, cuda, cuda:1 ...  [a GPU if there is one]")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
              help="Processes that read files.")  # fmt: skip
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE.lpkw",
              help="Where the weights shall go besides the run's folder.")  # fmt: skip
@click.option("-f", "--force", is_flag=True, help="Overwrite the file of --export.")
def train(
    codec: str,
    data: tuple[str, ...],
    out: Path,
    options: dict[str, Any],
    size: str | None,
    config_file: Path | None,
    device: str | None,
    workers: int,
    export: Path | None,
    force: bool,
    **given: Any,
) -> None:
    """Train a codec on your own files and write its weights.

    \b
    latentpack train image/light --data photos/ --out runs/light --export my.lpkw
    latentpack encode photo.png --weights my.lpkw
    latentpack decode photo.lpk --weights my.lpkw

    The folder of the run gets config.json (all settings, also printed), log.jsonl and TensorBoard
    events (loss, bpp and PSNR, also of held-out pictures), checkpoint.pt every few minutes, and at
    the end weights.lpkw.

    A run that was stopped, by Ctrl-C or a power cut, goes on when the same command is given again,
    or just --out; on one CPU thread the weights come out the same, bit for bit. --steps may grow.

    \b
    latentpack train image/light --out runs/light                        go on
    latentpack train audio/rvq --data speech/ --out runs/speech          sounds
    latentpack train image/light --data scans/ --out runs/scans \\
        --init mse --steps 2000 --lr 0.0003                              fine-tune
    latentpack train image/light --config runs/light/config.json \\
        --seed 2 --out runs/again                                        the same, but
    torchrun --nproc-per-node 2 -m latentpack.scripts.train image/light \\
        --data photos/ --out runs/light                                  on 2 GPUs
    tensorboard --logdir runs/                                           to look at it

    Defaults in brackets; a codec may have others: what holds is printed at the start. Pictures of
    any kind and size are taken, grey and 16-bit ones too, and decoded when they are needed; what
    can't be read, or is smaller than a crop, is named and left out. Sounds of any format, rate and
    channels are mixed down to one channel at the codec's rate. Films are made smaller; pictures
    beside them are set in motion.
    """
    from latentpack.codecs import training
    from latentpack.codecs.weight_files import read
    from latentpack.scripts import training_setup as setup

    if export is not None and export.exists() and not force:
        raise FileExistsError(errno.EEXIST, "exists", str(export))
    device = device or setup.default_device()
    given |= {"data": list(data) or None, "options": options | ({"size": size} if size else {})}
    with setup.process_group(device), _stop_on_signals() as stopped:
        first = training.rank() == 0
        run = setup.configure(codec, out, config_file, given, device)
        samples, held, counts = setup.open_data(run, workers, _note if first else _silent)
        recipe = run.make_recipe()
        init = read(recipe.shipped.get(run.init, run.init), codec) if run.init else None
        if first:
            _announce(run.to_dict(), counts, out)
        with _progress(codec, run.config.steps, first) as progress:
            model = training.train(
                recipe,
                run.config,
                samples,
                out,
                validation=held,
                init=init,
                device=device,
                workers=workers,
                progress=progress,
                stop=stopped,
            )
        if stopped():
            if first:
                _note(f"stopped; `latentpack train {codec} --out {out}` goes on")
            raise KeyboardInterrupt
        if first:
            with _progress(f"end of {codec}", 100, True) as percent:
                recipe.finish(
                    model.cpu(),
                    samples,
                    run.config.steps,
                    lambda share: percent(int(100 * share), {}),
                )
            for path in [out / "weights.lpkw", *([export] if export else [])]:
                _write(path, recipe, model, run.to_dict() | counts)


def _note(text: str) -> None:
    click.echo(f"latentpack: note: {text}", err=True)


def _silent(text: str) -> None:
    """The first process has said it."""


def _announce(settings: Mapping[str, Any], counts: Mapping[str, Any], out: Path) -> None:
    """Print and save the configuration."""
    text = json.dumps(settings, indent=1)
    click.echo(text)
    out.mkdir(parents=True, exist_ok=True)
    with create(out / "config.json", force=True) as file:
        file.write(text.encode() + b"\n")
    click.echo(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))
    if not counts["held_out"]:
        _note("nothing is held out to validate on; --validation names a folder or a share")
    if importlib.util.find_spec("tensorboard") is None:
        _note("log.jsonl has all figures; pip install 'latentpack[train]' for TensorBoard's events")


def _write(path: Path, recipe: Any, model: Any, training: Mapping[str, Any]) -> None:
    """Write the weights with what they were made of."""
    import latentpack
    from latentpack.codecs import weight_files

    tensors, config = recipe.freeze(model.cpu())
    about = {**training, "data": [Path(folder).name for folder in training["data"]]}
    about |= {"latentpack": latentpack.__version__}
    digest = weight_files.write(path, recipe.name, tensors, config, about, force=True)
    click.echo(f"wrote {path}: weights {digest.hex()}, {path.stat().st_size:,} bytes")


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether an interrupt has come; a second one ends the process at once."""
    seen: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, remember) for number in numbers]
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _progress(codec: str, steps: int, shown: bool) -> Iterator[Callable[..., None]]:
    """A bar with the latest figures on a terminal, a line now and then elsewhere."""
    import sys
    import time

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    if not shown:
        yield lambda step, figures: None
    elif sys.stderr.isatty():
        columns = (
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(codec, total=steps, figures="")
            yield lambda step, figures: bar.update(task, completed=step, figures=_line(figures))
    else:
        told = [time.monotonic()]

        def tell(step: int, figures: Mapping[str, float]) -> None:
            if step == steps or time.monotonic() - told[0] > _LINE_SECONDS:
                told[0] = time.monotonic()
                click.echo(f"step {step} of {steps}: {_line(figures)}", err=True)

        yield tell


def _line(figures: Mapping[str, float]) -> str:
    """What to show beside the bar: training figures without the gradient's norm."""
    shown = {n: v for n, v in figures.items() if "/" not in n and n != "gradient"}
    if "validation/loss" in figures:
        shown["held-out loss"] = figures["validation/loss"]
    return "  ".join(f"{name} {value:.3f}" for name, value in shown.items())


if __name__ == "__main__":
    main("train")
