"""The chunk checksum against the xxhash library, on every instruction set of this machine."""

import numpy as np
import pytest
import xxhash

from latentpack.kernels import rans

cpp = pytest.importorskip("latentpack.kernels._cpp", reason="the compiled kernels are not built")
ISAS = range(len(rans.backends()) - 1)


@pytest.mark.parametrize("isa", ISAS)
def test_hash_equals_the_library_at_every_length(isa):
    data = np.random.default_rng(1).integers(0, 256, 70_000, np.uint8).tobytes()
    # 240 and 1024 bytes are borders between methods and blocks.
    for n in [*range(600), *range(1000, 1200), 2048, 2049, 4096, 65_535, 65_536, 70_000]:
        assert cpp.xxh3_64(data[:n], isa) == xxhash.xxh3_64_intdigest(data[:n]), n


@pytest.mark.parametrize("isa", ISAS)
def test_hash_does_not_depend_on_alignment(isa):
    data = bytes(range(256)) * 9
    for shift in range(1, 17):
        moved = (bytes(shift) + data)[shift:]
        view = memoryview(bytes(shift) + data)[shift:]
        assert cpp.xxh3_64(view, isa) == cpp.xxh3_64(moved, isa)
