"""`latentpack encode`: targets, files, folders, pipes, and every way to go wrong."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentpack.codecs import output
from latentpack.codecs.container import Reader
from latentpack.scripts import jobs
from latentpack.tests.command_line import fails, run

pytest_plugins = ["latentpack.tests.picture_double"]
pytestmark = pytest.mark.usefixtures("picture_codec")
ROOT = Path(__file__).parents[1]


def make_picture(path, width=40, height=30, channels=3, **options):
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None]
    samples = (ramp + np.arange(channels) * 20).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples.squeeze(-1) if channels == 1 else samples).save(path, **options)
    return path


@pytest.fixture
def photo(tmp_path):
    return make_picture(tmp_path / "photo.png")


def test_the_output_stands_beside_the_picture(photo):
    result = run("encode", photo)
    packed = photo.with_suffix(".lpk")
    assert result.exit_code == 0, result.output
    size = packed.stat().st_size
    bpp = size * 8 / 1200
    assert result.stdout == f"{photo} -> {packed}: {size:,} bytes, {bpp:.3f} bpp\n"
    assert Reader(packed.read_bytes()).params["s"] == [40, 30, 3]
    assert sorted(file.name for file in photo.parent.iterdir()) == ["photo.lpk", "photo.png"]


def test_a_size_counts_the_whole_file(photo):
    assert run("encode", photo, "--quality", 100).exit_code == 0
    largest = photo.with_suffix(".lpk").stat().st_size
    result = run("encode", photo, "-f", "--max-bytes", largest - 1)
    assert photo.with_suffix(".lpk").stat().st_size < largest
    assert f"asked for {largest - 1:,} bytes, the nearest reached is" in result.stderr
    result = run("encode", photo, "-f", "--bpp", (largest + 2) * 8 / 1200)
    assert photo.with_suffix(".lpk").stat().st_size == largest
    assert not result.stderr


def test_psnr_is_measured_where_it_is_asked_for(photo):
    result = run("encode", photo, "--psnr", 30)
    assert " dB" in result.stdout and "asked for 30 dB, the nearest reached is" in result.stderr
    result = run("encode", photo, "-f", "-q", 100, "--show-psnr")
    assert "100.00 dB" in result.stdout


def test_metadata_go_into_the_file(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    photo = make_picture(tmp_path / "a.jpg", exif=exif, icc_profile=bytes(600), dpi=(300, 300))
    assert run("encode", photo).exit_code == 0
    metadata = Reader((tmp_path / "a.lpk").read_bytes()).metadata
    assert metadata["icc"] == bytes(600) and metadata["exif"].startswith(b"Exif")
    assert metadata["dpi"] == [300, 300]
    assert run("encode", photo, "-o", tmp_path / "b.lpk", "--no-metadata").exit_code == 0
    assert Reader((tmp_path / "b.lpk").read_bytes()).metadata == {}
    result = run("encode", photo, "-o", tmp_path / "c.lpk", "--max-bytes", 700)
    assert "exceed half of the size asked" in result.stderr
    assert "icc" not in Reader((tmp_path / "c.lpk").read_bytes()).metadata


def test_what_was_changed_is_said_and_kept(tmp_path):
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    deep.save(tmp_path / "deep.png")
    result = run("encode", tmp_path / "deep.png")
    assert "note: " in result.stderr and "16-bit samples coded with 8 bits" in result.stderr
    metadata = Reader((tmp_path / "deep.lpk").read_bytes()).metadata
    assert metadata["source"]["bit_depth"] == 16 and "16-bit" in metadata["notes"][0]


def test_folders_and_patterns(tmp_path):
    for name in ("in/a.png", "in/deep/b.JPG", "in/.hidden/c.png", "x1.png", "x2.png"):
        make_picture(tmp_path / name)
    (tmp_path / "in" / "text.txt").write_text("no picture")
    result = run("encode", tmp_path / "in", tmp_path / "x*.png", "-o", tmp_path / "out")
    assert result.exit_code == 0 and result.stdout.count("->") == 4
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.lpk"))
    assert made == ["a.lpk", "deep/b.lpk", "x1.lpk", "x2.lpk"]


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    make_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    make_picture(tmp_path / "c.png")
    result = run("encode", tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png")
    assert result.exit_code == 2 and result.stdout.count("->") == 2
    lines = result.stderr.splitlines()
    assert "b.png: not a picture but a text file" in lines[0]
    assert lines[1] == "latentpack: 1 of 3 files failed, the others are done"
    assert not (tmp_path / "b.lpk").exists()


def test_the_progress_bar(tmp_path, monkeypatch):
    names = [str(make_picture(tmp_path / f"{n}.png")) for n in range(3)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with jobs._bar([jobs.Job(name, "") for name in names]) as advance:
        for _ in names:
            advance()
    seen = []
    monkeypatch.setattr(jobs, "_bar", lambda todo: seen.append(len(todo)) or jobs.nullcontext(int))
    jobs.run_jobs([jobs.Job(name, "x") for name in names], lambda job: "")
    assert seen == [3]


def test_pipes(photo):
    result = run("encode", "-", "-q", 100, input=photo.read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"\x89LPK")
    assert "- -> -: " in result.stderr
    assert Reader(result.stdout_bytes).params["s"] == [40, 30, 3]


def test_existing_files_stay(photo):
    packed = photo.with_suffix(".lpk")
    packed.write_text("precious")
    assert "--force" in fails("encode", photo)
    assert packed.read_text() == "precious"
    assert run("encode", photo, "--force").exit_code == 0
    assert packed.read_bytes().startswith(b"\x89LPK")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.png"], "none.png: no such file"),
        (["*.png"], "no file matches"),
        (["empty"], "empty: the folder holds no"),
        (["text.png"], "text.png: not a picture but a text file"),
        (["model.safetensors"], "`latentpack pack` packs it"),
        (["photo.png", "-o", "no/where/a.lpk"], "no/where"),
        (["photo.png", "photo2.png", "-o", "-"], "can't go to standard output"),
        (["photo.png", "photo.bmp"], "would both become photo.lpk"),
        (["photo.png", "-o", "photo.png", "-f"], "would overwrite itself"),
        (["photo.png", "-q", "50", "--max-bytes", "9"], "--quality and --max-bytes exclude"),
        (["photo.png", "-q", "x"], "'x' is not a valid float"),
        (["photo.png", "--bpp", "0"], "rate bpp must be finite and above 0"),
        (["photo.png", "--codec", "image/none"], "codec 'image/none' is unknown"),
        (["photo.png", "--codec", "tensor/lossless"], "use pack and unpack"),
        (["photo.png", "--max-error", "2"], "has no option 'max_error'"),
        (["photo.png", "--time-budget", "5 parsecs"], "'5 parsecs' is no time above 0"),
        (["photo.png", "--max-pixels", "100"], "1200 pixels, the limit is 100"),
        (["cut.png"], "cut.png: the picture is damaged or cut short"),
        (["nan.png"], "the latents hold NaN"),
        ([], "missing argument 'FILE...'"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    if "*.png" not in args:
        make_picture(Path("photo.png"))
        make_picture(Path("photo2.png"))
        make_picture(Path("photo.bmp"))
        Image.new("L", (9, 9), 77).save("nan.png")
        Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:60])
        Path("text.png").write_text("I am text")
    Path("empty").mkdir()
    Path("model.safetensors").write_bytes(bytes(8))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    if "tensor/lossless" in args:
        pytest.importorskip("latentpack.codecs.tensor.lossless")
    assert message in fails("encode", *args)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_full_disk_leaves_nothing(photo, monkeypatch):
    packed = photo.with_suffix(".lpk")
    packed.write_text("precious")

    def no_space(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output.os, "fsync", no_space)
    line = fails("encode", photo, "--force")
    assert "photo.lpk: no space left on device" in line
    assert packed.read_text() == "precious"
    assert sorted(file.name for file in photo.parent.iterdir()) == ["photo.lpk", "photo.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device(photo):
    line = fails("encode", photo, "-o", "/dev/full", "--force")
    assert "/dev/full: no space left on device" in line


def test_a_folder_without_permission(photo, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(photo.parent))

    monkeypatch.setattr(output, "_new", denied)  # root may write anywhere, so that chmod is no test
    assert f"{photo.parent}: permission denied" in fails("encode", photo)


def test_as_a_process(tmp_path):
    """The script itself, with an error that needs no codec."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".import")}
    command = [sys.executable, str(ROOT / "scripts" / "encode.py"), str(tmp_path / "none.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"latentpack: {tmp_path / 'none.png'}: no such file or directory\n"
