"""The public functions, over a codec that stores tensors as they are."""

import io
import itertools

import pytest
import torch

import latentpack
from latentpack.codecs import registry
from latentpack.codecs.codec import Codec, Packet
from latentpack.codecs.container import Reader

X = {"a": torch.arange(6).reshape(2, 3), "b": torch.ones(4), "c": torch.zeros(0, 2)}


class Plain(Codec):
    """Body: dtype and shape as text; bulk: the elements. Counts what it decodes."""

    name = "tensor/lossless"
    decoded: list[str | None] = []  # noqa: RUF012

    def __init__(self, threads=1, device="cpu"):
        self.threads, self.device = threads, device

    def header(self, signal):
        return {} if isinstance(signal, torch.Tensor) else {"n": len(signal)}

    def encode(self, signal, rate=None, reserve=0):
        if rate is not None:
            raise ValueError(f"tensor/lossless takes no rate, got {rate}")
        for key, x in {None: signal}.items() if torch.is_tensor(signal) else signal.items():
            body = " ".join([str(x.dtype)[6:], *map(str, x.shape)]).encode()
            yield Packet(key, body, bytes(x.contiguous().flatten().view(torch.uint8).numpy()))

    def describe(self, header, packet):
        dtype, *shape = packet.body.decode().split()
        return {"dtype": getattr(torch, dtype), "shape": tuple(map(int, shape))}

    def decode(self, header, packets):
        out = {}
        for packet in packets:
            what = self.describe(header, packet)
            self.decoded.append(packet.key)
            x = torch.tensor(list(packet.bulk), dtype=torch.uint8).view(what["dtype"])
            out[packet.key] = x.reshape(what["shape"]).to(self.device)
        return out[None] if None in out else out


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda number: Plain)
    Plain.decoded.clear()


def same(x, y):
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_a_tensor_gives_a_tensor_and_a_mapping_a_dict():
    assert torch.equal(latentpack.decode(latentpack.encode(X["a"])), X["a"])
    decoded = latentpack.decode(latentpack.encode(X))
    assert list(decoded) == list(X) and same(decoded, X)
    assert latentpack.decode(latentpack.encode({})) == {}
    assert torch.equal(latentpack.decode(io.BytesIO(latentpack.encode(X["a"]))), X["a"])


def test_options_go_to_the_codec():
    data = latentpack.encode(X["a"], threads=2)
    assert latentpack.decode(data, device="meta").device.type == "meta"
    with pytest.raises(ValueError, match="has no option 'thread'; it has device, threads"):
        latentpack.encode(X["a"], thread=2)
    with pytest.raises(ValueError, match="'tensor/zip' is unknown"):
        latentpack.encode(X["a"], codec="tensor/zip")
    with pytest.raises(ValueError, match="takes no rate"):
        latentpack.encode(X["a"], rate=latentpack.Rate(bpp=1))


def test_metadata():
    data = latentpack.encode(X["a"], metadata={"step": 7})
    assert Reader(data).metadata == {"step": 7}


def test_out():
    out = torch.zeros(2, 3, dtype=torch.int64)
    assert latentpack.decode(latentpack.encode(X["a"]), out=out) is out
    assert torch.equal(out, X["a"])
    outs = {name: torch.full_like(x, 9) for name, x in X.items()}
    assert latentpack.decode(latentpack.encode(X), out=outs) is outs
    assert same(outs, X)
    for wrong in (torch.zeros(2, 3), torch.zeros(6, dtype=torch.int64), [0] * 6):
        with pytest.raises(ValueError, match=r"must be a torch.int64 tensor of shape \(2, 3\)"):
            latentpack.decode(latentpack.encode(X["a"]), out=wrong)
    with pytest.raises(ValueError, match="mapping with the keys"):
        latentpack.decode(latentpack.encode(X), out={"a": out})


def test_open_is_lazy(tmp_path):
    path = tmp_path / "x.lpk"
    latentpack.save(path, X, metadata={"step": 7})
    with latentpack.open(path) as f:
        assert f.metadata == {"step": 7}
        assert list(f.keys()) == ["a", "b", "c"] and len(f) == 3
        assert "b" in f and "d" not in f
        assert f.describe("c") == {"dtype": torch.float32, "shape": (0, 2)}
        assert Plain.decoded == []
        assert torch.equal(f["b"], X["b"])
        assert Plain.decoded == ["b"]
        assert same(dict(f), X)
        assert f.get("d") is None
        with pytest.raises(KeyError, match="'d'"):
            f["d"]
    with pytest.raises(RuntimeError, match="is closed"):
        f["a"]


