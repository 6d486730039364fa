"""CompressAI models through the bridge, beside CompressAI itself."""

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianMixtureConditional
from compressai.latent_codecs import (
    HyperLatentCodec,
    HyperpriorLatentCodec,
    RasterScanLatentCodec,
)
from compressai.models import CompressionModel, SimpleVAECompressionModel
from compressai.registry import MODELS
from PIL import Image

import latentpack
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.image.compressai import CompressAI
from latentpack.codecs.image.compressai_checkpoint import ARCHITECTURES
from latentpack.codecs.image.compressai_session import FrozenTables
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.pictures import decode_picture
from latentpack.tests.command_line import fails, run

GOLDEN = Path(__file__).parent / "golden" / "image_compressai"
GOOGLE = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
AUTOREGRESSIVE = ("mbt2018", "cheng2020-anchor", "cheng2020-attn")


def make(name, seed=0):
    """A narrow network of random weights, large enough that latents are not all zero."""
    torch.manual_seed(seed)
    if name.startswith("elic"):
        model = MODELS[name](8, 32, groups=[8, 8, 16])
    else:
        model = MODELS[name](*((8,) if name.startswith("cheng") else (8, 12)))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "bottleneck" not in key and key.endswith("weight"):
                p.mul_(1.7)
    model.eval()
    model.update()
    return model


@pytest.fixture(scope="module")
def models():
    found = {}

    def get(name):
        return found.setdefault(name, make(name))

    return get


@pytest.fixture(scope="module")
def codecs(models):
    found = {}

    def get(name):
        return found.get(name) or found.setdefault(name, CompressAI(models(name)))

    return get


def picture(channels, height, width, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width), dtype=np.uint8)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2) % 256
    planes = [(slope + noise // (2 + c)) % 256 for c in range(channels)]
    return torch.from_numpy(np.stack(planes).astype(np.uint8))


def body(codec, x):
    (packet,) = codec.encode(x)
    return packet.body


def count(strings):
    return len(strings) if isinstance(strings, bytes) else sum(map(count, strings))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_picture_as_compressai_and_no_more_bytes(codecs, name):
    codec, model = codecs(name), make(name)
    # The same latents to the last bit, so that none is rounded otherwise.
    model.g_a = codec._bridge.model.g_a
    x = picture(3, 128, 192)
    data = x[None] / 255
    with torch.no_grad():
        theirs = model.compress(data)
        expected = model.decompress(theirs["strings"], theirs["shape"])["x_hat"]
        shift, checks, streams = codec._bridge.encode(data)
        x_hat = codec._bridge.decode(shift, checks, streams, 128, 192, "here")
    assert expected.std() > 0.01
    assert (x_hat.clamp(0, 1) - expected).abs().max() < 1e-3
    assert count(streams) <= count(theirs["strings"])
    assert len(checks) == (0 if "factorized" in name else len(theirs["strings"]) - 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 31)])
def test_any_size_and_kind(codecs, channels, size):
    x = picture(channels, *size)
    codec = codecs("mbt2018-mean")
    decoded = codec.decode(codec.header(x), codec.encode(x))
    assert decoded.shape == x.shape and decoded.dtype == torch.uint8
    if channels in (2, 4):
        assert torch.equal(decoded[-1], x[-1])


