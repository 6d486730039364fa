"""What one picture costs at one setting of one codec; kept in a file, so that runs can go on.

The file has a line of JSON for each result. What is in it is not measured again; a last line that
was cut off is dropped.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

Key = tuple[str, str, str, float | None]


@dataclass(frozen=True)
class Result:
    """One picture at one setting of one codec.

    Attributes:
        picture: name of its file.
        digest: of its file's bytes.
        pixels: of the picture.
        codec: as it was asked for, with its options.
        settings: of the codec, with the weights.
        step: of the codec's curve.
        bytes: of the coded file.
        bpp: of the coded file.
        psnr_db: over RGB.
        ms_ssim: None where the picture is too small.
        encode_s: CPU seconds.
        decode_s: CPU seconds.
    """

    picture: str
    digest: str
    pixels: int
    codec: str
    settings: str
    step: float | None
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_s: float
    decode_s: float

    @property
    def key(self) -> Key:
        """By what the result is found again: other weights or another picture are others."""
        return self.digest, self.codec, self.settings, self.step


class Results:
    """Results by their keys, each written to the file as soon as it is there.

    >>> results = Results(None)  # kept in memory only
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[Key, Result] = {}
        if path is not None and path.exists():
            self._found = {result.key: result for result in _read(path)}

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    def __getitem__(self, key: Key) -> Result:
        return self._found[key]

    def add(self, result: Result) -> None:
        """Keep a result."""
        self._found[result.key] = result
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")


def _read(path: Path) -> Iterator[Result]:
    with path.open("r+b") as file:
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                file.truncate(whole)  # a run was stopped while it wrote
                return
            whole += len(line)
            yield _parse(line, f"{path}, line {number}")


def _parse(line: bytes, where: str) -> Result:
    try:
        values = json.loads(line)
        if set(values) != {field.name for field in fields(Result)}:
            raise ValueError("it has other fields")
        return Result(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: no result of evaluate ({error}); name another file") from None
