"""The codec image/lossless: pictures of all kinds, odd input, damage, the command line."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import latentpack
from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.image import lossless, lossless_tiles
from latentpack.codecs.image.lossless import Grid, Lossless
from latentpack.datasets import deep_pictures
from latentpack.datasets.images import read_image, write_image
from latentpack.kernels.errors import BitstreamError
from latentpack.tests.command_line import fails, run

GOLDEN = Path(__file__).parent / "golden" / "image_lossless"


def scene(channels, height, width, bits=8, seed=0):
    """Something like a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 30
    base = 0.5 + 0.2 * np.sin(x) + 0.2 * np.cos(y + x / 2)
    many = base + rng.normal(0, 0.01, (channels, height, width))
    peak = (1 << bits) - 1
    return torch.from_numpy(
        np.rint(many.clip(0, 1) * peak).astype(np.uint8 if bits == 8 else np.uint16)
    )


def there_and_back(x, **options):
    data = latentpack.encode(x, codec="image/lossless", **options)
    y = latentpack.decode(data)
    assert y.dtype == x.dtype and y.shape == x.shape
    return len(data), y


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 17), (19, 1), (33, 20)])
def test_every_kind_comes_back(bits, channels, size):
    x = scene(channels, *size, bits)
    assert torch.equal(there_and_back(x)[1], x)


def test_a_photograph_gets_small_in_8_and_16_bits():
    x = scene(3, 64, 64)
    assert there_and_back(x)[0] < 0.55 * x.numel()  # the noise has 3.4 bits of 8
    deep = scene(3, 64, 64, 16)
    assert there_and_back(deep)[0] < 0.75 * 2 * deep.numel()  # and 11.4 of 16


@pytest.mark.parametrize(("error", "bits"), [(1, 8), (2, 8), (7, 8), (100, 16)])
def test_errors_are_bounded_and_alpha_has_none(error, bits):
    x = scene(4, 40, 50, bits)
    exact, _ = there_and_back(x)
    size, y = there_and_back(x, max_error=error)
    difference = np.abs(y.numpy().astype(int) - x.numpy())
    assert difference[:3].max() == error and difference[3].max() == 0
    assert size < exact


def test_tiles(monkeypatch):
    monkeypatch.setattr(lossless, "TILE", 16)
    x = scene(3, 37, 50)
    sizes = [there_and_back(x, threads=threads)[0] for threads in (1, 3)]
    assert sizes[0] == sizes[1]
    files = {latentpack.encode(x, codec="image/lossless", threads=n) for n in (1, 2, 5)}
    assert len(files) == 1
    (data,) = files
    assert Reader(data).keys() == list(range(12))
    assert torch.equal(latentpack.decode(data), x)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (1024, 1025), (5000, 3000)])
def test_tiles_cover_a_picture_once(size):
    grid = Grid(*size)
    seen = np.zeros((size[1], size[0]), np.uint8)
    for number in range(len(grid)):
        rows, columns = grid.box(number)
        assert 1 <= rows.stop - rows.start <= 1024 and 1 <= columns.stop - columns.start <= 1024
        seen[rows, columns] += 1
    assert (seen == 1).all()


def test_constant_pictures_are_tiny():
    for channels, bits in itertools.product((1, 2, 3, 4), (8, 16)):
        x = torch.full((channels, 200, 300), 77, dtype=torch.uint8 if bits == 8 else torch.uint16)
        size, y = there_and_back(x)
        assert torch.equal(y, x) and size < 80


def test_noise_is_stored():
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        x = torch.from_numpy(rng.integers(0, np.iinfo(dtype).max + 1, (3, 50, 40), dtype))
        size, y = there_and_back(x)
        assert torch.equal(y, x) and size <= x.numel() * x.element_size() + 60