def test_grey_is_the_mean_of_three_equal_channels(codecs):
    codec, x = codecs("bmshj2018-hyperprior"), picture(1, 40, 50)
    grey = codec.decode(codec.header(x), codec.encode(x))
    three = x.expand(3, -1, -1)
    colour = codec.decode(codec.header(three), codec.encode(three))
    assert (grey - colour.float().mean(0)).abs().max() <= 1


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
@pytest.mark.parametrize("size", [(64, 64), (64, 256), (320, 64), (192, 128)])
def test_wavefront_is_the_context_of_the_whole(models, codecs, name, size, monkeypatch):
    """What was read step by step fits the layers run over the complete latents."""
    codec, model = codecs(name), models(name)
    kept = {}
    wavefront = codec._bridge.model._compress_ar.__self__._wavefront

    def keep(session, params, y, run=wavefront.run):
        kept["params"], kept["y_hat"] = params, run(session, params, y)
        return kept["y_hat"]

    monkeypatch.setattr(wavefront, "run", keep)
    x = picture(3, *size)
    shift, checks, streams = codec._bridge.encode(x[None] / 255)
    coded = kept["y_hat"]
    codec._bridge.decode(shift, checks, streams, *size, "here")
    y_hat = kept["y_hat"]
    assert torch.equal(coded, y_hat)
    with torch.no_grad():
        both = torch.cat((kept["params"], model.context_prediction(y_hat)), 1)
        _, means = model.entropy_parameters(both).chunk(2, 1)
    steps = y_hat - means
    assert steps.abs().max() >= 1
    assert (steps - steps.round()).abs().max() < 1e-3


def test_raster_scan_latent_codecs_go_in_wavefront_order():
    class Scan(SimpleVAECompressionModel):
        def __init__(self):
            super().__init__()
            base = make("mbt2018")
            self.g_a, self.g_s = base.g_a, base.g_s
            hyper = HyperLatentCodec(base.entropy_bottleneck, base.h_a, base.h_s)
            y = RasterScanLatentCodec(
                base.gaussian_conditional, base.entropy_parameters, base.context_prediction
            )
            self.latent_codec = HyperpriorLatentCodec({"y": y, "hyper": hyper})

    model, x = Scan().eval(), picture(3, 64, 128)
    codec = CompressAI(model)
    with torch.no_grad():
        theirs = model.compress(x[None] / 255)
        expected = model.decompress(**{k: theirs[k] for k in ("strings", "shape")})["x_hat"]
    shift, checks, streams = codec._bridge.encode(x[None] / 255)
    x_hat = codec._bridge.decode(shift, checks, streams, 64, 128, "here")
    assert (x_hat - expected).abs().max() < 1e-3


def test_tables_are_those_of_the_model(models):
    model = models("mbt2018-mean")
    parts = [model.gaussian_conditional, model.entropy_bottleneck]
    (tables,) = FrozenTables(parts).sets
    cdfs = [row[:n] for p in parts for row, n in zip(p.quantized_cdf, p.cdf_length, strict=True)]
    assert len(tables) == len(cdfs) == 64 + 8
    for r, cdf in enumerate(cdfs):
        assert np.array_equal(tables.row(r).astype(np.int64), np.diff(cdf.numpy()))
    assert tables.offsets.tolist() == [o for p in parts for o in p.offset.tolist()]


def test_more_rows_than_a_byte_names():
    torch.manual_seed(0)
    model = MODELS["bmshj2018-factorized"](4, 600).eval()
    model.update()
    codec, x = CompressAI(model), picture(3, 64, 64)
    shift, checks, streams = codec._bridge.encode(x[None] / 255)
    assert (len(checks), len(streams)) == (0, 3)
    with torch.no_grad():
        theirs = model.compress(x[None] / 255)
        expected = model.decompress(theirs["strings"], theirs["shape"])["x_hat"]
    x_hat = codec._bridge.decode(shift, checks, streams, 64, 64, "here")
    assert (x_hat.clamp(0, 1) - expected).abs().max() < 1e-3
    assert torch.equal(
        codec.decode(codec.header(x), codec.encode(x)).float(), (expected[0] * 255).round()
    )


def test_equal_tables_are_there_once(codecs):
    tables = codecs("elic2022-official")._bridge.tables
    assert [len(part) for part in tables.sets] == [64 + 8]


