"""Clips to train on: functions of step and number, of films and of photographs in motion."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.codecs.training_config import TrainingConfig
from latentpack.datasets import clips, synthetic_motion
from latentpack.datasets.clips import (
    Clips,
    find_films,
    find_stills,
    fixed_clips,
    parse_exclude,
)
from latentpack.datasets.synthetic_motion import moving_picture, pack, to_video
from latentpack.scripts import training_setup
from latentpack.tests.training_double import Doubling

SIZE = 32


def silent(text):
    raise AssertionError(text)


def film(path, frames, width=96, height=80, level=None):
    """A picture that moves 2 pixels a frame, or frames of level + number."""
    ground = torch.from_numpy(np.random.default_rng(frames).integers(60, 200, (1, 3, 12, 40)))
    ground = torch.nn.functional.interpolate(ground.float(), (height, 4 * width), mode="bicubic")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.qmin = stream.qmax = 2
        for i in range(frames):
            x = ground[0, :, :, 2 * i : 2 * i + width].byte().permute(1, 2, 0).contiguous()
            frame = av.VideoFrame.from_ndarray(x.numpy(), "rgb24")
            if level is not None:
                grey = np.full((height * 3 // 2, width), level + i, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    film(tmp_path / "a.mp4", 40)
    film(tmp_path / "b.mkv", 12, 128, 96)
    for i in range(3):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((100, 81 + i)).save(tmp_path / f"{i}.png")
    (tmp_path / "text.txt").write_text("no film")
    return tmp_path


def made(folder, **options):
    films = find_films([folder], SIZE, silent)
    return Clips(films, find_stills([folder]), 4, SIZE, 5, options.pop("note", silent), **options)


def test_a_clip_is_a_function_of_step_and_number(folder):
    assert [f.path.name for f in find_films([folder])] == ["a.mp4", "b.mkv"]
    assert find_films([folder])[0].frames == 40
    first, second = made(folder, synthetic=0.5), made(folder, synthetic=0.5)
    keys = [(step, number) for step in range(4) for number in range(4)]
    found = [first[key] for key in keys]
    assert all(x.shape == (4, 6, 16, 16) and x.dtype == torch.uint8 for x in found)
    for key, x in reversed(list(zip(keys, found, strict=True))):
        assert torch.equal(second[key], x)
    assert len({x.numpy().tobytes() for x in found}) == len(found)


def test_turns_keep_the_phases_of_luma_in_place():
    """A picture whose samples say where they are, turned packed, is the picture turned."""
    y = torch.arange(64.0).view(1, 8, 8)
    uv = torch.stack([y[:, ::2, ::2], -y[:, ::2, ::2]], 1)
    x = pack(y, uv)
    assert torch.equal(x.flip(3)[:, clips._MIRRORED][:, :4], pack(y.flip(2), uv)[:, :4])
    turned = pack(y.mT, uv.mT)
    assert torch.equal(x.transpose(2, 3)[:, clips._TRANSPOSED], turned)


def test_clips_of_films_follow_their_frames(tmp_path):
    """Levels that rise by one a frame: in a clip they rise or fall evenly, by 1 to 3."""
    film(tmp_path / "a.mp4", 60, level=60)
    found = Clips(find_films([tmp_path]), [], 5, SIZE, 1, silent)
    steps = set()
    for i in range(60):
        means = found[0, i][:, :4].float().mean((1, 2, 3)).diff()
        assert (means - means.mean()).abs().max() < 1.6
        steps.add(round(float(means.mean())))
    assert {1, -1, 2, -2} <= steps and max(map(abs, steps)) <= 3


def test_what_is_excluded_is_in_no_clip(tmp_path):
    film(tmp_path / "a.mp4", 100, level=30)
    exclude = parse_exclude("a.mp4:0-1.2,a.mp4:2-")  # frames 30 to 49 stay
    kept = Clips(find_films([tmp_path]), [], 4, SIZE, 1, silent, exclude=exclude)
    levels = torch.cat([s.y.float().mean((1, 2)) for s in kept._stretches])
    assert len(levels) == 40 and levels.min() > 58.5 and levels.max() < 80.5
    fixed = fixed_clips(find_films([tmp_path]), [], 4, SIZE, silent, exclude)
    assert fixed and all(58.5 < x[:, :4].float().mean() < 80.5 for x in fixed)
    for wrong in ("a.mp4", "a.mp4:1", "a.mp4:x-y", ":1-2"):
        with pytest.raises(ValueError, match="NAME:FROM-TO"):
            parse_exclude(wrong)


def test_more_than_there_is_room_for(tmp_path, monkeypatch):
    """Stretches from all over a film are kept."""
    monkeypatch.setattr(clips, "_RUN", 10)
    film(tmp_path / "a.mp4", 100, level=30)
    films = find_films([tmp_path])
    whole = sum(s.y.numel() for s in Clips(films, [], 4, SIZE, 1, silent)._stretches) * 3 // 2
    part = Clips(films, [], 4, SIZE, 1, silent, room=whole // 2)._stretches
    assert whole / 3 < sum(s.y.numel() for s in part) * 3 // 2 <= whole * 0.6
    starts = {round(float(s.y[0].float().mean())) for s in part}
    assert min(starts) < 45 and max(starts) > 90 and len(starts) > 2


def test_what_can_not_be_used_is_named_and_left_out(folder):
    (folder / "bad.mp4").write_text("text")
    film(folder / "short.mp4", 2)
    film(folder / "small.mp4", 9, 32, 16)
    notes = []
    films = find_films([folder], SIZE, notes.append)
    found = Clips(films, [], 4, SIZE, 5, notes.append)
    for name in ("bad.mp4", "short.mp4", "small.mp4"):
        assert sum(name in note for note in notes) == 1
    assert found[0, 0].shape == (4, 6, 16, 16)
    with pytest.raises(ValueError, match="no film"):
        Clips(films[-1:], [], 4, SIZE, 5, notes.append)
    with pytest.raises(ValueError, match="even"):
        Clips(films, [], 4, 31, 5)


def test_only_photographs(folder):
    found = Clips([], find_stills([folder]), 3, SIZE, 5, silent)
    assert found[0, 0].shape == (3, 6, 16, 16)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:200])
    notes = []
    found = Clips([], find_stills([folder]), 3, SIZE, 5, notes.append)
    assert len({found[i, 0].numpy().tobytes() for i in range(12)}) == 12
    assert len(notes) == 1 and "0.png" in notes[0]


def test_to_video_has_the_levels_of_bt_709():
    """White, black and red of even pictures; no detail is left that half the samples can't hold."""
    for rgb, yuv in (((255, 255, 255), (235, 128, 128)), ((0, 0, 0), (16, 128, 128)),
                     ((255, 0, 0), (63, 102, 240)), ((0, 0, 255), (32, 240, 118))):  # fmt: skip
        x = to_video(torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 21, 16))
        assert x.shape == (6, 10, 8)
        assert (x[:4] == yuv[0]).all() and (x[4] == yuv[1]).all() and (x[5] == yuv[2]).all()
    board = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).repeat(20, 20).expand(3, -1, -1)
    inner = to_video(board)[:, 4:-4, 4:-4].float()
    assert inner[:4].std() < 1


