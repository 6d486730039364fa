"""The compiled extension, for what is called only where a compiled backend was picked."""

import functools
import importlib
from typing import Any


@functools.cache
def compiled() -> Any:
    """The module `_cpp`; ImportError where there was no compiler."""
    return importlib.import_module("._cpp", __package__)
