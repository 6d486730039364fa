"""Reading and writing picture files of every kind that people have."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from latentpack.datasets.images import (
    MAX_PIXELS,
    picture_format,
    read_image,
    suffixes,
    to_picture,
    write_image,
)

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def as_file(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    file.seek(0)
    return file


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(samples, colour_type, extra=b""):
    """A 16-bit PNG, uint16 [H, W, C]: Pillow can't write the ones with colours."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b""))


def pixels(x):
    """[H, W, C] as numpy."""
    return x.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_eight_bit_modes_are_read_as_they_are(mode, channels, format):
    if format == "BMP" and channels in (2, 4):
        pytest.skip("BMP has no alpha that readers agree on")
    samples = noise(6, 7, channels)
    picture = Image.fromarray(samples.squeeze(-1) if channels == 1 else samples)
    assert picture.mode == mode
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    x, metadata = read_image(as_file(picture, format, **options))
    assert x.dtype == torch.uint8 and "notes" not in metadata
    assert metadata["source"]["format"] == format and "bit_depth" not in metadata["source"]
    if format == "WEBP" and channels < 3:  # WebP has no grey
        samples = np.concatenate([samples[..., :1]] * 3 + [samples[..., 1:]], axis=-1)
    assert np.array_equal(pixels(x), samples)


def test_jpeg():
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    x, metadata = read_image(as_file(Image.fromarray(smooth), "JPEG", quality=95))
    assert x.shape == (1, 40, 50) and metadata["source"] == {"format": "JPEG", "mode": "L"}
    assert abs(x[0].numpy().astype(int) - smooth).max() < 8


def test_bilevel():
    picture = Image.fromarray(noise(5, 9) > 127)
    assert picture.mode == "1"
    x, metadata = read_image(as_file(picture))
    assert np.array_equal(pixels(x)[..., 0], np.asarray(picture) * np.uint8(255))
    assert metadata["source"] == {"format": "PNG", "mode": "1", "bit_depth": 1}


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
def test_palette(transparency):
    picture = Image.fromarray(noise(8, 8, 3)).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    file = as_file(picture, **options)
    x, metadata = read_image(file)
    expected = Image.open(file).convert("RGB" if transparency is None else "RGBA")
    assert metadata["source"]["mode"] == "P"
    assert np.array_equal(pixels(x), np.asarray(expected))


@pytest.mark.parametrize(("mode", "channels"), [("L", 2), ("RGB", 4), ("1", 2)])
def test_a_transparent_colour_becomes_alpha(mode, channels):
    picture = Image.new(mode, (4, 3), 1 if mode != "RGB" else (9, 8, 7))
    transparency = {"L": 1, "RGB": (9, 8, 7), "1": 1}[mode]
    x, _ = read_image(as_file(picture, transparency=transparency))
    assert x.shape == (channels, 3, 4) and int(x[-1].max()) == 0


def test_rgbx_loses_its_filler():
    picture = Image.fromarray(noise(4, 4, 3)).convert("RGBX")
    x, _ = read_image(as_file(picture, "TIFF"))
    assert np.array_equal(pixels(x), np.asarray(picture)[..., :3])


def test_cmyk_without_a_profile_is_converted_plainly():
    picture = Image.fromarray(noise(6, 6, 3)).convert("CMYK")
    x, metadata = read_image(as_file(picture, "TIFF"))
    assert np.array_equal(pixels(x), np.asarray(picture.convert("RGB")))
    assert metadata["notes"] == ["colours converted from CMYK to RGB without a profile"]


def test_cmyk_with_a_useless_profile_is_converted_plainly():
    picture = Image.fromarray(noise(6, 6, 3)).convert("CMYK")
    x, metadata = read_image(as_file(picture, "TIFF", icc_profile=SRGB))
    assert np.array_equal(pixels(x), np.asarray(picture.convert("RGB")))
    assert "icc" not in metadata and any("was ignored" in note for note in metadata["notes"])


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(mode):
    grey = Image.new("RGB", (5, 5), (120, 120, 120)).convert("YCbCr")
    if mode == "LAB":
        grey = Image.new("LAB", (5, 5), (128, 128, 128))  # L* of 50, neutral
    x, metadata = read_image(as_file(grey, "TIFF"))
    assert x.shape == (3, 5, 5) and abs(x.float() - 120).max() < 3
    assert metadata["notes"][-1].startswith("colours converted from ")


