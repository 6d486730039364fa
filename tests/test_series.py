"""Series: keyframes and deltas, continued by another process, damage."""

import pytest
import torch

import latentpack
from latentpack import BitstreamError
from latentpack.codecs.container import Reader


def states(count):
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(5000, generator=generator) * 0.02
    for i in range(count):
        yield {"w": exact.bfloat16(), "step": torch.tensor(i)}
        exact = exact + 1e-5 * torch.randn(5000, generator=generator)


def same(opened, state):
    return list(opened) == list(state) and all(torch.equal(opened[k], x) for k, x in state.items())


def codec_ids(folder):
    return [Reader(path.read_bytes()).codec_id for path in sorted(folder.glob("*.lpk"))]


def test_models_come_back(tmp_path):
    made = list(states(6))
    series = latentpack.Series(tmp_path / "run", keyframe=3, threads=1)
    assert len(series) == 0
    for i, state in enumerate(made):
        path = series.append(state, name=f"step {i}")
    assert path.name == "000005.lpk"
    assert codec_ids(tmp_path / "run") == [1, 3, 3, 1, 3, 3]
    assert series.names == [f"step {i}" for i in range(6)]
    again = latentpack.Series(tmp_path / "run")
    assert len(again) == 6 and all(map(same, again, made))
    assert same(again[-1], made[-1]) and all(map(same, again[1:4], made[1:4]))
    assert again[2].metadata["series"] == {"number": 2, "name": "step 2", "keyframe": 0}
    with pytest.raises(IndexError):
        again[6]


def test_appending_goes_on_in_another_process(tmp_path):
    made = list(states(4))
    for state in made:
        latentpack.Series(tmp_path, keyframe=3).append(state)
    assert codec_ids(tmp_path) == [1, 3, 3, 1]
    assert all(map(same, latentpack.Series(tmp_path), made))


def test_the_model_may_change_after_it_was_stored(tmp_path):
    first, second = states(2)
    series = latentpack.Series(tmp_path)
    live = {name: x.clone() for name, x in first.items()}
    series.append(live)
    for name, x in second.items():
        live[name].copy_(x)
    series.append(live)
    assert same(series[0], first) and same(series[1], second)
    small = (tmp_path / "000001.lpk").stat().st_size
    assert small < (tmp_path / "000000.lpk").stat().st_size / 5


def test_two_writers(tmp_path, monkeypatch):
    series = latentpack.Series(tmp_path)
    state = next(states(1))
    series.append(state)
    monkeypatch.setattr(latentpack.Series, "__len__", lambda self: 0)
    with pytest.raises(FileExistsError):
        series.append(state)


def test_a_broken_chain(tmp_path):
    series = latentpack.Series(tmp_path)
    for state in states(3):
        series.append(state)
    other = {"w": torch.zeros(5000).bfloat16(), "step": torch.tensor(1)}
    latentpack.save(tmp_path / "000001.lpk", other, base=series[0], force=True)
    with pytest.raises(ValueError, match="it needs the base with digest"):
        series[2]["w"]
    with pytest.raises(BitstreamError, match="is not model 1 of a series"):
        series[1]
    with pytest.raises(ValueError, match="keyframe is 0"):
        latentpack.Series(tmp_path, keyframe=0)
