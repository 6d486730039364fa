"""Files that appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from latentpack.codecs.container import create


def test_create_appears_at_the_end(tmp_path):
    path = tmp_path / "x.lpk"
    with create(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
def test_create_leaves_nothing_behind(tmp_path, old, error):
    path = tmp_path / "x.lpk"
    if old:
        path.write_bytes(old)
    with pytest.raises(error), create(path, force=True) as file:
        file.write(b"new")
        raise error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_create_refuses_and_replaces(tmp_path):
    path = tmp_path / "x.lpk"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="use --force"), create(path):
        pass
    assert path.read_bytes() == b"old"
    with create(path, force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_create_refuses_what_came_meanwhile(tmp_path):
    path = tmp_path / "x.lpk"
    with pytest.raises(FileExistsError), create(path) as file:
        file.write(b"new")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_create_follows_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with create(tmp_path / "link", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_create_honours_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with create(tmp_path / "x") as file:
            file.write(b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_create_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        with create(tmp_path / "no" / "x"):
            pass
    with pytest.raises(IsADirectoryError), create(tmp_path, force=True):
        pass


def test_create_on_a_full_disk(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="free some space, nothing was written") as caught:
        with create(tmp_path / "x"):
            pass
    assert caught.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_create_devices():
    with create("/dev/null", force=True) as file:
        file.write(b"gone")
    with pytest.raises(OSError, match="No space left"):
        with create("/dev/full", force=True) as file:
            file.write(b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_create_standard_output(capfdbinary):
    with create("-") as file:
        file.write(b"\x00\xff")
    assert capfdbinary.readouterr().out == b"\x00\xff"
