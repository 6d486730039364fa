"""What a training run is made of: its configuration from file and flags, its samples, its devices.

`config.json` of a run holds all fields of TrainingConfig side by side, and with them

    codec       which codec
    data        folders of what to train on
    validation  folder, or share of the data, that is held out; 0 holds out nothing
    init        weights to start from, or null
    options     options of the codec's recipe, e.g. {"size": "s"}
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from latentpack.codecs.training import Parts, Recipe, options_of, recipe
from latentpack.codecs.training_config import TrainingConfig
from latentpack.datasets.audio_crops import SoundCrops, find_sounds, fixed_stretches
from latentpack.datasets.clips import (
    Clips,
    Film,
    find_films,
    find_stills,
    fixed_clips,
    parse_exclude,
)
from latentpack.datasets.crops import (
    CACHE_BYTES,
    Crops,
    Picture,
    find_pictures,
    fixed_crops,
    hold_out,
)

HELD_OUT = 32  # sources at most to validate on
_VALIDATION_BATCH = 8
# What may differ when a run goes on: how far and in what parts, not what is trained. As many parts
# (of all processes together) as before give the same weights.
FREE = {"steps", "accumulate", "compile", "log_every", "validate_every", "checkpoint_minutes"}
_FIELDS = {f.name for f in dataclasses.fields(TrainingConfig)}


@dataclass(frozen=True)
class Run:
    """The configuration of a run, as its config.json has it."""

    codec: str
    data: list[str]
    validation: str
    init: str | None
    options: dict[str, Any]
    config: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        first = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        numbers = dataclasses.asdict(first.pop("config"))
        return {**first, **numbers}

    def make_recipe(self) -> Recipe:
        """The codec's recipe."""
        return recipe(self.codec, self.options)


def configure(
    codec: str, out: Path, config_file: Path | None, given: Mapping[str, Any], device: str
) -> Run:
    """The configuration of a run: flags over the file, over the run's own, over the defaults.

    Args:
        codec: which codec.
        out: folder of the run; one that has a checkpoint goes on.
        config_file: config.json of any run, or one written by hand.
        given: flags by the names in config.json; None where not given.
        device: where the run will be: the default precision depends on it.

    Raises:
        ValueError: a value is illegal, or changes a run that has begun.
    """
    begun = (out / "checkpoint.pt").exists()
    before = _read(out / "config.json") if begun else {}
    asked = {} if config_file is None else _read(config_file)
    flags = {name: value for name, value in given.items() if value is not None}
    for source, path in ((before, out), (asked, config_file)):
        if (said := source.get("codec", codec)) != codec:
            raise ValueError(f"{path} is of a run of {said}, not of {codec}")
    values = {**before, **asked, **flags, "codec": codec}
    chosen = [source.get("options", {}) for source in (before, asked, flags)]
    values["options"] = options_of(codec) | chosen[0] | chosen[1] | chosen[2]
    defaults = recipe(codec, values["options"]).defaults
    values = {"precision": default_precision(device), **defaults, **values}
    run = _make(values, config_file or out / "config.json")
    Parts(run.config)  # raises where the batch can't be shared out
    if begun:
        _refuse_changes(out, before, run.to_dict())
    return run


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("options", {}), dict):
        raise ValueError(f"{path} is no configuration: a JSON object with one for `options`")
    known = {"codec", "data", "validation", "init", "options", *_FIELDS}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{path}: {unknown[0]!r} is unknown; known are {', '.join(sorted(known))}")
    return values


def _make(values: dict[str, Any], source: Path) -> Run:
    data = values.get("data") or []
    if not isinstance(data, list) or not all(isinstance(d, str) for d in data):
        raise ValueError(f"data in {source} is {data!r}, expected a list of folders")
    if not data:
        raise ValueError("there is nothing to train on; name a folder with --data")
    init = values.get("init")
    config = TrainingConfig(**{name: values[name] for name in _FIELDS if name in values})
    multiple = recipe(values["codec"], values["options"]).multiple
    if config.crop % multiple:
        raise ValueError(f"crop is {config.crop}, expected a multiple of {multiple}")
    return Run(
        values["codec"],
        data,
        str(values.get("validation", "0.05")),
        None if init is None else str(init),
        values["options"],
        config,
    )


