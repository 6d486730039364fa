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
@click.option("--mode", help="Speed or size: fast, tight (the default), small or segments.")
@click.option(
    "--format",
    "form",
    default="lpk",
    show_default=True,
    help="lpk, or safetensors: a valid .safetensors file of packed tensors.",
)
@click.option(
    "--base",
    "bases",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Store differences from this model (repeated: and where that one's own base is).",
)
@click.option("--threads", type=click.IntRange(1), help="The file is the same for any number.")
@click.option("--verify", is_flag=True, help="Read the new file and compare every bit.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def pack(
    src: Path,
    dst: Path | None,
    output: Path | None,
    mode: str | None,
    form: str,
    bases: tuple[Path, ...],
    threads: int | None,
    verify: bool,
    force: bool,
) -> None:
    """Pack the tensors of a model without loss.

    SRC is a .safetensors file, a PyTorch checkpoint (.pt, .pth, .bin, .ckpt; no code in it is
    run), or a folder: each such file in it is packed, the others are copied. Tensors that are
    there twice are stored once.

    \b
    latentpack pack model.safetensors                  (makes model.lpk)
    latentpack pack model.safetensors small.lpk --mode small --verify
    latentpack pack model/                             (shards, index, config: makes model-packed/)
    latentpack pack checkpoint.pt --format safetensors (makes checkpoint.packed.safetensors)
    latentpack pack step2.safetensors --base step1.safetensors
    """
    from . import model_bases, model_files, model_folders
    from .model_jobs import byte_bar, byte_bars, packed_path, report

    target = packed_path(src, dst, output, form)
    base = model_bases.open_base(bases) if bases else None
    start = time.perf_counter()
    if src.is_dir():
        if verify or force:
            raise ValueError("--verify and --force work on single files, not on folders")
        with byte_bars("packing") as bars:
            model_folders.pack_folder(src, target, mode, threads, form, bars, base)
        report(src, target, time.perf_counter() - start)
        return
    if verify and str(target) == "-":
        raise ValueError("--verify needs a file to read, and - is standard output")
    with byte_bar(f"packing {src.name}") as progress:
        model_files.pack(src, target, mode, threads, force, progress, form, base)
    seconds = time.perf_counter() - start
    if verify:
        model_files.verify(src, target, base)
    report(src, target, seconds, ", verified" if verify else "")


if __name__ == "__main__":
    from latentpack.scripts.main import main

    main("pack")
