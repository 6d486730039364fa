"""Read and write picture files: uint8 [C, H, W] and what the file said beside its samples.

Where asked for, PNG and TIFF files of 16 bits are uint16 [C, H, W], see `deep_pictures`.

C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), alpha not premultiplied. `metadata` holds
only what a container can carry, each key only where the file had it:

    icc     bytes, the colour profile of the samples
    exif    bytes, "Exif" and two zeros first; without orientation, which has been applied
    dpi     [horizontal, vertical], dots per inch
    source  {"format": "PNG", "mode": "P", "bit_depth": 16 (where it is not 8)}
    notes   what reading has changed or left out, in words
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from . import deep_pictures
from .picture_modes import FOREIGN_MODES, bit_depth, to_8_bit

Metadata = dict[str, Any]
MAX_PIXELS = 100_000_000
# Pillow draws these with outside programs or has only a stub for them.
_REFUSED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_HEAD_BYTES = 4096  # enough for the signatures and headers that are looked at
_STRIP_ROWS = 256  # rows copied at once between Pillow and tensors, so that memory stays low
_EXIF_DAMAGED = "the EXIF metadata is damaged and left out"
_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
# What brings the samples upright for each orientation of EXIF.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# In a TIFF the EXIF tags share a directory with the layout of the samples; these describe.
_TIFF_KEPT_TAGS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, _EXIF_IFD, _GPS_IFD}
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# What each format written can hold of icc, exif and dpi, and the options of Image.save.
_WRITERS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "PNG": ({"icc", "exif", "dpi", "alpha"}, {}),
    "JPEG": ({"icc", "exif", "dpi"}, {"quality": 95, "subsampling": 0}),
    "WEBP": ({"icc", "exif", "alpha"}, {"lossless": True, "exact": True}),
    "TIFF": ({"icc", "exif", "dpi", "alpha"}, {"compression": "tiff_adobe_deflate"}),
    "BMP": ({"dpi"}, {}),  # readers take the fourth byte of a pixel for a filler
    "AVIF": ({"icc", "exif", "alpha"}, {"quality": 95, "subsampling": "4:4:4"}),
    "JPEG2000": ({"alpha"}, {}),
    "PPM": (set(), {}),
    "TGA": ({"alpha"}, {}),
}
_LIMITS = {"WEBP": 16383, "JPEG": 65535, "AVIF": 65536}  # longest side
_JPEG_EXIF_BYTES = 65533
_pillow_lock = threading.Lock()


def read_image(
    source: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS, deep: bool = False
) -> tuple[torch.Tensor, Metadata]:
    """Read a picture file of any format that Pillow opens.

    Args:
        source: a path, or a binary file object.
        max_pixels: larger pictures are refused before they are decoded.
        deep: give PNG and TIFF files of 16 bits as uint16.

    Returns:
        The samples, uint8 (or uint16) [C, H, W], and the metadata described above.

    Raises:
        ValueError: not a picture, damaged, too large or empty.
        OSError: the file can't be opened or read.
    """
    if isinstance(source, (str, Path)):
        with Path(source).open("rb") as opened:
            return _read(opened, str(source), max_pixels, deep)
    file: BinaryIO = source if source.seekable() else io.BytesIO(source.read())
    return _read(file, str(getattr(source, "name", "the picture")), max_pixels, deep)


def suffixes() -> set[str]:
    """The file suffixes of the pictures that can be read: {".png", ".jpg", ...}."""
    known = Image.registered_extensions()
    return {
        suffix
        for suffix, name in known.items()
        if name in Image.OPEN and name not in _REFUSED_FORMATS
    }


def _read(file: BinaryIO, name: str, max_pixels: int, deep: bool) -> tuple[torch.Tensor, Metadata]:
    start = file.tell()
    head = file.read(_HEAD_BYTES)
    file.seek(start)
    notes: list[str] = []
    with _pillow_settings(max_pixels):
        try:
            return _read_picture(file, head, max_pixels, notes, deep)
        except (MemoryError, _TooLargeError) as error:
            raise type(error)(f"{name}: {error}") from None
        except Image.DecompressionBombError as error:
            count = re.search(r"\d+", str(error))
            found = count.group() if count else "too many"
            raise ValueError(f"{name}: {_too_large(found, max_pixels)}") from None
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{name}: {_explain(error, head)}") from error


class _TooLargeError(ValueError):
    """A picture of more pixels than asked for; its message needs no explanation."""


def _too_large(size: str, max_pixels: int) -> str:
    return f"the picture has {size} pixels, the limit is {max_pixels}; make it smaller first"


@contextmanager
def _pillow_settings(max_pixels: int) -> Iterator[None]:
    """Pillow's own limit and warnings are global; ours hold while one picture is read."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_picture(
    file: BinaryIO, head: bytes, max_pixels: int, notes: list[str], deep: bool
) -> tuple[torch.Tensor, Metadata]:
    start = file.tell()
    Image.init()
    formats = [name for name in Image.ID if name not in _REFUSED_FORMATS]
    with Image.open(file, formats=formats) as picture:
        width, height = picture.size
        if width < 1 or height < 1:
            raise ValueError(f"the picture is empty, {width}x{height} pixels")
        if width * height > max_pixels:
            raise _TooLargeError(_too_large(f"{width}x{height} = {width * height}", max_pixels))
        metadata = _describe_source(picture, head, notes)
        picture.load()
        exif, orientation = _open_exif(picture, notes)
        metadata |= _read_metadata(picture, exif, orientation, notes)
        if deep and metadata["source"].get("bit_depth") == 16:
            file.seek(start)
            found = deep_pictures.read_deep(file, str(picture.format))
            if found is not None and found.shape[1:] == (height, width):
                metadata |= {"notes": notes} if notes else {}
                return deep_pictures.upright(found, orientation), metadata
        samples = to_8_bit(picture, metadata["source"].get("bit_depth", 8), notes)
        if picture.format == "PNG" and metadata["source"]["mode"] == "LA":
            samples = samples.convert("LA")  # Pillow opens 16-bit grey + alpha as RGBA
        if orientation in _UPRIGHT:
            samples = samples.transpose(_UPRIGHT[orientation])
    if notes:
        metadata["notes"] = notes
    return _to_tensor(samples), metadata


