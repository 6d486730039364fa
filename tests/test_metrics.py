"""Metrics and BD-rate against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from latentpack.datasets.metrics import bd_rate_percent, ms_ssim, psnr_db


def test_psnr():
    x = torch.zeros(3, 300, 4, dtype=torch.uint8)
    assert psnr_db(x, x) == 100
    assert psnr_db(x, x + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(x, x + 255) == pytest.approx(0)
    x_hat = x.clone()
    x_hat[0, 0, 0] = 60  # one of 3600 samples is off by 60: the mean square error is 1
    assert psnr_db(x, x_hat) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ValueError, match="differ in shape"):
        psnr_db(x, x[:1])


def test_ms_ssim():
    x = torch.randint(0, 256, (3, 176, 180), generator=torch.Generator().manual_seed(0)).byte()
    assert ms_ssim(x, x) == pytest.approx(1)
    assert ms_ssim(x, 255 - x) < 0.1
    assert ms_ssim(x[:, :160], x[:, :160]) is None


CURVE = [(0.2, 28.0), (0.4, 31.0), (0.8, 34.5), (1.6, 38.0)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
def test_a_constant_factor_is_the_bd_rate(factor):
    scaled = [(rate * factor, quality) for rate, quality in CURVE]
    assert bd_rate_percent(CURVE, scaled) == pytest.approx((factor - 1) * 100)
    shuffled = [scaled[2], scaled[0], scaled[3], scaled[1]]
    assert bd_rate_percent(CURVE, shuffled) == pytest.approx((factor - 1) * 100)


def test_bd_rate_of_straight_lines():
    """Log rates 0 and (q - 30) / 10 over 30..40: the mean difference is 1/2, e^(1/2) - 1."""
    flat = [(1.0, 30.0), (1.0, 40.0)]
    rising = [(1.0, 30.0), (math.exp(0.5), 35.0), (math.e, 40.0)]
    assert bd_rate_percent(flat, rising) == pytest.approx((math.exp(0.5) - 1) * 100)
    assert bd_rate_percent(rising, flat) == pytest.approx((math.exp(-0.5) - 1) * 100)


def test_bd_rate_over_the_common_qualities_only():
    wide = [(0.1, 20.0), *CURVE, (9.0, 60.0)]
    assert bd_rate_percent(CURVE, [(r / 2, q) for r, q in CURVE]) == pytest.approx(-50)
    assert abs(bd_rate_percent(CURVE, wide)) < 1  # the ends bend the inner curve a little
    assert math.isnan(bd_rate_percent(CURVE, [(1, 50), (2, 60)]))
    with pytest.raises(ValueError, match="two points of different quality"):
        bd_rate_percent(CURVE, [(1, 30), (2, 30)])


def test_bd_rate_is_near_the_cubic_of_the_first_proposal():
    """VCEG-M33 fits one cubic to four points; piecewise interpolation differs by a percent."""
    anchor = [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)]
    tested = [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)]
    low, high = 31.42, 40.28
    areas = []
    for curve in (anchor, tested):
        rates, qualities = zip(*curve, strict=True)
        cubic = np.polynomial.Polynomial.fit(qualities, np.log(rates), 3).integ()
        areas.append(cubic(high) - cubic(low))
    expected = (math.exp((areas[1] - areas[0]) / (high - low)) - 1) * 100
    assert bd_rate_percent(anchor, tested) == pytest.approx(expected, abs=1)
