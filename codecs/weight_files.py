"""Files of trained weights (.lpkw): the tensors of a codec in the container of this library.

FORMAT.md, section 19. A weights file is named by its digest, which stands in every stream that was
made with it. Earlier weights were .safetensors files named by their bytes: `read` takes them as
they are, and as `repack` keeps them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from ..kernels.errors import BitstreamError
from . import registry
from .container import SIGNATURE, Reader, Writer
from .output import create
from .tensor.digest import digest as digest_of_tensors

VERSION = 1
_TENSORS = "tensor/lossless"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        codec: which codec they are for.
        tensors: by name.
        config: what the codec needs to know besides them.
        training: how they were made, for people.
        digest: 8 bytes that name codec, configuration and tensors.
    """

    codec: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    digest: bytes


def write(
    path: str | os.PathLike[str],
    codec: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    force: bool = False,
) -> bytes:
    """Write a weights file, which appears when it is complete; returns its digest.

    Raises:
        FileExistsError: something is at `path`, and not `force`.
    """
    name = _digest(codec, config, tensors)
    about = {"codec": codec, "version": VERSION, "config": dict(config), "digest": name}
    _write(path, about | {"training": dict(training or {})}, tensors, force)
    return name


def repack(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the weights of a .safetensors file as a .lpkw file, which keeps their digest.

    Raises:
        FileExistsError: something is at `target`.
    """
    data = Path(source).read_bytes()
    weights = _read_safetensors(data)
    head = data[: 8 + int.from_bytes(data[:8], "little")]
    about = {"codec": weights.codec, "version": VERSION, "config": {}, "training": {}}
    _write(target, about | {"digest": weights.digest, "safetensors": head}, weights.tensors, False)


def _write(
    path: str | os.PathLike[str],
    about: dict[str, Any],
    tensors: Mapping[str, Tensor],
    force: bool,
) -> None:
    number = registry.codec_id(_TENSORS)
    coder = registry.make(number, None, {"mode": "small"})
    metadata = {"weights": about}
    with create(path, force) as file, Writer(file, number, coder.header(tensors), metadata) as out:
        for packet in coder.encode(tensors):
            out.write(packet)


def read(path: str | os.PathLike[str], codec: str) -> Weights:
    """Read the weights of a codec and check all of them.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, no weights file, or one of another codec.
    """
    data = Path(path).read_bytes()
    try:
        weights = _read(data) if data.startswith(SIGNATURE) else _read_safetensors(data)
    except Exception as error:  # readers of safetensors raise their own kinds
        raise ValueError(f"{path} is not a weights file, or a damaged one: {error}") from error
    if weights.codec != codec:
        raise ValueError(f"{path} holds weights of {weights.codec}, {codec} can't use them")
    return weights


def find(digest: bytes, paths: Iterable[Path]) -> Path | None:
    """The file of this digest among weights files, of which only the metadata is read."""
    for path in paths:
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) == SIGNATURE:
                file.seek(0)
                named = _about(Reader(file))["digest"]
            else:
                named = xxhash.xxh3_64_digest(path.read_bytes())
        if named == digest:
            return path
    return None


def file_of(digest: Any, chosen: Path, its: bytes, shipped: Iterable[Path]) -> Path:
    """The weights file that a stream was made with: the one chosen, or one that ships.

    Args:
        digest: that the stream states.
        chosen: by the user, or the usual one.
        its: digest of that.
        shipped: files to look through.

    Raises:
        ValueError: it is none of them.
    """
    if digest == its:
        return chosen
    found = find(digest, shipped) if isinstance(digest, bytes) else None
    if found is None:
        shown = digest.hex() if isinstance(digest, bytes) else repr(digest)
        raise ValueError(
            f"the stream was made with weights {shown}, {chosen.name} is {its.hex()}; name the "
            "right file with --weights"
        )
    return found


def _read(data: bytes) -> Weights:
    reader = Reader(io.BytesIO(data))
    about = _about(reader)
    coder = registry.make(reader.codec_id, None, {})
    tensors = coder.decode(reader.params, reader.packets())
    if not isinstance(tensors, dict):
        raise BitstreamError("the tensors have no names")
    if "safetensors" in about:
        named = _restored_digest(about["safetensors"], tensors)
    else:
        named = _digest(about["codec"], about["config"], tensors)
    if named != about["digest"]:
        raise BitstreamError(f"its digest is {named.hex()}, it says {about['digest'].hex()}")
    return Weights(about["codec"], tensors, about["config"], about["training"], named)


def _about(reader: Reader) -> dict[str, Any]:
    """The checked entry of the metadata."""
    about = reader.metadata.get("weights")
    kinds = {"codec": str, "version": int, "config": dict, "training": dict, "digest": bytes}
    if not isinstance(about, dict) or reader.codec_id != registry.codec_id(_TENSORS):
        raise BitstreamError("a .lpk file of something else")
    for name, kind in kinds.items():
        if type(about.get(name)) is not kind:
            raise BitstreamError(f"weights.{name} is {about.get(name)!r}, not {kind.__name__}")
    if about["version"] != VERSION:
        raise BitstreamError(
            f"weights.version is {about['version']}, this release knows {VERSION}; a newer one is "
            "needed"
        )
    return about


def _read_safetensors(data: bytes) -> Weights:
    """The form before .lpkw: named by the digest of the file's bytes."""
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    codec = header.get("__metadata__", {}).get("latentpack", "an unknown codec")
    return Weights(codec, tensors, {}, {}, xxhash.xxh3_64_digest(data))


def _restored_digest(head: bytes, tensors: Mapping[str, Tensor]) -> bytes:
    """Digest of the safetensors file that begins with `head` and holds these tensors."""
    entries = json.loads(head[8:])
    names = sorted(tensors, key=lambda name: entries[name]["data_offsets"][0])
    digest = xxhash.xxh3_64(head)
    for name in names:
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _digest(codec: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    said = cbor2.dumps([codec, VERSION, dict(config)], canonical=True)
    return xxhash.xxh3_64_digest(said + digest_of_tensors(tensors))
