"""Models in a row on disk: keyframes, and deltas from the model before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..kernels.errors import BitstreamError
from . import api
from .tensor_files import TensorFile

if TYPE_CHECKING:
    import torch

ENTRY = "series"  # of the metadata of each file


class Series(Sequence["TensorFile"]):
    """The checkpoints of a training, or the weights sent in its course, one file each.

    >>> series = latentpack.Series("run", keyframe=20)  # doctest: +SKIP
    >>> series.append(model.state_dict(), name="step 100")  # doctest: +SKIP
    >>> series[-1]["layers.3.weight"]  # doctest: +SKIP

    Every file is a whole .lpk file, `000000.lpk` and on, whose metadata says
    {"series": {"number", "name", "keyframe"}}: its own number, and that of the model without a
    base from which its chain of deltas begins. A model that is opened is decoded tensor by tensor
    when those are asked for, through its chain. One process may append; any number may read.

    Args:
        folder: where the files are; it is made if it is not there.
        keyframe: every so many models one without a base: a longer chain takes longer to read.
        options: of the codecs, e.g. threads=1.

    Raises:
        ValueError: keyframe is below 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keyframe: int = 20, **options: Any) -> None:
        """See the class."""
        if keyframe < 1:
            raise ValueError(f"keyframe is {keyframe}, expected 1 or more")
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keyframe = keyframe
        self._options = options
        self._last: tuple[int, dict[str, torch.Tensor]] | None = None

    def append(self, state: Mapping[str, torch.Tensor], name: str | None = None) -> Path:
        """Store a model; returns its file, which appears when it is complete.

        A copy of the model is kept in memory, in which the next one finds its base.

        Args:
            state: names and tensors.
            name: goes into the metadata.

        Raises:
            FileExistsError: another process has appended a model meanwhile.
        """
        number = len(self)
        start = number
        base: Mapping[Any, torch.Tensor] | None = None
        if number:
            start = self._start_of(number - 1)
            if number - start >= self._keyframe:
                start = number
            else:
                base = self._before(number)
        about = {ENTRY: {"number": number, "name": name, "keyframe": start}}
        path = self._path(number)
        api.save(path, state, metadata=about, base=base, **self._options)
        self._last = number, {key: x.detach().cpu().clone() for key, x in state.items()}
        return path

    def _before(self, number: int) -> Mapping[Any, torch.Tensor]:
        if self._last is not None and self._last[0] == number - 1:
            return self._last[1]
        return self[number - 1]

    @property
    def names(self) -> list[str | None]:
        """The names that the models were given, in order."""
        return [self._about(number)["name"] for number in range(len(self))]

    @overload
    def __getitem__(self, number: int) -> TensorFile: ...
    @overload
    def __getitem__(self, number: slice) -> list[TensorFile]: ...
    def __getitem__(self, number: int | slice) -> TensorFile | list[TensorFile]:
        """Open a model, a lazy mapping of names to tensors; negative numbers count from the end.

        Raises:
            IndexError: there is no such model.
            BitstreamError: a file of its chain is damaged.
        """
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        number = range(len(self))[number]
        start = self._start_of(number)
        file = TensorFile(self._path(start), None, False, self._options)
        for i in range(start + 1, number + 1):
            file = TensorFile(self._path(i), None, False, {**self._options, "base": file})
        return file

    def __len__(self) -> int:
        """Return the number of models."""
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    def __iter__(self) -> Iterator[TensorFile]:
        """Open one model after another."""
        return (self[number] for number in range(len(self)))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.lpk"

    def _about(self, number: int) -> dict[str, Any]:
        with TensorFile(self._path(number), None, False, {}) as file:
            about = file.metadata.get(ENTRY)
        entry: dict[str, Any] = about if isinstance(about, dict) else {}
        start = entry.get("keyframe")
        if entry.get("number") != number or type(start) is not int or not 0 <= start <= number:
            raise BitstreamError(
                f"{self._path(number)} is not model {number} of a series: its metadata says "
                f"{about!r:.80}"
            )
        return {"name": None, **entry}

    def _start_of(self, number: int) -> int:
        """The number of the keyframe that a model's chain begins with."""
        start: int = self._about(number)["keyframe"]
        return start
