"""Figures of decoded video against ones worked out by hand and with other libraries."""

import math

import numpy as np
import pytest
import torch

from latentpack.datasets.video_metrics import Colours, Meter, drift_db, psnr_rgb


def frame(height=10, width=12, seed=0, bits=8):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.uint8 if bits == 8 else torch.int16
    shapes = [(height, width)] + [(-(-height // 2), -(-width // 2))] * 2
    return [torch.randint(16, 2**bits - 20, s, generator=generator).to(dtype) for s in shapes]


def moved(planes, *steps):
    return [plane + step for plane, step in zip(planes, steps, strict=True)]


def db(error, peak=255):
    return 10 * math.log10(peak**2 / error**2)


@pytest.mark.parametrize("bits", [8, 10])
def test_psnr_of_planes_and_their_mean(bits):
    x, peak = frame(bits=bits), 2**bits - 1
    found = Meter(Colours(bits), ms_ssim=False).add(x, moved(x, 2, 3, 5))
    assert found.psnr_y == pytest.approx(db(2, peak))
    assert found.psnr_u == pytest.approx(db(3, peak))
    assert found.psnr_v == pytest.approx(db(5, peak))
    assert found.psnr_yuv == pytest.approx((6 * db(2, peak) + db(3, peak) + db(5, peak)) / 8)


def test_nothing_differs_and_all_differs():
    x = frame()
    same = Meter(Colours(), ms_ssim=False).add(x, x)
    assert same.psnr_y == same.psnr_yuv == same.psnr_rgb == 100
    black, white = [torch.zeros(1, 1).byte()], [torch.full((1, 1), 255).byte()]
    assert Meter(Colours()).add(black, white).psnr_y == pytest.approx(0)


def test_grey_has_no_colours():
    found = Meter(Colours(), ms_ssim=False).add(frame()[:1], moved(frame()[:1], 4))
    assert found.psnr_yuv == found.psnr_y == pytest.approx(db(4))
    assert found.psnr_u is found.psnr_v is found.psnr_rgb is None


@pytest.mark.parametrize("size", [(10, 12), (9, 11), (1, 1)])
@pytest.mark.parametrize("colours", [Colours(), Colours(8, 6, True), Colours(10, 9)])
def test_rgb_as_by_converting_both(size, colours):
    """The plain way: both frames to RGB, by the definition of H.273, then their difference."""
    kr, kb = {2: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[colours.matrix]
    scale = 2 ** (colours.bits - 8)
    x, x_hat = frame(*size, 1, colours.bits), frame(*size, 2, colours.bits)

    def rgb(planes):
        y, u, v = (plane.numpy().astype(float) for plane in planes)
        u, v = (p.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]] for p in (u, v))
        if colours.full_range:
            y, u, v = y / colours.peak, (u - 128) / colours.peak, (v - 128) / colours.peak
        else:
            y = (y - 16 * scale) / (219 * scale)
            u, v = ((p - 128 * scale) / (224 * scale) for p in (u, v))
        red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
        return np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue])

    expected = -10 * math.log10(np.square(rgb(x) - rgb(x_hat)).mean())
    errors = [b.int() - a.int() for a, b in zip(x, x_hat, strict=True)]
    assert psnr_rgb(errors, colours) == pytest.approx(expected, abs=1e-9)


def test_change_tells_flicker_from_a_steady_error():
    x = [frame(seed=seed) for seed in range(4)]
    steady, flicker = Meter(Colours(), ms_ssim=False), Meter(Colours(), ms_ssim=False)
    for number, planes in enumerate(x):
        first = steady.add(planes, moved(planes, 4, 4, 4))
        second = flicker.add(planes, moved(planes, 4 if number % 2 else -4, 4, 4))
        assert (first.change is None) == (number == 0)
    assert first.psnr_y == second.psnr_y
    assert first.change == 100 and second.change == pytest.approx(db(8))
    assert flicker.clip().change == pytest.approx(db(8))


def test_means_worst_and_drift_of_a_clip():
    meter = Meter(Colours(), ms_ssim=False)
    for error in (1, 2, 4, 8):
        meter.add(frame(), moved(frame(), error, error, error))
    clip = meter.clip()
    by_frame = [db(error) for error in (1, 2, 4, 8)]
    assert clip.frames == 4 and clip.yuv_by_frame == pytest.approx(by_frame)
    assert clip.psnr_y == pytest.approx(sum(by_frame) / 4)
    assert clip.psnr_y_min == pytest.approx(db(8))
    assert clip.drift_db == pytest.approx(db(8) - db(1))  # a straight line
    assert drift_db([40.0, 41.0]) is None
    assert drift_db([30.0, 40.0, 30.0]) == pytest.approx(0)


def test_ms_ssim_where_it_applies():
    x = torch.randint(0, 256, (176, 180), generator=torch.Generator().manual_seed(1)).byte()
    close, far = (x // 8 * 8 + 4), (x // 64 * 64 + 32)
    assert Meter(Colours()).add([x], [x]).ms_ssim == pytest.approx(1)
    values = [Meter(Colours()).add([x], [y]).ms_ssim for y in (close, far)]
    assert 0.5 < values[1] < values[0] < 1
    deep = [Meter(Colours(10)).add([x.short() * 4], [y.short() * 4]).ms_ssim for y in (close, far)]
    assert deep == pytest.approx(values, abs=1e-3)  # the peaks differ by a factor of 1023 / 255
    assert Meter(Colours()).add([x[:160]], [x[:160]]).ms_ssim is None


def test_wrong_frames_are_refused():
    x = frame()
    for x_hat in (x[:1], frame(8), [plane.short() for plane in x]):
        with pytest.raises(ValueError, match="planes"):
            Meter(Colours()).add(x, x_hat)
    with pytest.raises(ValueError, match="there was none"):
        Meter(Colours()).clip()