@pytest.mark.parametrize("name", ["mbt2018-mean", "mbt2018", "elic2022-chandelier"])
def test_another_floating_point_is_refused(models, name):
    codec = CompressAI(models(name))
    x = picture(3, 100, 100)
    header, packets = codec.header(x), list(codec.encode(x))
    codec.decode(header, packets)
    inner = codec._bridge.model
    hyper = inner.h_s if hasattr(inner, "h_s") else inner.latent_codec.hyper.h_s
    hyper.register_forward_hook(lambda module, args, out: out * 1.1 + 0.3)
    with pytest.raises(ValueError, match=r"other scales .*torch .*; here torch"):
        codec.decode(header, packets)


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "mbt2018"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_latents_that_cannot_be_coded(models, name, value):
    codec = CompressAI(models(name))
    codec._bridge.model.g_a.register_forward_hook(lambda module, args, out: out * value)
    with pytest.raises(ValueError, match="weights or the picture are damaged"):
        list(codec.encode(picture(3, 64, 64)))


def test_far_symbols_are_escaped(models):
    codec = CompressAI(models("bmshj2018-hyperprior"))
    seen = []
    inner = codec._bridge.model
    inner.g_a.register_forward_hook(lambda module, args, out: out * 3000)
    inner.g_s.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = picture(3, 64, 64)
    codec.decode(codec.header(x), codec.encode(x))
    with torch.no_grad():
        assert torch.equal(seen[0], inner.g_a(x[None] / 255).round())
    assert seen[0].abs().max() > 2000


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "mbt2018"])
def test_damage_is_noticed(codecs, name):
    codec, x = codecs(name), picture(3, 60, 130)
    header, data = codec.header(x), body(codec, x)
    rng = random.Random(1)
    damaged = [data[: rng.randrange(len(data))] for _ in range(20)] + [data + b"\0", b""]
    for _ in range(60):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(changed))
    for one in damaged:
        with pytest.raises(ValueError):
            codec.decode(header, [Packet(None, one)])
    for packets in ([], [Packet(0, data)], [Packet(None, data)] * 2):
        with pytest.raises(BitstreamError, match="expected one without a key"):
            codec.decode(header, packets)


@pytest.mark.parametrize("size", [None, [1, 1], [0, 1, 3], [1, 1, 5], [1 << 16, 1 << 16, 3]])
def test_headers_that_are_not_legal(codecs, size):
    with pytest.raises(BitstreamError, match="header field s"):
        codecs("mbt2018").decode({"s": size}, [])


def test_another_model_is_refused(codecs):
    codec, x = codecs("mbt2018-mean"), picture(3, 20, 20)
    other = CompressAI(make("mbt2018-mean", seed=1))
    with pytest.raises(ValueError, match=r"made with model .*--weights"):
        other.decode(codec.header(x), codec.encode(x))


def test_it_takes_no_rate_and_no_other_signal(codecs):
    with pytest.raises(ValueError, match="takes no bpp: a checkpoint has one rate"):
        codecs("mbt2018").encode(picture(3, 9, 9), Rate(bpp=1))
    with pytest.raises(ValueError, match=r"got torch.float32 \[3, 4, 4\]"):
        codecs("mbt2018").encode(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="alpha is limited to 16383"):
        codecs("mbt2018").header(torch.zeros(2, 1, 16384, dtype=torch.uint8))


