"""A video codec without networks in the registry (a pytest plugin)."""

import pytest

from latentpack.codecs import registry
from latentpack.tests.video_double import Shallow


class Double(Shallow):
    """Says its options as the registry's codecs do."""

    def __init__(self, gop=None):
        super().__init__(gop)


@pytest.fixture
def shallow(monkeypatch):
    """The double is a codec of the registry in this test."""
    load = registry.load
    monkeypatch.setitem(registry.CODECS, 200, Double.name)
    monkeypatch.setattr(
        registry, "load", lambda codec: Double if codec in (200, Double.name) else load(codec)
    )
    return Shallow.name