def test_few_colours():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 4), np.uint8)
    numbers = np.kron(rng.integers(0, 9, (10, 12)), np.ones((8, 8), int))
    x = torch.from_numpy(np.ascontiguousarray(colours[numbers].transpose(2, 0, 1)))
    size, y = there_and_back(x)
    assert torch.equal(y, x) and size < 600  # 120 blocks, a few bytes each
    assert torch.equal(there_and_back(x, max_error=2)[1], x)


def test_unused_low_bits_and_sparse_values():
    rng = np.random.default_rng(0)
    ten_bits = scene(1, 80, 80, 16).numpy() >> 6
    plain = there_and_back(torch.from_numpy(ten_bits))[0]
    shifted = there_and_back(torch.from_numpy(ten_bits << 6))[0]
    assert shifted < plain + 100
    levels = np.sort(rng.choice(65536, 200, replace=False)).astype(np.uint16)
    x = torch.from_numpy(levels[rng.integers(0, 200, (3, 80, 80))])
    size, y = there_and_back(x)
    assert torch.equal(y, x) and size < x.numel() * 8 / 8 * 1.02  # log2(200) = 7.6 bits


def test_constant_alpha_costs_nothing():
    x = scene(4, 60, 60)
    x[3] = 255
    assert there_and_back(x)[0] < there_and_back(x[:3])[0] + 30


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lpk")), ids=lambda path: path.stem)
def test_golden_files_decode_and_are_made_again(path):
    x = latentpack.decode(path.read_bytes())
    little = x.numpy().astype(x.numpy().dtype.newbyteorder("<"))
    assert little.tobytes() == path.with_suffix(".bin").read_bytes()
    if path.stem != "near2":
        assert latentpack.encode(x, codec="image/lossless") == path.read_bytes()


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 7


def test_repeated_things_cost_little():
    """Glyphs that were there before, as in screenshots."""
    rng = np.random.default_rng(0)
    glyphs = rng.integers(0, 256, (8, 10, 6), np.uint8)
    text = np.concatenate([np.concatenate(glyphs[rng.integers(0, 8, 16)], 1) for _ in range(12)])
    size, y = there_and_back(torch.from_numpy(text[None]))
    assert torch.equal(y, torch.from_numpy(text[None])) and size < 0.5 * text.size


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"uint8 or uint16 \[1 to 4, height, width\]"):
        latentpack.encode(torch.zeros(3, 4, 4), codec="image/lossless")
    with pytest.raises(ValueError, match="takes no rate"):
        latentpack.encode(scene(3, 4, 4), codec="image/lossless", rate=Rate(bpp=1))
    with pytest.raises(ValueError, match="max_error must be 0 to 255"):
        Lossless(max_error=256)
    with pytest.raises(ValueError, match="threads must be 1 or more"):
        Lossless(threads=0)


