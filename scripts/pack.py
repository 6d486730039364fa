"""latentpack pack model.safetensors [model.lpk] [--mode tight]."""

import time
from pathlib import Path

import click


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, allow_dash=True), help="Same as DST."
)
@click.option("--mode", help="Speed or size: fast, tight (the default) or small.")
@click.option("--threads", type=click.IntRange(1), help="The file is the same for any number.")
@click.option("--verify", is_flag=True, help="Read the new file and compare every bit.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def pack(
    src: Path,
    dst: Path | None,
    output: Path | None,
    mode: str | None,
    threads: int | None,
    verify: bool,
    force: bool,
) -> None:
    """Pack the tensors of a .safetensors file without loss.

    \b
    latentpack pack model.safetensors                  (makes model.lpk)
    latentpack pack model.safetensors small.lpk --mode small --verify
    """
    from . import model_files
    from .model_jobs import byte_bar, report, target_path

    target = target_path(src, dst, output, ".lpk")
    if verify and str(target) == "-":
        raise ValueError("--verify needs a file to read, and - is standard output")
    start = time.perf_counter()
    with byte_bar(f"packing {src.name}") as progress:
        model_files.pack(src, target, mode, threads, force, progress)
    seconds = time.perf_counter() - start
    if verify:
        model_files.verify(src, target)
    report(src, target, seconds, ", verified" if verify else "")


if __name__ == "__main__":
    from latentpack.scripts.main import main

    main("pack")
