"""FFmpeg's video encoders: what comes back, sizes, key frames, settings."""

import io
import math
from fractions import Fraction
from types import SimpleNamespace

import av
import pytest
import torch

from latentpack.datasets.video_metrics import Colours, Meter
from latentpack.datasets.video_peers import PEERS, Shape, bare_bytes

SHAPE = Shape(96, 64, 8, Fraction(1, 1000), Fraction(25), 4)
COUNT = 10


def clip(shape=SHAPE, count=COUNT, grey=False):
    """Waves that move, with noise that does not; its times are not quite even."""
    rows = torch.arange(shape.height)[:, None]
    columns = torch.arange(shape.width)[None]
    noise = torch.rand(shape.height, shape.width, generator=torch.Generator().manual_seed(1))
    dtype, scale = (torch.uint8, 1) if shape.bits == 8 else (torch.int16, 2 ** (shape.bits - 8))
    for number in range(count):
        wave = torch.sin((columns + 3 * number) / 7) + torch.cos((rows - number) / 5)
        y = ((wave * 40 + 128 + 12 * noise) * scale).to(dtype)
        u = ((torch.sin((rows + columns) / 19) * 30 + 128) * scale).to(dtype)[::2, ::2]
        planes = (y,) if grey else (y, u.contiguous(), (255 * scale - u).contiguous())
        yield SimpleNamespace(planes=planes, pts=40 * number + number % 2, duration=40)


def through(coder, step, shape=SHAPE, grey=False):
    """The coded clip, and how good it is."""
    coded = coder.encode(clip(shape, grey=grey), shape, step)
    meter = Meter(Colours(shape.bits), ms_ssim=False)
    decoded = coder.decode(coded.data, shape)
    for frame, planes in zip(clip(shape, grey=grey), decoded, strict=True):
        meter.add(frame.planes, planes[: len(frame.planes)])
    return coded, meter.clip()


def ready(name):
    if missing := PEERS[name].missing():
        pytest.skip(f"{name} was NOT run: it needs {missing}")
    return PEERS[name]


@pytest.mark.parametrize("name", PEERS)
def test_they_give_the_clip_back_with_a_key_frame_to_a_group(name):
    coder = ready(name)
    small, poor = through(coder, coder.steps[0])
    large, good = through(coder, coder.steps[-1])
    assert len(small.data) < len(large.data)
    assert poor.psnr_yuv + 5 < good.psnr_yuv and good.psnr_yuv > 38
    assert 0 < small.bare_bytes < len(small.data) and large.bare_bytes < len(large.data)
    with av.open(io.BytesIO(large.data)) as container:
        assert container.format.name.startswith(large.container[:3])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        base = container.streams.video[0].time_base
    keys = sorted(round(packet.pts * base * 1000) for packet in packets if packet.is_keyframe)
    assert keys == [0, 160, 320]
    times = sorted(round(packet.pts * base * 1000) for packet in packets)
    assert times == [frame.pts for frame in clip()]


@pytest.mark.parametrize("name", ["x264", "x265"])
def test_only_low_delay_codes_frames_in_order_of_time(name):
    for coder in (ready(name), ready(f"{name}-ld")):
        with av.open(io.BytesIO(through(coder, 30)[0].data)) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.size]
        assert (times == sorted(times)) == coder.low_delay


@pytest.mark.parametrize("name", ["x264", "x265", "svt-av1"])
def test_ten_bits_odd_sides_and_grey(name):
    coder = ready(name)
    deep = Shape(96, 64, 10, *vars_of(SHAPE))
    assert through(coder, coder.steps[-1], deep)[1].psnr_yuv > 38
    odd = Shape(95, 67, 8, *vars_of(SHAPE))
    assert through(coder, coder.steps[-1], odd)[1].psnr_yuv > 38
    assert through(coder, coder.steps[-1], odd, grey=True)[1].psnr_y > 36


def vars_of(shape):
    return shape.time_base, shape.frame_rate, shape.gop


def test_x264_carries_no_text():
    coded, _ = through(ready("x264"), 30)
    assert b"x264" not in coded.data and b"Lavc" not in coded.data
    assert bare_bytes(coded.data) == coded.bare_bytes


def test_settings_by_name():
    coder = ready("x264").with_options({"preset": "ultrafast", "tune": "psnr"})
    assert coder.name == "x264@preset=ultrafast,tune=psnr"
    assert coder.about == "libx264, preset ultrafast, tune psnr"
    assert coder.options(coder.settings, 30, 4, True)["tune"] == "psnr+zerolatency"
    fast, good = through(coder, 30), through(PEERS["x264"], 30)
    assert fast[0].data != good[0].data
    assert math.isfinite(fast[1].psnr_yuv)
    with pytest.raises(ValueError, match="x264 has no option 'speed'; it has preset, tune"):
        PEERS["x264"].with_options({"speed": "1"})
    with pytest.raises(ValueError, match="libx264 does not take it"):
        through(PEERS["x264"].with_options({"preset": "hasty"}), 30)