def test_threads_share_a_codec(codecs):
    codec = codecs("mbt2018-mean")
    pictures = [picture(3, 40, 64, seed) for seed in range(4)]
    expected = [body(codec, x) for x in pictures]
    found = [None] * 4

    def work(i):
        for _ in range(5):
            found[i] = body(codec, pictures[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_the_model_stays_as_it_is(models):
    model = models("mbt2018")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    codec, x = CompressAI(model), picture(3, 64, 64)
    data = latentpack.encode(x, codec="image/compressai", weights=model)
    assert torch.equal(
        latentpack.decode(data, weights=model), codec.decode(codec.header(x), codec.encode(x))
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert "compress" not in vars(model.entropy_bottleneck)


def test_models_that_are_not_known():
    class Mixture(CompressionModel):
        def __init__(self):
            super().__init__()
            self.gaussian_conditional = GaussianMixtureConditional(K=3)

        def compress(self, x):
            raise NotImplementedError

        decompress = compress

    class Own(CompressionModel):
        def __init__(self):
            super().__init__()
            self.inner = MODELS["bmshj2018-factorized"](4, 4)

        def compress(self, x):
            return {"strings": [[b"own"]], "shape": (1, 1)}

        decompress = compress

    with pytest.raises(ValueError, match=r"Mixture can't .*GaussianMixture.*Known are .*Elic2022"):
        CompressAI(Mixture())
    own = Own()
    own.update()
    with pytest.raises(ValueError, match="by means of its own"):
        CompressAI(own)
    with pytest.raises(ValueError, match="no methods compress"):
        CompressAI(torch.nn.Linear(2, 2))


def test_tables_are_made_where_there_are_none():
    torch.manual_seed(0)
    model = MODELS["mbt2018-mean"](4, 6).eval()
    with pytest.warns(RuntimeWarning, match="no coding tables"):
        fresh = CompressAI(model)
    model.update()
    assert CompressAI(model)._bridge.digest == fresh._bridge.digest


@pytest.mark.parametrize("name", ("bmshj2018-factorized-relu", *GOOGLE, "cheng2020-attn"))
def test_checkpoints_tell_their_architecture(models, codecs, name, tmp_path):
    path = tmp_path / "model.pth.tar"
    state = {f"module.{key}": value for key, value in models(name).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    assert CompressAI(path)._bridge.digest == codecs(name)._bridge.digest
    torch.save(models(name).state_dict(), path)
    named = CompressAI(path, architecture=name)
    assert named._bridge.digest == codecs(name)._bridge.digest


def test_files_that_are_no_checkpoints(models, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model.pth is no checkpoint"):
        CompressAI(path)
    torch.save(models("mbt2018"), path)  # a pickled object, which could run code
    with pytest.raises(ValueError, match="is no checkpoint: Weights only"):
        CompressAI(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match=r"expected a state dict .* got list"):
        CompressAI(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"no model known here .* begins with a"):
        CompressAI(path)
    with pytest.raises(ValueError, match="holds no mbt2018"):
        CompressAI(path, architecture="mbt2018")
    with pytest.raises(ValueError, match="architecture is 'zip'"):
        CompressAI(path, architecture="zip")
    with pytest.raises(FileNotFoundError):
        CompressAI(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="no weights of its own"):
        CompressAI()


def test_golden_file_decodes():
    codec = CompressAI(GOLDEN / "model.safetensors")
    decoded, _ = decode_picture((GOLDEN / "picture.lpk").read_bytes(), codec)
    expected = np.frombuffer((GOLDEN / "picture.bin").read_bytes(), np.uint8).reshape(3, 70, 90)
    assert np.abs(decoded.numpy().astype(int) - expected).max() <= 1
    assert expected.std() > 5


def test_command_line(models, tmp_path):
    weights, other = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(models("mbt2018").state_dict(), weights)
    torch.save({"state_dict": models("mbt2018-mean").state_dict()}, other)
    source = tmp_path / "photo.png"
    Image.fromarray(picture(4, 50, 70).permute(1, 2, 0).numpy()).save(source)
    options = ("--codec", "image/compressai", "--weights", weights)
    assert "bpp" in run("encode", source, *options).stdout
    packed = tmp_path / "photo.lpk"
    assert run("decode", packed, "--weights", weights, "-o", tmp_path / "out.png").exit_code == 0
    out = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(out[:, :, 3], np.asarray(Image.open(source))[:, :, 3])
    shown = run("info", packed).stdout
    assert "image/compressai" in shown and "70x50, RGB + alpha" in shown
    assert "made with model" in fails("decode", packed, "--weights", other, "-f")
    assert "--weights" in fails("decode", packed, "-f")
    assert "one rate" in fails("encode", source, *options, "-q", 50, "-f")
    assert "no checkpoint" in fails(
        "encode", source, "--codec", "image/compressai", "--weights", source, "-f"
    )
