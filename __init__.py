"""latentpack: neural codecs for media and tensors.

    latentpack.encode(x) -> bytes        latentpack.save(path, x)
    latentpack.decode(bytes) -> x        latentpack.open(path)["name"]

Importing this package imports nothing else; the names below load what they need when used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codecs.api import decode, encode, max_size, open, save
    from .codecs.codec import Rate
    from .codecs.series import Series
    from .codecs.tensor.kv_cache import PackedCache
    from .codecs.tensor.kv_store import KVStore
    from .codecs.tensor.linear import PackedLinear, pack_module, unpack_module
    from .codecs.tensor.modules import load_into, load_pretrained
    from .kernels.errors import BitstreamError

__version__ = "0.1.0"
__all__ = [
    "BitstreamError",
    "KVStore",
    "PackedCache",
    "PackedLinear",
    "Rate",
    "Series",
    "__version__",
    "decode",
    "encode",
    "load_into",
    "load_pretrained",
    "max_size",
    "open",
    "pack_module",
    "save",
    "unpack_module",
]

_HOME = {
    "BitstreamError": ".kernels.errors",
    "KVStore": ".codecs.tensor.kv_store",
    "PackedCache": ".codecs.tensor.kv_cache",
    "PackedLinear": ".codecs.tensor.linear",
    "Rate": ".codecs.codec",
    "Series": ".codecs.series",
    "decode": ".codecs.api",
    "encode": ".codecs.api",
    "load_into": ".codecs.tensor.modules",
    "load_pretrained": ".codecs.tensor.modules",
    "max_size": ".codecs.api",
    "open": ".codecs.api",
    "pack_module": ".codecs.tensor.linear",
    "save": ".codecs.api",
    "unpack_module": ".codecs.tensor.linear",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
