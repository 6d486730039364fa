"""Every quantizer: the same interface, exact codes, gradients, and what its paper says of it."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from latentpack.codecs.quantizers.fsq import FSQ
from latentpack.codecs.quantizers.grouped import GroupedQuantizer
from latentpack.codecs.quantizers.ibq import IBQ
from latentpack.codecs.quantizers.lfq import LFQ
from latentpack.codecs.quantizers.projected import ProjectedQuantizer
from latentpack.codecs.quantizers.rvq import ResidualQuantizer
from latentpack.codecs.quantizers.simvq import SimVQ
from latentpack.codecs.quantizers.usage import count_codes, perplexity, usage
from latentpack.codecs.quantizers.vq import VectorQuantizer

DIM = 6


def masked_rvq():
    """Language-Codec: the first quantizers see a third of the channels each."""
    thirds = GroupedQuantizer([VectorQuantizer(2, 8) for _ in range(3)])
    return ResidualQuantizer([thirds, VectorQuantizer(6, 16), VectorQuantizer(6, 16)])


MAKERS = {
    "vq": lambda: VectorQuantizer(DIM, 32),
    "vq-random-start": lambda: VectorQuantizer(DIM, 32, kmeans=False),
    "rvq": lambda: ResidualQuantizer([VectorQuantizer(DIM, 16), VectorQuantizer(DIM, 8)]),
    "grouped": lambda: GroupedQuantizer([VectorQuantizer(2, 16), VectorQuantizer(4, 16)]),
    "grouped-rvq": lambda: GroupedQuantizer(
        [ResidualQuantizer([VectorQuantizer(3, 8), VectorQuantizer(3, 8)]) for _ in range(2)]
    ),
    "masked-rvq": masked_rvq,
    "simvq": lambda: SimVQ(DIM, 64),
    "ibq": lambda: IBQ(DIM, 32),
    "lfq": lambda: ProjectedQuantizer(DIM, LFQ(5)),
    "fsq": lambda: ProjectedQuantizer(DIM, FSQ((8, 5, 5))),
    "factorised": lambda: ProjectedQuantizer(DIM, VectorQuantizer(3, 64, cosine=True)),
    "simvq-rvq": lambda: ResidualQuantizer([SimVQ(DIM, 16), SimVQ(DIM, 16)]),
}


def mixture(count, seed=0, dim=DIM, spread=0.15):
    """Vectors around 16 centres, [count, dim]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(16, dim, generator=torch.Generator().manual_seed(99))
    which = torch.randint(16, (count,), generator=generator)
    return centres[which] + spread * torch.randn(count, dim, generator=generator)


