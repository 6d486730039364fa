"""The compiled iteration of video/fit against torch's gradients of the same networks."""

import numpy as np
import pytest
import torch

from latentpack.codecs.image import fit_networks as still
from latentpack.codecs.video import fit_networks as networks
from latentpack.codecs.video.fit_networks import Shape
from latentpack.kernels import fit_train, rans

BACKENDS = [name for name in rans.backends() if name in ("scalar", "avx2", "avx512")]
TOLERANCE = 1e-4  # of the largest gradient of a slice

compiled = pytest.mark.skipif(not BACKENDS, reason="the C++ extension is not built")


def objective(bits):
    unit = 1 / (((1 << bits) - 1) << (14 - bits))
    return fit_train.Objective(
        300.0, still.B_MIN, still.B_STEP, still.SCALES, still.LATENT_UNIT, unit
    )


def net(shape, first):
    return fit_train.Net(
        0, shape.hidden, shape.width, shape.colours, shape.temporal, shape.extra, first,
        shape.colours == 3,
    )  # fmt: skip


class Case:
    """A frame with odd sizes or not, its prediction, latents and networks."""

    def __init__(self, shape, height, width, bits, first, seed=0):
        self.shape, self.bits, self.first = shape, bits, first
        generator = torch.Generator().manual_seed(seed)
        even = shape.colours == 3
        self.size = (height + height % 2, width + width % 2) if even else (height, width)
        half = (-(-height // 2), -(-width // 2))
        sizes = [(height, width), half, half][: shape.colours]

        def random(bits, dtype):
            top = 1 << bits
            return [torch.randint(top, s, generator=generator).to(dtype).numpy() for s in sizes]

        self.planes = random(bits, torch.uint8 if bits == 8 else torch.int16)
        self.prediction = random(14, torch.int16) if shape.predicted else []
        self.params = networks.initial(shape, generator)
        self.params += 0.02 * torch.randn(len(self.params), generator=generator)
        shapes = still.grid_shapes(*self.size)

        def pyramid():
            grids = [3 * torch.randn(s, generator=generator) for s in shapes]
            return [g if k >= first else torch.zeros_like(g) for k, g in enumerate(grids)]

        self.grids, self.reference = pyramid(), pyramid()

    def flat(self, grids):
        return torch.cat([g.flatten() for g in grids[self.first :]]).numpy()

    def frame(self):
        return fit_train.frame_of(self.planes, self.bits, self.prediction)

    def numbers(self, planes, unit):
        """Planes as float64, the first of the even size."""
        rows, columns = self.size
        luma = np.pad(
            planes[0], ((0, rows - planes[0].shape[0]), (0, columns - planes[0].shape[1])), "edge"
        )
        return [torch.tensor(p.astype(np.float64) * unit) for p in (luma, *planes[1:])]

    def by_torch(self):
        params = self.params.double().requires_grad_()
        grids = [g.double().requires_grad_() for g in self.grids]
        p = networks.split(params, self.shape)
        reference = [g.double() for g in self.reference]
        bits = networks.rate_bits(p, grids, self.shape, reference, self.first)
        ahead = None
        if self.shape.predicted:
            unit = objective(self.bits).prediction_unit
            ahead = networks.full_size(self.numbers(self.prediction, unit))
        x_hat = networks.synthesise(p, grids, ahead)
        target = self.numbers(self.planes, 1 / ((1 << self.bits) - 1))
        d = networks.distortion(x_hat, target)
        (bits / x_hat[0].numel() + 300 * d).backward()
        zero = [torch.zeros_like(g) if g.grad is None else g.grad for g in grids]
        return bits.item(), d.item(), self.flat(zero), params.grad


@compiled
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "height", "width", "bits", "first"),
    [
        (Shape(8, 8, 3, True), 2, 2, 8, 0),
        (Shape(8, 8, 3, True), 31, 43, 8, 1),
        (Shape(8, 12, 3, False), 64, 96, 10, 0),
        (Shape(16, 16, 3, True), 48, 64, 10, 2),
        (Shape(8, 10, 1, True), 33, 41, 8, 1),
        (Shape(32, 24, 1, False), 5, 1, 12, 0),
        (Shape(8, 7, 3, True), 17, 130, 8, 6),
    ],
)
def test_gradients_are_those_of_torch(backend, threads, shape, height, width, bits, first):
    case = Case(shape, height, width, bits, first, seed=2)  # no relu right at its edge
    wanted_bits, mse, latent_grads, param_grads = case.by_torch()
    trainer = fit_train.FrameTrainer(
        net(shape, first), *case.size, len(case.params), threads=threads, backend=backend
    )
    reference = case.flat(case.reference) if shape.predicted else None
    frame, latents = case.frame(), case.flat(case.grids)
    for _ in range(2):  # the second iteration finds the memory used
        step = trainer.step(frame, latents, case.params.numpy(), objective(bits), reference)
    assert step.bits == pytest.approx(wanted_bits, rel=1e-5)
    assert step.mse == pytest.approx(mse, rel=1e-5)
    close(step.latent_grads, latent_grads)
    for piece in networks.layout(shape).values():
        part = slice(piece.start, piece.stop)
        close(step.param_grads[part], param_grads[part].numpy())


def close(got, wanted):
    assert np.abs(got - wanted).max() <= TOLERANCE * max(np.abs(wanted).max(), 1e-6)


@compiled
def test_no_reference_is_zeros():
    case = Case(Shape(8, 8, 3, True), 20, 12, 8, 1)
    trainer = fit_train.FrameTrainer(net(case.shape, 1), *case.size, len(case.params))
    arguments = case.frame(), case.flat(case.grids), case.params.numpy(), objective(8)
    zeros = np.zeros_like(case.flat(case.reference))
    found = [
        trainer.step(*arguments, reference).param_grads.copy()
        for reference in (case.flat(case.reference), None, zeros)
    ]
    assert np.array_equal(found[1], found[2]) and not np.array_equal(found[0], found[1])


@compiled
def test_a_prediction_begins_as_what_is_shown():
    case = Case(Shape(8, 8, 3, True), 20, 12, 8, 0)
    planes = [p.astype(np.int16) << 6 for p in case.planes]
    params = networks.initial(case.shape, torch.Generator().manual_seed(1)).numpy()
    trainer = fit_train.FrameTrainer(net(case.shape, 0), *case.size, len(params))
    nothing = np.zeros_like(case.flat(case.grids))
    step = trainer.step(fit_train.frame_of(case.planes, 8, planes), nothing, params, objective(8))
    assert step.mse < 1e-9


@compiled
def test_memory_is_checked():
    case = Case(Shape(8, 8, 3, True), 20, 12, 8, 1)
    trainer = fit_train.FrameTrainer(net(case.shape, 1), *case.size, len(case.params))
    frame, latents, params = case.frame(), case.flat(case.grids), case.params.numpy()
    for wrong in (
        (frame._replace(prediction=frame.prediction[:0]), latents, None),
        (frame._replace(picture=frame.picture[:-1]), latents, None),
        (frame, latents[1:], None),
        (frame, latents, latents[1:]),
    ):
        with pytest.raises(ValueError, match="size that was prepared"):
            trainer.step(wrong[0], wrong[1], params, objective(8), wrong[2])
    for field, value in (("temporal", 3), ("extra", 1), ("first", 7), ("first", -1)):
        with pytest.raises(ValueError, match="out of range"):
            fit_train.FrameTrainer(net(case.shape, 1)._replace(**{field: value}), 8, 8, 9)
    with pytest.raises(ValueError, match="odd"):
        fit_train.FrameTrainer(net(case.shape, 1), 7, 8, 9)