def test_pictures_move_as_told():
    """A shift by whole samples, a quarter turn, and twice the size, against the picture itself."""
    x = np.random.default_rng(0).integers(0, 256, (1, 128, 128))
    y = torch.from_numpy(x).float()
    still = pack(y, y[:, None, ::2, ::2].expand(-1, 2, -1, -1))[0].byte()
    none = np.zeros((3, 2))
    at_rest = synthetic_motion._Motion(none, none[:, 0], none[:, 0], none, none[:, :, None, None])
    view = synthetic_motion._View(still, np.array([64.0, 64.0]), 2.0)
    coarse = torch.nn.functional.avg_pool2d(y, 2)

    def seen(size=SIZE, **changes):
        return view.render(view.grid(replace(at_rest, **changes), size))[0][:, 0]

    middle = coarse[0, 16:48, 16:48]
    assert torch.allclose(seen(), middle.expand(3, -1, -1), atol=0.01)
    shift = np.array([[0.0, 0], [3, 0], [0, -2]])
    assert torch.allclose(seen(shift=shift)[1], coarse[0, 16:48, 19:51], atol=0.01)
    assert torch.allclose(seen(shift=shift)[2], coarse[0, 14:46, 16:48], atol=0.01)
    turned = seen(turn=np.full(3, np.pi / 2))[0]
    assert torch.allclose(turned, middle.rot90(1), atol=0.01)
    small = seen(zoom=np.full(3, np.log(2)))[0]
    assert torch.allclose(small[8:24, 8:24], seen(16, zoom=np.full(3, np.log(2)))[0], atol=0.01)


def test_what_moves_in_photographs():
    x = np.random.default_rng(0).normal(128, 40, (1, 1, 60, 60))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(x).float(), (256, 256))[0]
    still = pack(smooth, smooth[:, None, ::2, ::2].expand(-1, 2, -1, -1))[0].byte()
    moved = [moving_picture(lambda: still, 5, SIZE, np.random.default_rng(i)) for i in range(60)]
    medians = torch.stack([x[:, :4].diff(dim=0).abs().median() for x in moved])
    assert (medians < 4).sum() >= 6, "some cameras stand still, but for noise"
    assert (medians > 4).sum() >= 20, "most move"


def test_fixed_clips(folder):
    films, stills = find_films([folder]), find_stills([folder])
    found = fixed_clips(films, stills, 4, SIZE, silent)
    again = fixed_clips(films, stills, 4, SIZE, silent)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert all(x.shape == (4, 6, 16, 16) and x.dtype == torch.uint8 for x in found)
    assert len(found) == 2 * clips._FIXED + 3


class OfClips(Doubling):
    """A recipe that asks for clips."""

    signal, frames = "clip", 4


@pytest.mark.parametrize(
    ("validation", "counts"),
    [("0.1", (1, 3, 6)), ("0", (2, 3, 0)), ("b.mkv", (1, 3, 6)), ("1.png", (2, 2, 1))],
)
def test_open_data(folder, monkeypatch, validation, counts):
    recipe = OfClips()
    monkeypatch.setattr(training_setup, "recipe", lambda name, options: recipe)
    if "." in validation and not validation.startswith("0"):
        validation = str(folder / validation)
    run = training_setup.Run(
        "test/clips", [str(folder)], validation, None, {}, TrainingConfig(crop=SIZE)
    )
    samples, batches, found = training_setup.open_data(run, 0, silent)
    assert tuple(found.values()) == counts
    assert sum(map(len, batches)) == counts[2] and samples[0, 0].shape == (4, 6, 16, 16)
    recipe.exclude = "c.mkv:1-2"
    with pytest.raises(ValueError, match=r"c\.mkv"):
        training_setup.open_data(run, 0, silent)


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_films([tmp_path / "none"])
    assert find_films([tmp_path]) == [] and find_stills([tmp_path]) == []