def test_damage_is_found_or_harmless():
    """Bits flipped behind the container's checksum: an error, or by luck the same samples."""
    codec = Lossless(threads=1)
    few = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 12, 11), np.uint8) * 9)
    sparse = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (1, 30, 31), np.uint8) * 28)
    for x in (scene(3, 12, 11), few, sparse, scene(2, 5, 4, 16)):
        header = codec.header(x)
        (packet,) = codec.encode(x)
        rng = np.random.default_rng(1)
        for _ in range(150):
            body = bytearray(packet.body)
            for at in rng.integers(0, len(body), 2):
                body[min(at, at // rng.integers(1, 9))] ^= 1 << rng.integers(0, 8)
            body = body[: len(body) - int(rng.integers(0, 3))]
            try:
                y = codec.decode(header, [Packet(None, bytes(body))])
            except BitstreamError:
                continue
            assert torch.equal(y, x)


def test_headers_and_packets_that_do_not_fit():
    codec, x = Lossless(), scene(3, 9, 8)
    header = codec.header(x)
    (packet,) = codec.encode(x)
    for wrong in (
        {"s": [8, 9]},
        {"s": [0, 9, 3]},
        {"b": 12},
        {"e": 256},
        {"e": True},
        {"s": [8, 9, 5]},
    ):
        with pytest.raises(BitstreamError, match="header field"):
            codec.decode(header | wrong, [packet])
    with pytest.raises(BitstreamError, match="out of order or outside"):
        codec.decode(header, [Packet(1, packet.body)])
    with pytest.raises(BitstreamError, match="1 tiles, 0 are there"):
        codec.decode(header, [])
    with pytest.raises(BitstreamError, match="out of order or outside"):
        codec.decode(header, [packet, packet])


def test_a_small_file_of_a_huge_picture_needs_no_memory():
    """One tile of the many that the header states; if there is no room, that is said."""
    black = np.zeros((3, 1024, 1024), np.uint8)
    body = lossless_tiles.encode(black, 0)
    assert len(body) < 30
    with pytest.raises(BitstreamError, match=r"268435456 tiles, 1 are there|fit into memory"):
        Lossless().decode({"s": [1 << 24, 1 << 24, 3], "b": 8}, [Packet(0, body)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_files_of_16_bits(tmp_path, channels):
    x = scene(channels, 21, 30, 16)
    before, packed, after = tmp_path / "a.png", tmp_path / "a.lpk", tmp_path / "b.png"
    described = {
        "dpi": [300.0, 300.0],
        "icc": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "exif": b"Exif\0\0" + Image.Exif().tobytes().removeprefix(b"Exif\0\0"),
    }
    assert write_image(before, x, described) == []
    assert run("encode", before, "-o", packed, "--codec", "image/lossless").exit_code == 0
    done = run("decode", packed, "-o", after)
    assert done.exit_code == 0
    y, metadata = read_image(after, deep=True)
    assert torch.equal(y, x)
    assert metadata["dpi"] == pytest.approx([300, 300], abs=0.02)
    assert metadata["icc"] == described["icc"]
    assert metadata["source"]["bit_depth"] == 16 and "notes" not in metadata
    done = run("decode", packed, "-o", tmp_path / "b.webp")
    assert "8 of 16 bits; PNG keeps them all" in done.stderr
    shallow = read_image(tmp_path / "b.webp")[0]
    colours = shallow[[0]] if channels < 3 else shallow[:3]
    expected = np.rint(x.numpy()[: len(colours)] / 257)
    assert np.array_equal(colours.numpy(), expected)


def test_deep_pictures_are_turned_upright(tmp_path):
    x = scene(3, 5, 8, 16)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for bits, name in ((x, "deep.png"), (deep_pictures.to_8_bit(x), "flat.png")):
            write_image(tmp_path / name, bits, {"exif": exif.tobytes()})
        deep, _ = read_image(tmp_path / "deep.png", deep=True)
        flat, _ = read_image(tmp_path / "flat.png")
        assert torch.equal(deep_pictures.to_8_bit(deep), flat)


def test_tiff_files_of_16_bits(tmp_path):
    """Written by FFmpeg; Pillow can't."""
    x = scene(3, 9, 8, 16)
    path = tmp_path / "a.tiff"
    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream("tiff", rate=1, width=8, height=9, pix_fmt="rgb48le")
        frame = av.VideoFrame.from_ndarray(x.permute(1, 2, 0).numpy().copy(), "rgb48le")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    assert torch.equal(read_image(path, deep=True)[0], x)
    assert read_image(path)[0].dtype == torch.uint8


def test_max_error_on_the_command_line(tmp_path):
    x = scene(3, 30, 30)
    write_image(tmp_path / "a.png", x)
    options = ("--codec", "image/lossless", "--max-error", "2", "--show-psnr")
    done = run("encode", tmp_path / "a.png", *options)
    assert done.exit_code == 0 and " dB" in done.stdout
    assert run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.png").exit_code == 0
    y, _ = read_image(tmp_path / "b.png")
    assert np.abs(y.numpy().astype(int) - x.numpy()).max() == 2
    message = fails("encode", tmp_path / "a.png", "--codec", "image/lossless", "-q", "50", "-f")
    assert "takes no rate" in message
