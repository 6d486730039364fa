"""`latentpack evaluate video` on short clips."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from latentpack.codecs.codec import Rate
from latentpack.datasets.video_peers import PEERS
from latentpack.scripts import bench_video, video_curves
from latentpack.scripts.video_clips import Clip, Untimed
from latentpack.scripts.video_codecs import bytes_asked, open_by_name
from latentpack.tests.clip_files import write
from latentpack.tests.command_line import fails, run
from latentpack.tests.films import register

PEER = "x264@preset=ultrafast"


@pytest.fixture
def shallow(monkeypatch):
    register(monkeypatch)
    return "video/shallow"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a_clip.mkv")
    write(tmp_path / "b_clip.mkv", 9, seed=1)
    return tmp_path


def rows_of(result):
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["hardware"]["cpu"]
    return {row["codec"]: row for row in found["rows"]}


def test_evaluate(folder, shallow):
    plot = folder / "rd.png"
    result = run("evaluate", "video", "--data", folder, "--codecs", f"{shallow},{PEER}",
                 "--anchor", PEER, "--json", "--plot", plot)  # fmt: skip
    rows = rows_of(result)
    assert set(rows) == {shallow, PEER}
    ours, peer = rows[shallow], rows[PEER]
    assert ours["ours"] and not peer["ours"] and ours["case"] == folder.name
    assert ours["container"] == "lpk" and peer["container"] in ("matroska", "mp4")
    assert peer["bd_rate"] == peer["bd_rate_rgb"] == peer["bd_rate_bare"] == pytest.approx(0)
    assert list(ours["by_clip"]) == ["a_clip.mkv", "b_clip.mkv"]
    assert (
        ours["bd_rate"] == pytest.approx(sum(ours["by_clip"].values()) / 2) and ours["bd_rate"] > 50
    )
    assert ours["bd_rate_ms_ssim"] is None  # the clips are too small for five scales
    for row in rows.values():
        assert len(row["points"]) == 6 and row["anchor"] == PEER
        sizes = [point["bpp"] for point in row["points"]]
        assert sizes == sorted(sizes)
        assert row["points"][0]["psnr_yuv"] < row["points"][-1]["psnr_yuv"]
        assert all(len(point["by_time"]) == 6 for point in row["points"])
        assert all(point["encode_fps"] > 0 and point["decode_fps"] > 0 for point in row["points"])
        for found in row["clips"]:
            frames = {"a_clip.mkv": 6, "b_clip.mkv": 9}[found["clip"]]
            assert found["quality"]["frames"] == frames and found["seconds"] == frames / 25
            assert 0 < found["bare_bytes"] < found["bytes"]
    means = ours["points"][-1]
    last = [found for found in ours["clips"] if found["step"] == means["step"]]
    assert means["kbps"] == pytest.approx(sum(f["bytes"] * 0.008 / f["seconds"] for f in last) / 2)
    assert "YUV PSNR" in result.stdout and "over time" in result.stdout
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_a_run_goes_on_from_its_results(folder, shallow, monkeypatch):
    results = folder / "results.jsonl"
    args = ("evaluate", "video", "--data", folder, "--codecs", f"{shallow},{PEER}", "--quick",
            "--anchor", PEER, "--json", "--results", results)  # fmt: skip
    whole = rows_of(run(*args))
    lines = results.read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    results.write_bytes(b"".join(lines[:7]) + lines[7][:20])  # stopped while it wrote the eighth
    counted = []
    real = video_curves.run
    monkeypatch.setattr(
        video_curves, "run", lambda task, measures: counted.append(task) or real(task, measures)
    )
    again = rows_of(run(*args))
    assert len(counted) == 5
    assert again[shallow]["bd_rate"] == pytest.approx(whole[shallow]["bd_rate"])
    # What is measured in another way is measured again.
    rows_of(run(*args, "--frames", 4))
    assert len(counted) == 17
    rows_of(run(*args, "--gop", 3))
    assert len(counted) == 29
    results.write_bytes(b'{"a": 1}\n')
    assert "line 1: no result of evaluate" in fails(*args)


def test_frames_size_and_the_anchor_that_is_added(folder, shallow):
    args = ("evaluate", "video", "--data", folder, "--codecs", shallow, "--quick", "--json",
            "--limit", 1, "--frames", 3, "--resize", "32x16")  # fmt: skip
    rows = rows_of(run(*args, "--anchor", PEER))
    assert set(rows) == {shallow, PEER}
    assert all(found["quality"]["frames"] == 3 for found in rows[shallow]["clips"])
    assert all(found["pixels"] == 512 for found in rows[shallow]["clips"])
    for wrong in ("32", "0x4", "axb"):
        assert "--resize must be WIDTHxHEIGHT" in fails(*args[:-1], wrong)


@pytest.mark.parametrize(("bits", "colours"), [(8, 3), (10, 3), (8, 1)])
def test_clips_are_read_as_they_are(tmp_path, bits, colours):
    x = write(tmp_path / "a.mkv", 5, 45, 33, bits, colours)
    found = Clip(tmp_path / "a.mkv")
    assert (found.format.width, found.format.height) == (45, 33)
    assert (found.format.bits, found.format.colours) == (bits, colours)
    frames = list(found)
    assert [frame.pts for frame in frames] == [0, 40, 80, 120, 160]
    for number, frame in enumerate(frames):
        for plane, samples in zip(frame.planes, x, strict=True):
            assert (plane == samples[number]).all() and plane.dtype == samples.dtype
    assert found.length.frames == 5 and found.length.seconds == pytest.approx(0.2)
    later = Clip(tmp_path / "a.mkv", most=2, start=0.07)
    assert [frame.pts for frame in later] == [80, 120] and later.length.frames == 2
    small = Clip(tmp_path / "a.mkv", size=(20, 10))
    assert [list(plane.shape) for plane in next(iter(small)).planes] == [
        [10, 20], [5, 10], [5, 10]
    ][:colours]  # fmt: skip
    with pytest.raises(ValueError, match="no frame is shown"):
        list(Clip(tmp_path / "a.mkv", start=9))


def test_colours_of_a_clip_are_its_own(tmp_path):
    write(tmp_path / "a.mkv", 1, matrix=5, range="full")
    colours = Clip(tmp_path / "a.mkv").colours
    assert colours.matrix == 5 and colours.full_range and colours.peak == 255


@pytest.mark.parametrize("name", [PEER, "video/shallow"])
def test_rates_are_met(tmp_path, shallow, name):
    write(tmp_path / "a.mkv", 8, 96, 64)
    source, codec = Clip(tmp_path / "a.mkv"), open_by_name(name)
    asked = bytes_asked(source, Rate(kbps=400))
    assert asked == pytest.approx(400 * 125 * 0.32)
    assert len(codec.meet(source, Rate(kbps=400)).data) == pytest.approx(asked, rel=0.1)
    assert bytes_asked(source, Rate(bpp=1)) == 8 * 96 * 64 / 8
    assert len(codec.meet(source, Rate(max_bytes=12000)).data) <= 12000
    small, large = (len(codec.meet(source, Rate(quality=q)).data) for q in (20, 80))
    assert small < large
    with pytest.raises(ValueError, match="videos take no ratio here"):
        bytes_asked(source, Rate(ratio=3))


def test_reading_is_not_timed_as_coding():
    def slowly():
        for number in range(3):
            sum(range(300_000))
            yield number

    items = Untimed(slowly())
    assert list(items) == [0, 1, 2] and items.seconds > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "nope"], "codec 'nope' is unknown; there are "),
        (["--codecs", "x264@speed=3"], "x264 has no option 'speed'; it has preset, tune"),
        (["--codecs", "x264@preset"], "option 'preset' has no value"),
        (["--codecs", "x264@preset=hasty"], "libx264 does not take it"),
        (["--codecs", "x264", "--anchor", "h264"], "codec 'h264' is unknown"),
        (["--codecs", "x264", "--data", "/none"], "/none: no such file"),
        (["--codecs", "x264", "--content", "music"], "--content is for audio"),
    ],
)
def test_wrong_input_is_one_line(folder, options, message):
    assert message in fails("evaluate", "video", "--data", folder, *options)


def test_options_of_videos_are_refused_for_pictures(folder):
    assert "--gop is for video" in fails("evaluate", "image", "--data", folder, "--gop", "8")


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"ftypnothing")
    line = fails("evaluate", "video", "--data", tmp_path, "--codecs", "x264", "--quick")
    assert "broken.mp4" in line


def test_a_missing_peer_is_said_and_left_out(folder, monkeypatch):
    real = type(PEERS["x264"]).missing
    monkeypatch.setattr(
        type(PEERS["x264"]), "missing",
        lambda self: "an av with libvpx-vp9" if self.name == "vp9" else real(self),
    )  # fmt: skip
    result = run("evaluate", "video", "--data", folder, "--codecs", f"vp9,{PEER}", "--quick",
                 "--anchor", PEER)  # fmt: skip
    assert result.exit_code == 0
    assert "note: vp9 is left out: it needs an av with libvpx-vp9" in result.stderr
    result = run("evaluate", "video", "--data", folder, "--codecs", PEER, "--anchor", "vp9")
    assert result.exit_code == 2 and "vp9 can't run here; name another" in result.stderr


def test_the_benchmark_has_a_row_for_each_codec(tmp_path, shallow, monkeypatch):
    monkeypatch.setattr(bench_video, "_OURS", (shallow, "video/unknown"))
    monkeypatch.setattr(bench_video, "_PEERS", (PEER.partition("@")[0],))
    bench_video.write_sample(tmp_path / "a.mkv", 64, 48, 5)
    result = CliRunner().invoke(bench_video.bench_video, [str(tmp_path / "a.mkv"), "--json"])
    rows = rows_of(result)
    assert list(rows) == [shallow, "x264"] and "5 frames of 64x48" in result.stdout
    for row in rows.values():
        assert row["decode_fps"] * 64 * 48 / 1e6 == pytest.approx(row["decode_mpx_per_s"])
        assert row["encode_fps"] > 0 and row["psnr_yuv"] > 25
