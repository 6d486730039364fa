"""Pages of key-value caches kept under keys, on the disk or wherever fsspec reaches.

    store = KVStore("/var/cache/kv")  # or "s3://bucket/kv", "memory://kv", ...
    store.put_tables(tables)
    store.put("sha256-of-the-prompt", encode_pages(k, v, tables))
    data = store.get("sha256-of-the-prompt")
    k, v = decode_pages(data, store.tables(page_info(data).digest))

One file per key, and one per set of tables. On a local disk a file appears under its name when it
is complete and on the disk, so that readers in other threads and processes see all of it or none.
Elsewhere the service decides that; what is read is checked either way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...kernels.errors import BitstreamError
from ..output import create
from .kv import PageInfo, check_pages
from .kv_page import Buffer
from .kv_tables import KVTables

_PAGES, _TABLES = ".lkv", ".lkt"
_MAX_NAME = 255  # bytes, of most file systems


class KVStore:
    """Coded pages by key.

    Args:
        url: a folder, or a URL that fsspec knows; the folder is made when something is put.
        storage_options: of the file system, as fsspec takes them.

    Raises:
        ImportError: the file system needs a package that is not there; fsspec names it.
    """

    def __init__(self, url: str | os.PathLike[str], **storage_options: Any) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(os.fspath(url), **storage_options)

    def put(self, key: str, pages: Buffer) -> None:
        """Keep pages under a key; what was there is replaced.

        Args:
            key: any text of up to about 250 bytes, such as a hash of the tokens.
            pages: what `encode_pages` made.

        Raises:
            BitstreamError: these are no pages, or damaged ones.
            OSError: they could not be written; what was there is as it was.
        """
        check_pages(pages)
        self._write(self._path(key, _PAGES), pages)

    def get(self, key: str) -> bytes:
        """The pages of a key, with every checksum compared.

        Raises:
            KeyError: there is nothing under this key.
            BitstreamError: the pages are damaged.
        """
        data = self._read(self._path(key, _PAGES), f"no pages under the key {key!r}")
        try:
            check_pages(data)
        except BitstreamError as error:
            raise BitstreamError(f"the pages under the key {key!r} are damaged: {error}") from None
        return data

    def info(self, key: str) -> PageInfo:
        """What the pages of a key hold; raises as `get`."""
        return check_pages(self.get(key))

    def delete(self, key: str) -> None:
        """Forget a key; KeyError if it is not there."""
        try:
            self._fs.rm_file(self._path(key, _PAGES))
        except FileNotFoundError:
            raise KeyError(f"no pages under the key {key!r}") from None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._fs.isfile(self._path(key, _PAGES)))

    def __iter__(self) -> Iterator[str]:
        """The keys, in no order that means anything."""
        try:
            names = [Path(path).name for path in self._fs.ls(self._root, detail=False)]
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(_PAGES):
                yield unquote(name.removesuffix(_PAGES))

    def put_tables(self, tables: KVTables) -> None:
        """Keep tables under their digest."""
        self._write(self._path(tables.digest.hex(), _TABLES), tables.to_bytes())

    def tables(self, digest: str) -> KVTables:
        """The tables of a digest, in hexadecimal as in `page_info`.

        Raises:
            KeyError: they were not put.
            BitstreamError: they are damaged.
        """
        path = self._path(digest, _TABLES)
        tables = KVTables.from_bytes(self._read(path, f"no tables with the digest {digest}"))
        if tables.digest.hex() != digest:
            raise BitstreamError(f"the tables {digest} are others: {tables.digest.hex()}")
        return tables

    def _path(self, key: str, ending: str) -> str:
        if not isinstance(key, str) or not key:
            raise ValueError(f"a key must be text, at least one character, got {key!r}")
        name = quote(key, safe="") + ending
        if len(name) > _MAX_NAME:
            raise ValueError(
                f"the key takes {len(name)} bytes as a file name, at most {_MAX_NAME} are "
                "allowed; use a hash of it"
            )
        return f"{self._root}/{name}"

    def _write(self, path: str, data: Buffer) -> None:
        self._fs.makedirs(self._root, exist_ok=True)
        if isinstance(self._fs, LocalFileSystem):
            with create(path, force=True) as file:
                file.write(data)
        else:
            self._fs.pipe_file(path, bytes(data))

    def _read(self, path: str, missing: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            raise KeyError(missing) from None
        return data
