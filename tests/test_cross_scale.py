"""Quantizers of several scales, and the codes of a whole item."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentpack.codecs.quantizers.cross_scale import CrossScaleQuantizer
from latentpack.codecs.quantizers.fsq import FSQ
from latentpack.codecs.quantizers.global_code import GlobalQuantizer
from latentpack.codecs.quantizers.grouped import GroupedQuantizer
from latentpack.codecs.quantizers.projected import ProjectedQuantizer
from latentpack.codecs.quantizers.rvq import ResidualQuantizer
from latentpack.codecs.quantizers.usage import count_codes, usage
from latentpack.codecs.quantizers.vq import VectorQuantizer

DIM, SCALES = 6, 3


class Twice(nn.Module):
    """From a scale to one of twice its rate: every place twice, with a map of the channels."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(DIM, DIM, bias=False)
        nn.init.eye_(self.map.weight)

    def forward(self, y):
        """[B, DIM, T] -> [B, DIM, 2 T]."""
        return self.map(y.movedim(1, -1)).movedim(-1, 1).repeat_interleave(2, 2)


def esc(dropout=0.0):
    """A product quantizer at each of three scales."""
    scales = [GroupedQuantizer([VectorQuantizer(2, 16) for _ in range(3)]) for _ in range(SCALES)]
    return CrossScaleQuantizer(scales, [Twice() for _ in range(SCALES - 1)], dropout)


def ticodec(size=16):
    """A code for the item, and a residual quantizer of what it leaves over."""
    rest = ResidualQuantizer([VectorQuantizer(DIM, size) for _ in range(2)])
    voice = GlobalQuantizer(GroupedQuantizer([VectorQuantizer(3, 16) for _ in range(2)]))
    return CrossScaleQuantizer([voice, rest], [nn.Identity()])


def pyramid(x):
    """[B, DIM, T] -> means of four places, of two, and x, coarse first."""
    return [F.avg_pool1d(x, 4), F.avg_pool1d(x, 2), x]


def voices(count, seed=0, length=16):
    """Items around a few centres, slow and fast movement on top, [count, DIM, length]."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(12, DIM, 1, generator=torch.Generator().manual_seed(99))
    slow = torch.randn(count, DIM, length // 4, generator=generator).repeat_interleave(4, 2)
    fast = 0.3 * torch.randn(count, DIM, length, generator=generator)
    which = torch.randint(len(centres), (count,), generator=generator)
    return centres[which] + 0.7 * slow + fast


FEATURES = {"esc": pyramid, "ticodec": lambda x: [x, x]}
MAKERS = {"esc": esc, "ticodec": ticodec}


@pytest.fixture(scope="module", params=list(MAKERS))
def case(request):
    """A trained quantizer and the features that it takes."""
    torch.manual_seed(0)
    return fit(MAKERS[request.param](), FEATURES[request.param]), FEATURES[request.param]


def fit(quantizer, features, steps=60):
    """Train alone; what the decoder's steps learn is in the reconstruction."""
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-2) if parameters else None
    quantizer.train()
    for step in range(steps):
        x = voices(32, step)
        loss = (quantizer(features(x)).x_hat - x).square().mean()
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return quantizer.eval()


def error(quantizer, features, scales=None):
    x = voices(200, 10_000)
    with torch.no_grad():
        x_hat = quantizer.decode(quantizer.encode(features(x))[:scales])
    return float((x - x_hat).square().mean() / x.square().mean())


def test_forward_is_encode_and_decode(case):
    quantizer, features = case
    x = voices(5, 3)
    out = quantizer(features(x))
    codes = quantizer.encode(features(x))
    assert len(codes) == len(out.codes) == len(quantizer.codebook_sizes)
    for got, told, sizes in zip(codes, out.codes, quantizer.codebook_sizes, strict=True):
        assert torch.equal(got, told) and got.dtype == torch.int64
        assert got.shape[1] == len(sizes) and int(got.max()) < max(sizes)
    assert out.x_hat.shape == x.shape
    assert torch.allclose(out.x_hat, quantizer.decode(codes), atol=1e-5)


def test_every_scale_helps(case):
    quantizer, features = case
    errors = [error(quantizer, features, n + 1) for n in range(len(quantizer.scales))]
    assert all(more < 0.8 * fewer for fewer, more in itertools.pairwise(errors))
    assert errors[-1] < 0.1


def test_first_scales_alone_are_what_forward_makes_of_them(case):
    quantizer, features = case
    x = voices(4, 8)
    codes = quantizer.encode(features(x))
    for used in range(1, len(codes) + 1):
        out = quantizer(features(x), used)
        assert len(out.codes) == used
        assert torch.allclose(
            out.x_hat, quantizer.decode(codes[:used]).expand_as(out.x_hat), atol=1e-5
        )


def test_gradient_reaches_every_scale_and_every_step():
    quantizer = esc().train()
    features = [x.requires_grad_() for x in pyramid(voices(8))]
    (quantizer(features).x_hat * torch.randn(8, DIM, 16)).sum().backward()
    for x in features:
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    for step in quantizer.steps:
        assert step.map.weight.grad.abs().sum() > 0


