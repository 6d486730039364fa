"""latentpack train image/light --data photos/ --out runs/light."""

from pathlib import Path

import click


@click.command()
@click.argument("codec", type=click.Choice(["image/light"]))
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of pictures; may be given more than once.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the run: config, log, checkpoint, weights. A run found there goes on.",
)
@click.option("--steps", default=16_000, show_default=True, help="Updates in all.")
@click.option("--batch", default=16, show_default=True, help="Crops to an update.")
@click.option(
    "--crop", default=128, show_default=True, help="Side of a crop in pixels, a multiple of 32."
)
@click.option("--seed", default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def train(
    codec: str,
    data: tuple[Path, ...],
    out: Path,
    steps: int,
    batch: int,
    crop: int,
    seed: int,
    device: str,
) -> None:
    """Train a codec on your own pictures and write its weights file.

    \b
    latentpack train image/light --data photos/ --out runs/light --steps 20000
    latentpack encode photo.png -o photo.lpk --weights runs/light/weights.safetensors
    """
    from rich.progress import MofNCompleteColumn, Progress

    from ..codecs.image.light_frozen import freeze
    from ..codecs.image.light_training import TrainingConfig
    from ..codecs.image.light_training import train as run
    from ..datasets.crops import crops, load_pictures

    if crop % 32 or crop < 32 or batch < 1 or steps < 1:
        raise ValueError(
            f"crop {crop} must be a multiple of 32, batch {batch} and steps {steps} at least 1"
        )
    config = TrainingConfig(steps=steps, batch=batch, crop=crop, seed=seed)
    log = out / "log.jsonl"
    started = len(log.read_text().splitlines()) if log.exists() else 0
    batches = crops(load_pictures(list(data)), batch, crop, seed + started)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as bar:
        task = bar.add_task(codec, total=steps)
        model = run(config, batches, out, device, lambda step: bar.update(task, completed=step))
    (out / "weights.safetensors").write_bytes(freeze(model))
    click.echo(f"wrote {out / 'weights.safetensors'}")


if __name__ == "__main__":
    train()