def fit(quantizer, steps=150, count=256, dim=DIM, weight=1.0, entropy=0.0):
    """Train alone on the mixture: reconstruction plus the quantizer's losses."""
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-2) if parameters else None
    quantizer.train()
    for step in range(steps):
        x = mixture(count, step, dim)
        out = quantizer(x)
        if optimizer:
            losses = out.losses
            loss = (out.x_hat - x).square().mean() + weight * losses.get("codebook_loss", 0)
            loss = loss + entropy * losses.get("entropy_loss", 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return quantizer.eval()


def error(quantizer, dim=DIM):
    """Mean squared error over the variance, on vectors that were not trained on."""
    x = mixture(2000, 10_000, dim)
    with torch.no_grad():
        x_hat = quantizer.decode(quantizer.encode(x))
    return float((x - x_hat).square().mean() / (x - x.mean(0)).square().mean())


@pytest.fixture(scope="module", params=list(MAKERS))
def trained(request):
    torch.manual_seed(0)
    return fit(MAKERS[request.param]())


def test_it_learns(trained):
    projected = isinstance(trained, ProjectedQuantizer)  # three dimensions of six are lost
    assert error(trained) < (0.4 if projected else 0.25)


def test_forward_is_encode_and_decode(trained):
    x = mixture(40, 5).view(2, 4, 5, DIM).permute(0, 3, 1, 2)
    out = trained(x)
    codes = trained.encode(x)
    assert codes.shape == (2, trained.n_q, 4, 5) and codes.dtype == torch.int64
    assert torch.equal(out.codes, codes)
    assert out.x_hat.shape == x.shape
    assert torch.allclose(out.x_hat, trained.decode(codes), atol=1e-5)
    for i, size in enumerate(trained.codebook_sizes):
        assert codes[:, i].max() < size <= trained.codebook_size


@pytest.mark.parametrize("shape", [(), (7,), (3, 2)])
def test_any_number_of_axes(trained, shape):
    x = torch.randn(2, DIM, *shape)
    codes = trained.encode(x)
    assert codes.shape == (2, trained.n_q, *shape)
    assert trained.decode(codes).shape == x.shape
    first = trained.encode(x[:1])
    assert torch.equal(first, codes[:1])


def test_gradient_reaches_x(trained):
    x = mixture(16, 3).requires_grad_()
    out = trained(x)
    (out.x_hat * torch.randn_like(out.x_hat)).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    for p in trained.parameters():
        p.grad = None
    sum(out.losses.values(), torch.zeros(())).detach()


def test_state_is_exact(trained, request, tmp_path):
    name = request.node.callspec.params["trained"]
    torch.save(trained.state_dict(), tmp_path / "state")
    torch.manual_seed(7)
    other = MAKERS[name]().eval()
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    x = mixture(50, 4)
    assert torch.equal(other.encode(x), trained.encode(x))
    codes = trained.encode(x)
    assert torch.equal(other.decode(codes), trained.decode(codes))


def test_evaluation_changes_nothing(trained):
    before = {n: v.clone() for n, v in trained.state_dict().items()}
    x = torch.randn(64, DIM)
    trained(x), trained.encode(x)
    assert all(torch.equal(v, before[n]) for n, v in trained.state_dict().items())


def test_illegal_codes_are_refused(trained):
    codes = trained.encode(mixture(4))
    for wrong in (codes.int(), codes[:, :0], torch.cat((codes, codes), 1), codes - 10**6):
        with pytest.raises(ValueError):
            trained.decode(wrong)
    with pytest.raises(ValueError):
        trained.encode(torch.randn(4, DIM + 1))


def test_straight_through_gradient_is_the_identity():
    for name in ("vq", "rvq", "grouped", "simvq", "grouped-rvq"):
        quantizer = MAKERS[name]().train()
        x = mixture(64).requires_grad_()
        weight = torch.randn(64, DIM)
        (quantizer(x).x_hat * weight).sum().backward()
        assert torch.allclose(x.grad, weight, atol=1e-5), name


def test_kmeans_start_finds_the_centres():
    torch.manual_seed(0)
    started, random = VectorQuantizer(DIM, 64), VectorQuantizer(DIM, 64, kmeans=False)
    x = mixture(2000)
    started.start(x), random.start(x)
    assert error(started) < 0.9 * error(random)


def test_dead_codes_come_back():
    """Data that moves away leaves codes behind, unless they are restarted."""
    used = {}
    for restart in (0.0, 0.03):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(DIM, 64, decay=0.9, kmeans=False, restart=restart).train()
        quantizer.start(torch.randn(256, DIM) + 5)
        for step in range(100):
            quantizer(mixture(256, step))
        counts = count_codes(quantizer.eval().encode(mixture(4000)), (64,))[0]
        used[restart] = usage(counts)
    assert used[0.0] < 0.5 and used[0.03] > 0.9


def test_cosine_codes_have_length_one():
    quantizer = VectorQuantizer(DIM, 16, cosine=True).train()
    for step in range(20):
        quantizer(mixture(128, step))
    assert torch.allclose(quantizer.codebook.norm(dim=1), torch.ones(16), atol=1e-5)


def test_simvq_uses_a_large_codebook():
    """arXiv:2411.02038: no code stays behind where the codebook itself is not trained."""
    torch.manual_seed(0)
    quantizer = SimVQ(DIM, 256).train()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.03)
    scales = torch.tensor([8.0, 4, 4, 2, 2, 1])
    used = []
    for _ in range(300):
        x = torch.randn(256, DIM) * scales
        used.append(
            usage(count_codes(quantizer.encode(torch.randn(4000, DIM) * scales), (256,))[0])
        )
        optimizer.zero_grad()
        quantizer(x).losses["codebook_loss"].backward()
        optimizer.step()
    assert used[0] < 0.6 and used[-1] > 0.9


def test_ibq_moves_every_code():
    quantizer = IBQ(DIM, 32).train()
    x = mixture(64)
    (quantizer(x).x_hat - x).square().mean().backward()
    assert (quantizer.codebook.grad.abs().sum(1) > 0).all()


def test_fsq_has_every_code_of_its_grid():
    quantizer = FSQ((4, 3, 5))
    codes = torch.arange(60)[:, None]
    x_hat = quantizer.decode(codes)
    assert len(x_hat.unique(dim=0)) == 60 and x_hat.abs().max() == 1
    x = torch.atanh((x_hat * torch.tensor([3, 2, 4]) / torch.tensor([4, 3, 5])).clamp(-0.99, 0.99))
    assert torch.equal(quantizer.encode(x), codes)


def test_lfq_codes_are_signs():
    codes = LFQ(3).encode(torch.tensor([[-1.0, 2.0, 3.0], [0.5, -0.1, -9.0]]))
    assert codes.tolist() == [[6], [1]]
    assert LFQ(3).decode(codes).tolist() == [[-1, 1, 1], [1, -1, -1]]


def test_lfq_entropy_loss_wants_sure_and_balanced_bits():
    sure = LFQ(2)(torch.tensor([[9.0, 9.0], [-9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]]))
    one_sided = LFQ(2)(torch.full((4, 2), 9.0))
    unsure = LFQ(2)(torch.full((4, 2), 0.01))
    values = [float(out.losses["entropy_loss"]) for out in (sure, one_sided, unsure)]
    assert values[0] == pytest.approx(-2 * math.log(2), abs=1e-3)
    assert values[1] == pytest.approx(0, abs=1e-3) and values[2] == pytest.approx(0, abs=1e-3)