def _describe_source(picture: ImageFile.ImageFile, head: bytes, notes: list[str]) -> Metadata:
    mode = picture.mode
    if picture.format == "PNG" and str(picture.tile[0].args).startswith("LA"):
        mode = "LA"
    source: Metadata = {"format": picture.format or "unknown", "mode": mode}
    depth = bit_depth(picture, head)
    if depth != 8:
        source["bit_depth"] = depth
    if getattr(picture, "n_frames", 1) > 1:
        notes.append(f"the first of {picture.n_frames} pictures")  # type: ignore[attr-defined]
    return {"source": source}


def _open_exif(picture: ImageFile.ImageFile, notes: list[str]) -> tuple[Image.Exif, int]:
    """The EXIF tags without the orientation, and the orientation, 1 (upright) to 8."""
    try:
        exif = picture.getexif()
        orientation = exif.pop(_ORIENTATION, 1)
    except Exception:  # damaged EXIF; the picture itself may be fine
        notes.append(_EXIF_DAMAGED)
        return Image.Exif(), 1
    return exif, orientation if orientation in _UPRIGHT else 1


def _read_metadata(
    picture: ImageFile.ImageFile, exif: Image.Exif, orientation: int, notes: list[str]
) -> Metadata:
    found: Metadata = {}
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in FOREIGN_MODES:
        notes.append(f"the colour profile of the {picture.mode} samples is left out")
    elif profile:
        found["icc"] = bytes(profile)
    dpi = picture.info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(0 < float(value) < 1e6 for value in dpi):
        found["dpi"] = [float(value) for value in (dpi[::-1] if orientation >= 5 else dpi)]
    if picture.format == "TIFF":
        for tag in set(exif) - _TIFF_KEPT_TAGS:
            del exif[tag]
    raw = picture.info.get("exif")
    if exif and isinstance(raw, bytes) and orientation == 1:
        found["exif"] = raw if raw.startswith(_EXIF_PREFIX) else _EXIF_PREFIX + raw
    elif exif:
        try:
            found["exif"] = exif.tobytes()
        except Exception:  # damaged values meet Pillow's writer in many ways
            notes.append(_EXIF_DAMAGED)
    if picture.info.get("xmp"):
        notes.append("XMP metadata is left out")
    return found


def _explain(error: Exception, head: bytes) -> str:
    """Why the bytes are no picture, and what to do."""
    if not head:
        return "the file is empty"
    if not isinstance(error, UnidentifiedImageError):
        return f"the picture is damaged or cut short ({error}); get the file again"
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return f"a damaged or cut {name} file, or a kind of {name} that can't be read"
    if head.startswith(b"\x89LPK"):
        return "not a picture but a latentpack file; `latentpack decode` turns it into one"
    if head[4:8] == b"ftyp" or head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "not a picture that can be read (HEIC, JPEG XL or video?); convert it to PNG first"
    text = b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    kind = "a text file" if text else "no known format"
    return f"not a picture but {kind}; PNG, JPEG, WebP, TIFF, BMP, AVIF ... can be read"


