import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.datasets.crops import (
    Crops,
    PictureCache,
    find_pictures,
    fixed_crops,
    hold_out,
)


def save(path, *shape, seed=0):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_crop_is_a_function_of_seed_step_and_number(tmp_path):
    save(tmp_path / "a.png", 70, 64, 3)
    save(tmp_path / "below" / "b.png", 140, 130, 3)
    pictures = find_pictures([tmp_path])
    crops = Crops(pictures, 64, seed=3)
    x = crops[5, 2]
    assert x.shape == (3, 64, 64) and x.dtype == torch.float32 and 0 <= x.min() <= x.max() <= 1
    assert torch.equal(x, Crops(pictures, 64, seed=3)[5, 2])
    for other in (crops[5, 3], crops[6, 2], Crops(pictures, 64, seed=4)[5, 2]):
        assert not torch.equal(x, other)


def test_pictures_of_every_kind_become_rgb(tmp_path):
    save(tmp_path / "grey.png", 40, 40)
    save(tmp_path / "alpha.png", 40, 40, 4)
    wide = np.random.default_rng(0).integers(0, 65536, (40, 40), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "sixteen.png")
    for picture in find_pictures([tmp_path]):
        assert Crops([picture], 32, seed=0)[0, 0].shape == (3, 32, 32)
    grey = fixed_crops(find_pictures([tmp_path / "grey.png"]), 32)[0]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


def test_what_cant_be_used_is_named(tmp_path):
    notes = []
    with pytest.raises(FileNotFoundError):
        find_pictures([tmp_path / "nowhere"])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="no picture that can be read below"):
        find_pictures([tmp_path], note=notes.append)
    assert "text.png" in notes.pop()
    save(tmp_path / "small.png", 31, 90, 3)
    with pytest.raises(ValueError, match="at least 32 x 32; the largest crop that fits is 31"):
        find_pictures([tmp_path], 32)
    save(tmp_path / "whole.png", 64, 64, 3)
    assert len(find_pictures([tmp_path], 32, notes.append)) == 1
    assert "small.png: left out, smaller than a crop of 32" in notes.pop()
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    crops = Crops(find_pictures([tmp_path], 64), 64, seed=0, note=notes.append)
    notes.clear()
    assert all(crops[step, 0].shape == (3, 64, 64) for step in range(20))
    assert len(notes) == 1 and "cut.png" in notes[0]
    crops = Crops(find_pictures([cut]), 64, seed=0)
    with pytest.raises(ValueError, match="none of the pictures"):
        crops[0, 0]


def test_held_out_pictures(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", 32, 40, 3, seed=i)
    pictures = find_pictures([tmp_path])
    kept, held = hold_out(pictures, 0.2, 32, seed=1)
    assert len(held) == 2 and set(kept) | set(held) == set(pictures) and len(kept) == 8
    assert hold_out(pictures, 0.2, 32, seed=1) == (kept, held)
    assert len(hold_out(pictures, 0.9, 3, seed=1)[1]) == 3
    assert hold_out(pictures, 0.0, 32, seed=1) == (pictures, [])
    assert hold_out(pictures[:1], 0.5, 32, seed=1) == (pictures[:1], [])
    crops = fixed_crops(held, 32)
    assert [c.shape for c in crops] == [(3, 32, 32)] * 2


def test_the_cache_stays_within_its_room(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", 64, 64, 3, seed=i)
    cache = PictureCache(room=3 * 64 * 64 * 2)
    for picture in find_pictures([tmp_path]) * 2:
        assert cache.get(picture.path, half=True).shape == (3, 32, 32)
        assert sum(x.numel() for x in cache._kept.values()) <= cache._room
    assert len(cache._kept) > 1
