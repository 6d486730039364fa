"""Folders of models: every file with tensors is packed or unpacked, the others are copied."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..datasets.torch_checkpoints import is_checkpoint
from . import model_files
from .model_bases import Part, Tensors, header_of

Start = Callable[[str], model_files.Progress | None]


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder that takes its name when all is in it; after an exception it is gone.

    Raises:
        FileExistsError: something is at `target`.
    """
    if os.path.lexists(target):
        raise FileExistsError(
            17, "the folder exists; choose another name or remove it", str(target)
        )
    temporary = target.parent / f".latentpack-{secrets.token_hex(8)}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, as paths relative to it, in order."""
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def pack_folder(
    src: Path,
    dst: Path,
    mode: str | None,
    threads: int | None,
    form: str,
    start: Start,
    base: Tensors | None = None,
) -> None:
    """Pack every .safetensors file and checkpoint of a folder; copy the rest.

    Args:
        src: the folder, with an index and any other files.
        dst: the new folder; a shard keeps its name but for the suffix.
        mode: as for `model_files.pack`, also `threads` and `form`.
        threads: of the codec.
        form: "lpk" or "safetensors".
        start: called with the name of each file; gives its progress function.
        base: the tensors of an older model; each file is a delta from its part of them.

    Raises:
        FileExistsError: something is at `dst`.
        ValueError: no file holds tensors, or one can't be packed.
    """
    found = files_of(src)
    models = {path for path in found if path.suffix == ".safetensors" or is_checkpoint(path)}
    if not models:
        raise ValueError(f"{src} has no .safetensors file and no PyTorch checkpoint")
    suffix = ".lpk" if form == "lpk" else ".safetensors"
    targets = [path.with_suffix(suffix) if path in models else path for path in found]
    twice = {path for path in targets if targets.count(path) > 1}
    if twice:
        raise ValueError(f"{src}: two files would become {sorted(twice)[0]}; pack them one by one")
    with new_folder(dst) as folder:
        for path, target in zip(found, targets, strict=True):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            if path in models:
                progress = start(str(path))
                part = (
                    None if base is None else Part(base, model_files.open_model(src / path).tensors)
                )
                model_files.pack(
                    src / path, folder / target, mode, threads, False, progress, form, part
                )
            else:
                shutil.copyfile(src / path, folder / target)


def unpack_folder(
    src: Path,
    dst: Path,
    threads: int | None,
    keep_going: bool,
    start: Start,
    base: Tensors | None = None,
) -> dict[str, str]:
    """Turn a folder that `pack_folder` made back into the one it was.

    With `base`, the model that it was made from.

    Returns:
        What was lost: "file: tensor" and the reason, only with `keep_going`.

    Raises:
        FileExistsError: something is at `dst`.
        BitstreamError: a file is damaged, and not `keep_going`.
    """
    lost: dict[str, str] = {}
    with new_folder(dst) as folder:
        for path in files_of(src):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix not in (".lpk", ".safetensors"):
                shutil.copyfile(src / path, target)
                continue
            target = target.with_suffix(model_files.suffix_of(src / path))
            progress = start(str(path))
            needed = base if header_of(src / path) is not None else None
            found = model_files.unpack(
                src / path, target, threads, False, progress, keep_going, needed
            )
            lost |= {f"{path}: {name}": why for name, why in found.items()}
    return lost
