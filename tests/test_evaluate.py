"""`latentpack evaluate image` on tiny pictures, and the peers' round trips."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentpack.codecs.codec import Rate
from latentpack.datasets import kodak
from latentpack.datasets.metrics import bd_rate_percent, psnr_db
from latentpack.datasets.picture_peers import PEERS, peer
from latentpack.scripts import picture_codecs, rate_distortion
from latentpack.tests.command_line import fails, run

pytest_plugins = ["latentpack.tests.picture_double"]


def smooth(height=48, width=50):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c)) + np.cos(columns / (7 - c)) for c in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    Image.fromarray(smooth()[::-1]).save(tmp_path / "b.png")
    return tmp_path


@pytest.mark.parametrize("name", PEERS)
def test_peers_give_the_picture_back(name):
    x = torch.from_numpy(smooth()).permute(2, 0, 1).contiguous()
    coder = peer(name)
    small, large = coder.encode(x, coder.steps[1]), coder.encode(x, coder.steps[-1])
    assert len(small) < len(large)
    x_hat = coder.decode(large)
    assert x_hat.dtype == torch.uint8 and x_hat.shape == x.shape
    assert psnr_db(x, coder.decode(small)) < psnr_db(x, x_hat) and psnr_db(x, x_hat) > 33


def test_jpeg_of_noise_fits_its_buffer():
    x = torch.randint(0, 256, (3, 200, 300), generator=torch.Generator().manual_seed(1)).byte()
    assert peer("jpeg").decode(peer("jpeg").encode(x, 100)).shape == x.shape


def test_hevc_colours_are_exact_before_coding():
    from latentpack.datasets.picture_peers import _from_ycbcr, _to_ycbcr

    x = torch.randint(0, 256, (3, 9, 11), generator=torch.Generator().manual_seed(1)).byte()
    assert (_from_ycbcr(_to_ycbcr(x)).int() - x.int()).abs().max() <= 1


def test_evaluate(folder, picture_codec):
    plot = folder / "rd.png"
    result = run("evaluate", "image", "--data", folder, "--codecs", "image/light,jpeg,webp",
                 "--json", "--plot", plot)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "BD-rate" in result.stdout and "2 pictures" in result.stdout
    assert "only codecs of this run" in result.stdout  # the folder is not Kodak
    found = json.loads(result.stdout.splitlines()[-1])
    rows = {row["codec"]: row for row in found["rows"]}
    assert list(rows) == ["image/light", "jpeg", "webp"] and found["hardware"]["cpu"]
    assert rows["jpeg"]["bd_rate_vs_jpeg"] == pytest.approx(0)
    assert rows["webp"]["bd_rate_vs_jpeg"] < 0 and rows["webp"]["case"] == folder.name
    point = rows["webp"]["points"][0]
    assert set(point) == {"bpp", "psnr_db", "ms_ssim", "encode_s_per_mpx", "decode_s_per_mpx"}
    assert point["ms_ssim"] is None  # the pictures are too small for five scales
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_quick_and_limit(folder):
    points = {}
    for options in ((), ("--limit", "1"), ("--quick",)):
        line = run("evaluate", "image", "--data", folder, "--codecs", "jpeg", "--json", *options)
        points[options] = json.loads(line.stdout.splitlines()[-1])["rows"][0]["points"]
    assert len(points["--quick",]) == (len(points[()]) + 1) // 2
    assert len(points["--limit", "1"]) == len(points[()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "nope"], "codec 'nope' is unknown; there are image/light"),
        (["--codecs", "jpeg", "--data", "/none"], "/none: no such file"),
    ],
)
def test_wrong_input_is_one_line(folder, options, message):
    assert message in fails("evaluate", "image", "--data", folder, *options)


def points_of(result):
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout.splitlines()[-1])["rows"]
    return {row["codec"]: [(p["bpp"], p["psnr_db"]) for p in row["points"]] for row in rows}


def test_a_run_goes_on_from_its_results(folder, tmp_path, monkeypatch):
    results = tmp_path / "results.jsonl"
    args = ("evaluate", "image", "--data", folder, "--codecs", "jpeg,webp", "--results", results)
    whole = points_of(run(*args, "--json"))
    lines = results.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * 2 * 9
    results.write_bytes(b"".join(lines[:7]) + lines[7][:30])  # stopped while it wrote the eighth
    counted = []
    real = rate_distortion._run
    monkeypatch.setattr(rate_distortion, "_run", lambda task: counted.append(task) or real(task))
    assert points_of(run(*args, "--json")) == whole
    assert len(counted) == len(lines) - 7
    assert len(results.read_bytes().splitlines()) == len(lines)
    results.write_bytes(b'{"a": 1}\n')
    assert "line 1: no result of evaluate" in fails(*args)


def test_processes_give_the_same(folder):
    args = ("evaluate", "image", "--data", folder, "--codecs", "jpeg,jxl", "--quick", "--json")
    assert points_of(run(*args, "--jobs", "2")) == points_of(run(*args))


def test_a_codec_that_fails_is_named(folder):
    Image.fromarray(smooth(8, 8)).save(folder / "small.png")
    line = fails("evaluate", "image", "--data", folder, "--codecs", "hevc", "--quick")
    assert "small.png: hevc: x265 takes no pictures below" in line


# ---- Kodak


def test_kodak_is_known_by_names_and_sizes(tmp_path):
    files = [tmp_path / f"kodim{number:02}.png" for number in range(1, 25)]
    for number, file in enumerate(files):
        Image.new("L", (512, 768) if number % 3 else (768, 512)).save(file)
    assert kodak.is_kodak(files)
    assert not kodak.is_kodak(files[:-1]) and not kodak.is_kodak(files[:-1] + files[:1])
    Image.new("L", (384, 256)).save(files[4])
    assert not kodak.is_kodak(files)


def test_stored_curves():
    curves = {curve.name: curve for curve in kodak.curves()}
    assert len(curves) == 34 and {"jpeg", "hevc", "VTM", "Cool-Chic 5.0"} <= set(curves)
    for curve in curves.values():
        assert curve.source.startswith(("measured, ", "published, ")) and len(curve.points) > 3
        bpp, psnr, similarity = zip(*curve.points, strict=True)
        assert list(bpp) == sorted(bpp) and list(psnr) == sorted(psnr)
        assert all(value is None or 0.5 < value < 1 for value in similarity)
    # What the tables say that these curves come from.
    known = {
        "webp": -35.1,
        "hevc": -54.4,
        "VTM": -64.3,
        "Cool-Chic 5.0": -64.9,
        "HPCM large": -70.3,
    }
    for name, percent in known.items():
        pairs = [[point[:2] for point in curves[which].points] for which in ("jpeg", name)]
        assert bd_rate_percent(*pairs) == pytest.approx(percent, abs=0.15)


def test_stored_curves_stand_beside_those_of_the_run(folder, monkeypatch):
    monkeypatch.setattr(kodak, "is_kodak", lambda files: True)
    plot = folder / "rd.svg"
    result = run("evaluate", "image", "--data", folder, "--codecs", "webp", "--json",
                 "--plot", plot, "--log-rate")  # fmt: skip
    assert result.exit_code == 0 and "stored curves of the same pictures" in result.stdout
    rows = {row["codec"]: row for row in json.loads(result.stdout.splitlines()[-1])["rows"]}
    assert len(rows) == 34 and not rows["webp"]["stored"] and len(rows["webp"]["pictures"]) == 18
    assert rows["VTM"]["stored"] and rows["VTM"]["pictures"] == []
    assert rows["VTM"]["bd_rate_vs_jpeg"] == pytest.approx(-64.3, abs=0.1)
    assert rows["webp"]["bd_rate_vs_jpeg"] is not None  # against the stored JPEG
    assert plot.read_text().startswith("<?xml")


def test_checkpoints_of_one_rate_make_a_curve(folder, tmp_path):
    from compressai.registry import MODELS

    for number in range(2):
        torch.manual_seed(0)
        model = MODELS["bmshj2018-factorized"](8, 12).eval()
        with torch.no_grad():
            model.g_a[-1].weight *= 4 ** (2 + number)  # latents of larger numbers: more bytes
        model.update()
        torch.save(model.state_dict(), tmp_path / f"q{number}.pth")
    name = f"image/compressai@weights={tmp_path}/q*.pth"
    found = points_of(run("evaluate", "image", "--data", folder, "--codecs", name, "--json"))[name]
    assert len(found) == 2 and found[0][0] < found[1][0]
    codec = picture_codecs.open_by_name(name)
    x = torch.from_numpy(smooth()).permute(2, 0, 1).contiguous()
    files = [codec.encode(x, step) for step in codec.steps]
    for file in files:
        assert codec.meet(x, Rate(max_bytes=len(file))) == file
        assert codec.decode(file).shape == x.shape
    missing = "image/compressai@weights=/none/*.pth"
    assert "no file matches" in fails("evaluate", "image", "--data", folder, "--codecs", missing)