def _refuse_changes(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in before.items():
        if name not in FREE and now[name] != value:
            raise ValueError(
                f"the run in {out} was begun with {name} {value!r}, not {now[name]!r}: leave that "
                "out to go on with it, or take another --out (with --init to start from weights)"
            )


def default_device() -> str:
    """The GPU of this process where there is one, and else the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu"


def default_precision(device: str) -> str:
    """Half precision where the device multiplies faster in it."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if kind == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False):
        return "bf16"
    return "fp32"


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the other processes where torchrun has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def open_data(
    run: Run, workers: int, note: Callable[[str], object]
) -> tuple[Dataset[Tensor], list[Tensor], dict[str, Any]]:
    """The samples, the batches of held-out samples, and how many sources there are of each.

    Args:
        run: the configuration.
        workers: processes that will prepare samples, each with a part of the cache.
        note: told about what is left out.
    """
    signal = run.make_recipe().signal
    if signal == "sound":
        return _open_sounds(run, note)
    if signal == "clip":
        return _open_clips(run, workers, note)
    config = run.config
    share = None if Path(run.validation).exists() else _share(run.validation)
    pictures = find_pictures(map(Path, run.data), config.crop, note)
    if share is None:
        held = find_pictures([Path(run.validation)], config.crop, note)
        same = {p.path.resolve() for p in held}
        pictures = [p for p in pictures if p.path.resolve() not in same]
        if not pictures:
            raise ValueError(f"all pictures are held out by --validation {run.validation}")
        held = held[:: math.ceil(len(held) / HELD_OUT)]
    else:
        pictures, held = hold_out(pictures, share, HELD_OUT, config.seed)
    samples = Crops(pictures, config.crop, config.seed, note, CACHE_BYTES // max(1, workers))
    crops = fixed_crops(held, config.crop, note)
    batches = _batches(crops)
    return samples, batches, {"pictures": len(pictures), "held_out": len(crops)}


def _open_sounds(
    run: Run, note: Callable[[str], object]
) -> tuple[Dataset[Tensor], list[Tensor], dict[str, Any]]:
    config, recipe = run.config, run.make_recipe()
    share = None if Path(run.validation).exists() else _share(run.validation)
    groups = [find_sounds([Path(folder)]) for folder in run.data]
    if share is None:
        held = find_sounds([Path(run.validation)])
        held = held[:: math.ceil(len(held) / HELD_OUT)]
    else:
        held = hold_out(sorted(set().union(*groups)), share, HELD_OUT, config.seed)[1]
    left_out = {path.resolve() for path in held}
    groups = [[path for path in group if path.resolve() not in left_out] for group in groups]
    count = sum(map(len, groups))
    if not count:
        raise ValueError(f"all sounds are held out by --validation {run.validation}")
    rate, mix = recipe.sample_rate, recipe.mix
    samples = SoundCrops(groups, config.crop, rate, config.seed, note, mix)
    crops = fixed_stretches(held, config.crop, rate, note)
    batches = _batches(crops)
    return samples, batches, {"sounds": count, "held_out": len(crops)}


def _open_clips(
    run: Run, workers: int, note: Callable[[str], object]
) -> tuple[Dataset[Tensor], list[Tensor], dict[str, Any]]:
    config, recipe = run.config, run.make_recipe()
    folders = [Path(folder) for folder in run.data]
    films = find_films(folders, config.crop, note)
    pictures = find_stills(folders, note) if recipe.synthetic or not films else []
    exclude = parse_exclude(recipe.exclude)
    if unknown := set(exclude) - {film.path.name for film in films}:
        raise ValueError(f"exclude names {sorted(unknown)[0]}, and there is no such film")
    held, held_pictures = _hold_out_clips(run, films, pictures, note)
    left_out = {f.path.resolve() for f in held} | {p.path.resolve() for p in held_pictures}
    films = [f for f in films if f.path.resolve() not in left_out]
    pictures = [p for p in pictures if p.path.resolve() not in left_out]
    samples = Clips(
        films,
        pictures,
        recipe.frames,
        config.crop,
        config.seed,
        note,
        recipe.synthetic,
        exclude,
        picture_room=CACHE_BYTES // max(1, workers),
    )
    clips = fixed_clips(held, held_pictures, recipe.frames, config.crop, note, exclude)
    counts = {"films": len(films), "pictures": len(pictures), "held_out": len(clips)}
    return samples, _batches(clips), counts


def _hold_out_clips(
    run: Run, films: Sequence[Film], pictures: Sequence[Picture], note: Callable[[str], object]
) -> tuple[Sequence[Film], Sequence[Picture]]:
    """Films to validate on; pictures where there are no films."""
    folder = Path(run.validation)
    if folder.exists():
        found = find_films([folder], run.config.crop, note)
        return found, [] if found else find_stills([folder], note)
    share, seed = _share(run.validation), run.config.seed
    if films:
        return hold_out(films, share, HELD_OUT, seed)[1], []
    return [], hold_out(pictures, share, HELD_OUT, seed)[1]


def _batches(samples: list[Tensor]) -> list[Tensor]:
    starts = range(0, len(samples), _VALIDATION_BATCH)
    return [torch.stack(samples[i : i + _VALIDATION_BATCH]) for i in starts]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise ValueError(f"validation: there is no folder {text}, and it is no share") from None
    if not 0 <= share < 1:
        raise ValueError(f"validation is {text}, expected a folder or a share from 0 to below 1")
    return share