def test_open_reads_one_tensor_only(tmp_path):
    """Every byte of the other packets may be destroyed."""
    path = tmp_path / "x.lpk"
    latentpack.save(path, X)
    data = bytearray(path.read_bytes())
    reader = Reader(data)
    starts = [offset for _, offset in reader._entries()]
    ends = [*starts[1:], reader._end_box().fields["index_offset"]]
    for (start, end), name in zip(zip(starts, ends, strict=True), X, strict=True):
        damaged = bytearray(data)
        for other_start, other_end in zip(starts, ends, strict=True):
            if other_start != start:
                damaged[other_start:other_end] = b"\xaa" * (other_end - other_start)
        path.write_bytes(damaged)
        with latentpack.open(path, recover=True) as f:
            assert torch.equal(f[name], X[name])
            for other in set(X) - {name}:
                with pytest.raises(latentpack.BitstreamError):
                    f[other]
        assert damaged[start:end] == data[start:end]


def test_open_a_tensor_without_a_name(tmp_path):
    latentpack.save(tmp_path / "x.lpk", X["a"])
    with latentpack.open(tmp_path / "x.lpk") as f:
        assert list(f) == [None]
        assert torch.equal(f[None], X["a"])


def test_open_rejects(tmp_path):
    path = tmp_path / "x.lpk"
    with pytest.raises(FileNotFoundError):
        latentpack.open(path)
    path.write_bytes(b"")
    with pytest.raises(latentpack.BitstreamError, match="inside its signature"):
        latentpack.open(path)
    latentpack.save(path, X, force=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(latentpack.BitstreamError, match=r"x\.lpk: the file has no end"):
        latentpack.open(path)
    with latentpack.open(path, recover=True) as f:
        assert same(dict(f), X)
    latentpack.save(path, X["a"], codec="image/light", force=True)
    with pytest.raises(ValueError, match="holds image/light, no tensors"):
        latentpack.open(path)


def test_save_never_overwrites(tmp_path):
    path = tmp_path / "x.lpk"
    latentpack.save(path, X["a"])
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--force"):
        latentpack.save(path, X["b"])
    with pytest.raises(ValueError, match="can't be stored"):
        latentpack.save(path, X["b"], force=True, metadata={"x": object()})
    assert path.read_bytes() == before
    latentpack.save(path, X["b"], force=True)
    assert torch.equal(latentpack.decode(path.read_bytes()), X["b"])
    assert list(tmp_path.iterdir()) == [path]


def test_close_while_a_view_is_alive(tmp_path):
    latentpack.save(tmp_path / "x.lpk", X)
    f = latentpack.open(tmp_path / "x.lpk")
    view = f._open_reader().read("a").bulk
    f.close()
    assert bytes(view) == bytes(X["a"].flatten().view(torch.uint8).numpy())


def test_what_follows_the_signal_is_checked(monkeypatch):
    class First(Plain):
        def decode(self, header, packets):
            return super().decode(header, [next(packets)])

    monkeypatch.setattr(registry, "load", lambda number: First)
    data = latentpack.encode(X["b"])
    assert torch.equal(latentpack.decode(data), X["b"])
    with pytest.raises(latentpack.BitstreamError, match="without box E"):
        latentpack.decode(data[:-7])
    with pytest.raises(latentpack.BitstreamError, match="more packets than its signal has"):
        latentpack.decode(latentpack.encode(X))


def test_codecs_that_decode_in_place(monkeypatch):
    class InPlace(Plain):
        def decode(self, header, packets, out=None):
            return out.copy_(super().decode(header, packets))

    monkeypatch.setattr(registry, "load", lambda number: InPlace)
    out = torch.zeros(4)
    assert latentpack.decode(latentpack.encode(X["b"]), out=out) is out
    assert torch.equal(out, X["b"])


def test_truncation_of_a_mapping_is_an_error():
    data = latentpack.encode(X)
    for size in itertools.islice(range(len(data)), 0, None, 7):
        with pytest.raises(latentpack.BitstreamError):
            latentpack.decode(data[:size])
