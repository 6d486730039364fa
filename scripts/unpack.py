"""latentpack unpack model.lpk [model.safetensors]."""

import time
from pathlib import Path

import click

EXIT_LOST = 1  # something was written, something was lost


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, allow_dash=True), help="Same as DST."
)
@click.option(
    "--base",
    "bases",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="The model that a delta was made from, or a folder to look in; may be repeated.",
)
@click.option("--threads", type=click.IntRange(1), help="More threads, same result.")
@click.option(
    "--keep-going", is_flag=True, help="Leave out tensors that are damaged, and name them."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def unpack(
    src: Path,
    dst: Path | None,
    output: Path | None,
    bases: tuple[Path, ...],
    threads: int | None,
    keep_going: bool,
    force: bool,
) -> None:
    """Turn a packed model back into the file or folder that it was.

    The exit code is 0 when all is there, 1 when --keep-going left something out, 2 when nothing
    was written.

    \b
    latentpack unpack model.lpk                        (makes model.safetensors)
    latentpack unpack model.lpk again.safetensors
    latentpack unpack model-packed/ model/
    latentpack unpack damaged.lpk --keep-going
    latentpack unpack step2.lpk --base step1.lpk --base step0.safetensors
    latentpack unpack step9.lpk --base checkpoints/
    """
    from . import model_bases, model_files, model_folders
    from .model_jobs import byte_bar, byte_bars, report, unpacked_path

    target = unpacked_path(src, dst, output)
    start = time.perf_counter()
    if src.is_dir():
        if force:
            raise ValueError("--force works on single files, not on folders")
        base = model_bases.open_base(bases) if bases else None
        with byte_bars("unpacking") as bars:
            lost = model_folders.unpack_folder(src, target, threads, keep_going, bars, base)
    else:
        base = model_bases.find_base(src, bases)
        with byte_bar(f"unpacking {src.name}") as progress:
            lost = model_files.unpack(src, target, threads, force, progress, keep_going, base)
    report(src, target, time.perf_counter() - start)
    for name, why in lost.items():
        click.echo(f"latentpack: lost {name}: {why}", err=True)
    if lost:
        click.get_current_context().exit(EXIT_LOST)


if __name__ == "__main__":
    from latentpack.scripts.main import main

    main("unpack")