def test_sixteen_bit_grey_is_scaled_and_rounded():
    samples = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    x, metadata = read_image(as_file(Image.fromarray(samples)))
    assert x[0].tolist() == [[0, 0, 1, 1, 128, 255]]
    assert metadata["source"] == {"format": "PNG", "mode": "I;16", "bit_depth": 16}
    assert metadata["notes"] == ["16-bit samples coded with 8 bits"]


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_png_is_noticed(colour_type, channels):
    samples = noise(4, 5, channels).astype(np.uint16) * 257
    x, metadata = read_image(deep_png(samples, colour_type))
    assert np.array_equal(pixels(x), samples // 257)
    assert metadata["notes"] == ["16-bit samples coded with 8 bits"]
    assert metadata["source"]["bit_depth"] == 16


def test_sixteen_bit_colour_tiff_is_noticed():
    """Hand-made: little-endian, one strip, 2x1 pixels of three 16-bit samples."""
    samples = np.array([[0, 257, 65535], [514, 771, 1028]], dtype="<u2").tobytes()
    tags = [
        (256, 3, 1, 2),
        (257, 3, 1, 1),
        (258, 3, 3, 8 + 2 + 10 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 10 * 12 + 4 + 6),
        (277, 3, 1, 3),
        (278, 3, 1, 1),
        (279, 4, 1, len(samples)),
        (284, 3, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    file = b"II*\0\x08\0\0\0" + directory + struct.pack("<HHH", 16, 16, 16) + samples
    x, metadata = read_image(io.BytesIO(file))
    assert pixels(x).tolist() == [[[0, 1, 255], [2, 3, 4]]]
    assert metadata["notes"] == ["16-bit samples coded with 8 bits"]


def test_sixteen_bit_ppm():
    samples = np.array([[[0, 257, 65535]]], dtype=">u2")
    x, metadata = read_image(io.BytesIO(b"P6 1 1 65535\n" + samples.tobytes()))
    assert x.flatten().tolist() == [0, 1, 255] and "16-bit" in metadata["notes"][0]
    x, metadata = read_image(io.BytesIO(b"P5 3 1 1023\n" + b"\0\0\x01\xff\x03\xff"))
    assert x.flatten().tolist() == [0, 127, 255] and "10-bit" in metadata["notes"][0]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-1000, 0, 1000], [0, 128, 255]),
    ],
)
def test_32_bit_integers(samples, expected):
    file = as_file(Image.fromarray(np.array([samples], dtype=np.int32)), "TIFF")
    x, metadata = read_image(file)
    assert x.flatten().tolist() == expected and metadata["notes"]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([0, 0.5, 1], [0, 128, 255]), ([0, 100.4, 255], [0, 100, 255]), ([-1, 0, 1], [0, 128, 255])],
)
def test_floats(samples, expected):
    file = as_file(Image.fromarray(np.array([samples], dtype=np.float32)), "TIFF")
    x, metadata = read_image(file)
    assert x.flatten().tolist() == expected and "floating-point" in metadata["notes"][0]


