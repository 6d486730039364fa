"""Videos parse to the same integers however they are parsed (DESIGN: portable parse)."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Writer
from latentpack.scripts import check_parse
from latentpack.scripts.check_parse import (
    as_older_cpu,
    differing,
    digests,
    integers,
    matrix,
)
from latentpack.tests.films import register
from latentpack.tests.video_double import Shallow, clip

GOLDEN = sorted((Path(__file__).parent / "golden").glob("video_*/*.lpk"))


class Parsed(NamedTuple):
    latents: torch.Tensor
    positions: list[object]


@pytest.fixture
def shallow(monkeypatch):
    register(monkeypatch)
    return "video/shallow"


@pytest.fixture
def file(tmp_path, shallow):
    """Three groups of pictures of the double."""
    x, codec, data = clip(10), Shallow(), io.BytesIO()
    with Writer(data, 200, codec.header(x), {}) as writer:
        for packet in codec.encode(x, Rate(quality=60)):
            writer.write(packet)
    path = tmp_path / "a.lpk"
    path.write_bytes(data.getvalue())
    return path


def parsing(monkeypatch, parse):
    monkeypatch.setattr(Shallow, "parse", parse, raising=False)


def test_samples_where_there_is_no_parse(file):
    found = matrix(file, subprocesses=False)
    assert len(found) >= 6 and differing(found) == []
    (first, *_) = found.values()
    samples = 33 * 21 + 2 * 17 * 11
    assert [count for count, _ in first] == [4 * samples, 4 * samples, 2 * samples]
    assert len({digest for _, digest in first}) == 3


def test_what_depends_on_threads_or_floats_is_told(file, monkeypatch):
    def of_threads(self, header, payload, format, count):
        return [torch.tensor([torch.get_num_threads() > 1])]

    parsing(monkeypatch, of_threads)
    assert differing(matrix(file, subprocesses=False)) == ["2 threads"]

    def of_floats(self, header, payload, format, count):
        scales = torch.full((50,), 0.5) * torch.arange(50)
        return Parsed((scales + 1e-7 > scales.round()).int(), [1, (2, None)])

    parsing(monkeypatch, of_floats)
    wrong = differing(matrix(file, subprocesses=False))
    assert "noise of 1e-4" in wrong and "2 threads" not in wrong
    monkeypatch.setattr(check_parse, "_OLDER", {})  # they don't know the double
    result = CliRunner().invoke(check_parse.check_parse, [str(file)])
    assert result.exit_code == 1 and "noise" in result.output


def test_one_changed_integer_changes_the_digest(file, monkeypatch):
    values = [3, torch.tensor([1, 2]), {"a": np.array([4], "<u2")}]
    parsing(monkeypatch, lambda self, *rest: values)
    before = digests(file.read_bytes())
    assert before[0][0] == 4
    values[1][1] = 7
    assert digests(file.read_bytes())[0][1] != before[0][1]


@pytest.mark.parametrize("value", [torch.zeros(2), [1.5], "text"])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValueError, match="a parse gave "):
        list(integers(value))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_files(path):
    found = matrix(path, subprocesses=False)
    assert len(found) >= 6 and differing(found) == []
    assert sum(count for count, _ in next(iter(found.values()))) > 0


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_golden_files_as_older_cpus(capability):
    found = as_older_cpu(GOLDEN, capability)
    assert found == [digests(path.read_bytes()) for path in GOLDEN]