def test_every_stage_of_an_rvq_helps():
    torch.manual_seed(0)
    quantizer = fit(ResidualQuantizer([VectorQuantizer(DIM, 16) for _ in range(3)]))
    x = mixture(2000, 77)
    codes = quantizer.encode(x)
    errors = [float((quantizer.decode(codes[:, :n]) - x).square().mean()) for n in (1, 2, 3)]
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_rvq_uses_the_stages_that_it_is_told():
    torch.manual_seed(0)
    quantizer = fit(ResidualQuantizer([VectorQuantizer(DIM, 16) for _ in range(3)]))
    x = mixture(3, 8)
    out = quantizer(x, torch.tensor([1, 2, 3]))
    for i in range(3):
        part = quantizer.decode(out.codes[i : i + 1, : i + 1])
        assert torch.allclose(out.x_hat[i : i + 1], part, atol=1e-5)


def test_masked_channel_rvq_is_groups_and_then_a_residual():
    """Language-Codec as its paper draws it: full width, all but a third of x masked in each."""
    torch.manual_seed(0)
    quantizer = fit(masked_rvq())
    thirds, *rest = quantizer.stages
    x = mixture(500, 12)
    residual, codes = x, []
    for i, third in enumerate(thirds.groups):
        mask = (torch.arange(DIM) // 2 == i).float()
        codebook = torch.zeros(third.codebook_size, DIM)
        codebook[:, 2 * i : 2 * i + 2] = third.codebook
        codes.append(torch.cdist(x * mask, codebook).argmin(1))
        residual = residual - codebook[codes[-1]]
    for stage in rest:
        codes.append(torch.cdist(residual, stage.codebook).argmin(1))
        residual = residual - stage.codebook[codes[-1]]
    assert torch.equal(quantizer.encode(x), torch.stack(codes, 1))
    assert torch.allclose(quantizer.decode(torch.stack(codes, 1)), x - residual, atol=1e-5)


def test_rvq_dropout_draws_all_counts():
    quantizer = ResidualQuantizer([VectorQuantizer(DIM, 4) for _ in range(3)], dropout=0.5).train()
    drawn = quantizer._draw(torch.zeros(3000, DIM))
    shares = torch.bincount(drawn, minlength=4) / 3000
    assert torch.allclose(shares, torch.tensor([0, 1 / 6, 1 / 6, 2 / 3]), atol=0.04)
    assert (quantizer.eval()._draw(torch.zeros(9, DIM)) == 3).all()


def test_gradient_reaches_the_maps_of_a_projection():
    quantizer = ResidualQuantizer(
        [ProjectedQuantizer(DIM, VectorQuantizer(2, 8)) for _ in range(2)]
    ).train()
    (quantizer(mixture(32)).x_hat - mixture(32)).square().mean().backward()
    for stage in quantizer.stages:
        assert stage.out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(0, 4),
        lambda: VectorQuantizer(4, 0),
        lambda: ResidualQuantizer([]),
        lambda: ResidualQuantizer([VectorQuantizer(2, 4), VectorQuantizer(3, 4)]),
        lambda: FSQ((1, 4)),
        lambda: FSQ(()),
        lambda: LFQ(63),
    ],
)
def test_illegal_sizes(make):
    with pytest.raises(ValueError):
        make()


def test_usage_and_perplexity():
    codes = torch.tensor([[[0, 0, 1, 1], [2, 2, 2, 2]]])
    counts = count_codes(codes, (4, 3))
    assert [c.tolist() for c in counts] == [[2, 2, 0, 0], [0, 0, 4]]
    assert [usage(c) for c in counts] == [0.5, pytest.approx(1 / 3)]
    assert [perplexity(c) for c in counts] == [2.0, 1.0]
    assert perplexity(torch.zeros(4, dtype=torch.int64)) == 1.0


def test_half_precision_input():
    quantizer = VectorQuantizer(DIM, 8).train()
    x = mixture(64).bfloat16()
    assert quantizer(x).x_hat.isfinite().all()
    assert nn.Module.state_dict(quantizer)["codebook"].dtype == torch.float32


def _one_of_two(rank, port, path):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(rank)
    quantizer = VectorQuantizer(DIM, 32, decay=0.9, restart=0.1).train()
    for step in range(30):
        quantizer(mixture(64, 1000 * rank + step))
    torch.save(quantizer.state_dict(), f"{path}/{rank}")
    dist.destroy_process_group()


def test_codebooks_of_two_processes_stay_equal(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_one_of_two, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    # What the two know together is what one process knows that saw both batches.
    alone = VectorQuantizer(DIM, 32)
    alone.load_state_dict(first)
    assert error(alone.eval()) < 0.1