def test_floats_with_nan_are_refused():
    file = as_file(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF")
    with pytest.raises(ValueError, match="NaN"):
        read_image(file)


def test_deep_avif_and_jpeg2000_are_noticed():
    samples = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    _, metadata = read_image(as_file(Image.fromarray(samples), "JPEG2000"))
    assert metadata["source"]["bit_depth"] == 16
    _, metadata = read_image(as_file(Image.fromarray(noise(8, 8, 3)), "AVIF"))
    assert "bit_depth" not in metadata["source"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format, orientation):
    ramp = np.zeros((16, 32, 3), dtype=np.uint8)
    ramp[:8, :16] = 200  # a bright top left quarter
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    x, metadata = read_image(as_file(Image.fromarray(ramp), format, exif=exif))
    # Where row 0 / column 0 of the file are seen, by the EXIF standard.
    bright = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    height, width = (16, 32) if orientation < 5 else (32, 16)
    assert x.shape == (3, height, width)
    row = 1 if bright[0] == "t" else height - 2
    column = 1 if bright[1] == "l" else width - 2
    assert x[0, row, column] > 150 and x[0, height - 1 - row, width - 1 - column] < 50
    kept = Image.Exif()
    kept.load(metadata["exif"])
    assert kept.get(0x0112, 1) == 1 and kept[0x010F] == "Maker"


def test_damaged_exif_does_not_lose_the_picture():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03" * 3
    x, _ = read_image(as_file(Image.fromarray(noise(4, 4, 3)), "JPEG", exif=exif))
    assert x.shape == (3, 4, 4)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_metadata_survive_a_round_trip(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    given = {"icc": SRGB, "exif": exif.tobytes(), "dpi": [300.0, 300.0]}
    x = torch.from_numpy(noise(3, 16, 16))
    assert write_image(tmp_path / f"a.{suffix}", x, given) == []
    again, metadata = read_image(tmp_path / f"a.{suffix}")
    kept = Image.Exif()
    kept.load(metadata["exif"])
    assert metadata["icc"] == SRGB and kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
    if suffix in ("png", "webp", "tif"):
        assert torch.equal(x, again)
    if suffix in ("png", "jpg", "tif"):
        assert metadata["dpi"] == pytest.approx([300, 300], abs=0.1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".jp2", ".tga"])
def test_writing_is_lossless(tmp_path, suffix, channels):
    x = torch.from_numpy(noise(channels, 300, 5))  # more rows than one strip
    path = tmp_path / f"a{suffix}"
    assert write_image(path, x, {}) == []
    again, _ = read_image(path)
    if len(again) > channels:  # formats without grey
        grey, alpha = x[:1], x[1:]
        x = torch.cat([grey, grey, grey, alpha])
    assert torch.equal(again, x)


def test_what_a_format_can_not_hold_is_said():
    x = torch.from_numpy(noise(4, 8, 8))
    for name in ("PPM", "BMP"):
        file = io.BytesIO()
        assert write_image(file, x, {"icc": SRGB}, name) == [
            f"{name} files are written without ICC",
            f"{name} has no alpha channel: transparency is left out",
        ]
        file.seek(0)
        assert torch.equal(read_image(file)[0], x[:3])
    notes = write_image(io.BytesIO(), x[:3], {"exif": b"Exif\0\0" + bytes(70000)}, "JPEG")
    assert "too long for JPEG" in notes[0]


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif", "png"])
def test_noise_fits_the_buffers_of_every_writer(tmp_path, suffix):
    x = torch.from_numpy(noise(3, 200, 300))
    assert write_image(tmp_path / f"a.{suffix}", x) == []
    assert read_image(tmp_path / f"a.{suffix}")[0].shape == x.shape


def test_writing_refuses():
    x = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="no picture format 'xyz'; can be written: AVIF, BMP"):
        write_image(io.BytesIO(), x, {}, "xyz")
    with pytest.raises(ValueError, match="no picture format given"):
        write_image(io.BytesIO(), x)
    with pytest.raises(ValueError, match=r"uint8 \[1 to 4, H, W\], got float32 \[3, 4, 4\]"):
        write_image(io.BytesIO(), x.float(), {}, "png")
    with pytest.raises(ValueError, match="WEBP ends at 16383 pixels a side, got 20000"):
        write_image(io.BytesIO(), x[:1, :1, :1].expand(1, 1, 20000), {}, ".webp")


def test_formats_and_suffixes():
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".bmp", ".avif", ".gif"} <= suffixes()
    assert ".eps" not in suffixes() and ".lpk" not in suffixes()
    assert picture_format(".JPG") == "JPEG" and picture_format("tif") == "TIFF"


def test_the_first_picture_of_an_animation():
    frames = [Image.fromarray(noise(5, 5)) for _ in range(3)]
    file = as_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    x, metadata = read_image(file)
    assert metadata["notes"] == ["the first of 3 pictures"]
    assert np.array_equal(pixels(x)[..., 0], np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text file\n", "not a picture but a text file; PNG"),
        (b"\0\1\2\3" * 20, "not a picture but no known format"),
        (b"\x89LPK\r\n\x1a\n\0\0", "`latentpack decode` turns it into one"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "convert it to PNG first"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_what_is_no_picture_is_said(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "PPM"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_cut_pictures_are_refused(format, kept):
    whole = as_file(Image.fromarray(noise(32, 32, 3)), format).getvalue()
    with pytest.raises(ValueError, match=r"damaged|cut|not a picture|empty"):
        read_image(io.BytesIO(whole[: int(len(whole) * kept)]))


def test_missing_files_and_folders_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def bomb(width, height):
    """A PNG header that promises more than there is."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0")))


@pytest.mark.parametrize(("width", "height"), [(10001, 10000), (100000, 100000)])
def test_too_many_pixels_are_refused_before_decoding(width, height):
    with pytest.raises(ValueError, match="the limit is 100000000"):
        read_image(bomb(width, height))


def test_max_pixels():
    file = as_file(Image.new("L", (20, 10)))
    with pytest.raises(ValueError, match="20x10 = 200 pixels, the limit is 199"):
        read_image(file, max_pixels=199)
    file.seek(0)
    with pytest.raises(ValueError, match="has 200 pixels, the limit is 9"):
        read_image(file, max_pixels=9)
    file.seek(0)
    assert read_image(file, max_pixels=200)[0].shape == (1, 10, 20)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match="damaged"):  # 100 Mpx is allowed, but nothing is there
        read_image(bomb(10000, 10000), max_pixels=MAX_PIXELS)
    assert before == Image.MAX_IMAGE_PIXELS


def test_streams_without_seeking():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    x = torch.from_numpy(noise(3, 4, 4))
    x_hat, _ = read_image(Pipe(as_file(to_picture(x)).getvalue()))
    assert torch.equal(x, x_hat)
