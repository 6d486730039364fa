"""latentpack unpack model.lpk [model.safetensors]."""

import time
from pathlib import Path

import click


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, allow_dash=True), help="Same as DST."
)
@click.option("--threads", type=click.IntRange(1), help="More threads, same result.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def unpack(
    src: Path, dst: Path | None, output: Path | None, threads: int | None, force: bool
) -> None:
    """Turn a packed model back into a .safetensors file.

    \b
    latentpack unpack model.lpk                        (makes model.safetensors)
    latentpack unpack model.lpk again.safetensors
    """
    from . import model_files
    from .model_jobs import byte_bar, report, target_path

    target = target_path(src, dst, output, ".safetensors")
    start = time.perf_counter()
    with byte_bar(f"unpacking {src.name}") as progress:
        model_files.unpack(src, target, threads, force, progress)
    report(src, target, time.perf_counter() - start)


if __name__ == "__main__":
    from latentpack.scripts.main import main

    main("unpack")