def test_dead_codes_of_every_scale_come_back():
    """Features that move away leave codes behind; each scale puts them back to use."""
    torch.manual_seed(0)
    scales = [VectorQuantizer(DIM, 32, decay=0.9, kmeans=False, restart=0.1) for _ in range(SCALES)]
    quantizer = CrossScaleQuantizer(scales, [Twice() for _ in range(SCALES - 1)]).train()
    for scale in scales:
        scale.start(torch.randn(256, DIM) + 20)

    def used():
        codes = quantizer.eval().encode(pyramid(voices(400, 77)))
        quantizer.train()
        return [
            usage(count_codes(c, s)[0])
            for c, s in zip(codes, quantizer.codebook_sizes, strict=True)
        ]

    assert max(used()) < 0.5
    for step in range(60):
        quantizer(pyramid(voices(64, step)))
    assert min(used()) > 0.9


def test_dropout_draws_all_counts():
    quantizer = esc(dropout=0.3).train()
    device = torch.device("cpu")
    drawn = torch.tensor([quantizer._draw(device) for _ in range(3000)])
    shares = torch.bincount(drawn, minlength=4) / 3000
    assert torch.allclose(shares, torch.tensor([0, 0.1, 0.1, 0.8]), atol=0.03)
    assert all(quantizer.eval()._draw(device) == SCALES for _ in range(20))


def test_a_scale_that_is_left_out_learns_nothing():
    quantizer = esc().train()
    quantizer(pyramid(voices(32)))
    before = quantizer.scales[2].state_dict()
    before = {name: value.clone() for name, value in before.items()}
    quantizer(pyramid(voices(32, 1)), 2)
    assert all(torch.equal(v, before[n]) for n, v in quantizer.scales[2].state_dict().items())


def test_evaluation_changes_nothing(case):
    quantizer, features = case
    before = {n: v.clone() for n, v in quantizer.state_dict().items()}
    quantizer(features(voices(3))), quantizer.encode(features(voices(3)))
    assert all(torch.equal(v, before[n]) for n, v in quantizer.state_dict().items())


def test_illegal_codes_and_features_are_refused(case):
    quantizer, features = case
    codes = quantizer.encode(features(voices(2)))
    for wrong in ([], [*codes, codes[-1]], [c + 10**6 for c in codes], [c.int() for c in codes]):
        with pytest.raises(ValueError):
            quantizer.decode(wrong)
    with pytest.raises(ValueError):
        quantizer.encode(features(voices(2))[1:])


def test_features_that_do_not_fit_a_step_are_refused():
    quantizer = esc().eval()
    coarse, middle, fine = pyramid(voices(2))
    with pytest.raises(ValueError, match="features are"):
        quantizer.encode([coarse, middle[..., :-1], fine])
    with pytest.raises(ValueError, match="features are"):
        quantizer.encode([torch.cat((coarse, coarse)), middle, fine])


@pytest.mark.parametrize("steps", [0, 2])
def test_a_step_between_each_two_scales(steps):
    with pytest.raises(ValueError, match="steps"):
        CrossScaleQuantizer([VectorQuantizer(DIM, 4)] * 2, [nn.Identity()] * steps)
    with pytest.raises(ValueError):
        CrossScaleQuantizer([], [])


def test_global_code_is_that_of_the_mean():
    inner = ProjectedQuantizer(DIM, FSQ((5, 5, 5)))
    quantizer = GlobalQuantizer(inner).eval()
    x = torch.randn(2, DIM, 7, 3)
    codes = quantizer.encode(x)
    assert codes.shape == (2, 1, 1, 1)
    assert torch.equal(codes[..., 0, 0], inner.encode(x.mean((2, 3))))
    assert torch.equal(quantizer(x).codes, codes)
    assert torch.allclose(quantizer(x).x_hat, quantizer.decode(codes), atol=1e-6)
    order = torch.randperm(7)
    assert torch.equal(quantizer.encode(x[:, :, order]), codes)  # time does not matter
    assert torch.equal(quantizer.encode(x[:, :, 0, 0]), inner.encode(x[:, :, 0, 0]))


def test_each_place_has_its_share_of_the_global_gradient():
    quantizer = GlobalQuantizer(VectorQuantizer(DIM, 8)).train()
    x = torch.randn(16, DIM, 5).requires_grad_()
    quantizer(x).x_hat.sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, 1 / 5))


def test_consistency_loss_asks_for_halves_alike():
    quantizer = GlobalQuantizer(VectorQuantizer(DIM, 8)).eval()
    half = torch.randn(4, DIM, 3)
    losses = [
        float(quantizer(torch.cat((half, other), 2)).losses["consistency_loss"])
        for other in (half, -half)
    ]
    assert losses == pytest.approx([0, 2], abs=1e-5)
    assert "consistency_loss" not in quantizer(half[..., :1]).losses


def test_an_empty_item_has_no_global_code():
    with pytest.raises(ValueError, match="empty"):
        GlobalQuantizer(VectorQuantizer(DIM, 8)).encode(torch.zeros(2, DIM, 0))


def test_a_global_code_saves_what_all_frames_share():
    """TiCodec: with as many codes to a frame, the code of the item leaves less to them."""
    torch.manual_seed(0)
    quantizer = fit(ticodec(8), FEATURES["ticodec"])
    alone = ResidualQuantizer([VectorQuantizer(DIM, 8) for _ in range(2)])
    alone = fit(CrossScaleQuantizer([alone], []), lambda x: [x])
    assert error(quantizer, FEATURES["ticodec"]) < 0.8 * error(alone, lambda x: [x])