def _to_tensor(picture: Image.Image) -> torch.Tensor:
    width, height = picture.size
    channels = len(picture.getbands())
    x = torch.empty((channels, height, width), dtype=torch.uint8)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        strip = np.array(picture.crop((0, top, width, bottom)))
        strip = strip.reshape(bottom - top, width, channels)
        x[:, top:bottom] = torch.from_numpy(strip).permute(2, 0, 1)
    return x


def to_picture(x: torch.Tensor) -> Image.Image:
    """Uint8 [C, H, W] as a Pillow picture."""
    if x.dtype != torch.uint8 or x.ndim != 3 or x.shape[0] not in _MODES or x.numel() == 0:
        got = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
        raise ValueError(f"a picture is uint8 [1 to 4, H, W], got {got}")
    _, height, width = x.shape
    picture = Image.new(_MODES[x.shape[0]], (width, height))
    for top in range(0, height, _STRIP_ROWS):
        strip = x[:, top : top + _STRIP_ROWS].permute(1, 2, 0).contiguous().cpu().numpy()
        picture.paste(Image.fromarray(strip[..., 0] if x.shape[0] == 1 else strip), (0, top))
    return picture


def write_image(
    target: str | Path | BinaryIO,
    x: torch.Tensor,
    metadata: Metadata | None = None,
    format: str | None = None,
) -> list[str]:
    """Write a picture file: without loss, except as JPEG or AVIF (quality 95, 4:4:4).

    Args:
        target: a path, or a binary file object; what a path held is overwritten.
        x: uint8 [C, H, W], C as in `read_image`; or uint16, of which only PNG keeps all bits.
        metadata: as `read_image` gives it; icc, exif and dpi are written.
        format: a name like "PNG" or a suffix like "jpg"; by default the path's suffix.

    Returns:
        What the format could not hold, in words.

    Raises:
        ValueError: the format is unknown or can't hold a picture of this size.
        OSError: the file can't be written.
    """
    path = target if isinstance(target, (str, Path)) else getattr(target, "name", "")
    name = picture_format(format or Path(str(path)).suffix)
    holds, options = _WRITERS[name]
    longest = max(x.shape[-2:])
    if longest > _LIMITS.get(name, longest):
        raise ValueError(f"{name} ends at {_LIMITS[name]} pixels a side, got {longest}; use PNG")
    notes: list[str] = []
    extras = _extras(name, metadata or {}, notes)
    if x.shape[0] in (2, 4) and "alpha" not in holds:
        x = x[:-1]
        notes.append(f"{name} has no alpha channel: transparency is left out")
    if x.dtype == torch.uint16 and name != "PNG":
        x = deep_pictures.to_8_bit(x)
        notes.append(f"{name} is written with 8 of 16 bits; PNG keeps them all")
    encoded = _encoded(x, name, options | extras)
    if isinstance(target, (str, Path)):
        Path(target).write_bytes(encoded)
    else:
        target.write(encoded)
    return notes


def _encoded(x: torch.Tensor, name: str, options: dict[str, Any]) -> memoryview:
    if x.dtype == torch.uint16:
        return memoryview(deep_pictures.png_of(x, options))
    encoded = io.BytesIO()  # Pillow's own writers hide why a write failed
    to_picture(x).save(encoded, name, **options)
    return encoded.getbuffer()


def picture_format(name: str) -> str:
    """The format of a name ("jpeg") or suffix (".jpg"), as Pillow calls it.

    Raises:
        ValueError: pictures of this format can't be written.
    """
    key = name.strip().lower().removeprefix(".")
    found = Image.registered_extensions().get(f".{key}", key.upper())
    if found not in _WRITERS:
        known = ", ".join(sorted(_WRITERS))
        what = f"no picture format {name!r}" if key else "no picture format given"
        raise ValueError(f"{what}; can be written: {known}")
    return found


def _extras(name: str, metadata: Metadata, notes: list[str]) -> dict[str, Any]:
    """The options of Image.save for the metadata that the format holds."""
    holds = _WRITERS[name][0]
    extras: dict[str, Any] = {}
    keys = {"icc": "icc_profile", "exif": "exif", "dpi": "dpi"}
    for key, option in keys.items():
        value = metadata.get(key)
        if not value:
            continue
        if key not in holds:
            if key != "dpi":
                notes.append(f"{name} files are written without {key.upper()}")
        elif key == "exif" and name == "JPEG" and len(value) > _JPEG_EXIF_BYTES:
            notes.append(f"EXIF of {len(value)} bytes is too long for JPEG and left out")
        else:
            extras[option] = tuple(value) if key == "dpi" else value
    if name == "TIFF" and "exif" in extras:
        extras["compression"] = None  # libtiff can't write the directories inside EXIF
    return extras
