"""Pictures of any Pillow mode as 8-bit grey, grey + alpha, RGB or RGBA, saying what was lost.

    1, L, I;16, I, F          -> L     (LA where a colour is declared transparent)
    P, RGB, RGBX, CMYK, ...   -> RGB   (RGBA where there is transparency)

Everything that changes samples adds a line to `notes`. Deep samples are scaled by
255 / (2^bits - 1) and rounded; Pillow itself reduces 16-bit RGB to its high byte.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

TARGET_MODES = ("L", "LA", "RGB", "RGBA")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Modes whose samples are no RGB: an embedded profile describes them and ends with them.
FOREIGN_MODES = ("CMYK", "LAB", "YCbCr", "HSV")
_TIFF_BITS_PER_SAMPLE = 258


def bit_depth(picture: ImageFile.ImageFile, head: bytes) -> int:
    """Bits per sample in the file, of which Pillow may have kept 8.

    Args:
        picture: just opened: loading it empties the tile list that is read here.
        head: the first kilobytes of the file.
    """
    if picture.mode == "1":
        return 1
    if picture.mode == "F":
        return 32
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_TIFF_BITS_PER_SAMPLE, 8)  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if picture.format == "AVIF":
        # Pixel information box: version and flags, channels, bits of the first channel.
        at = head.find(b"pixi")
        return head[at + 9] if 0 <= at < len(head) - 9 else 8
    if picture.format == "JPEG2000":
        # SIZ marker: Ssiz of the first component is byte 40 (bits - 1, sign in the top bit).
        at = head.find(b"\xff\x4f\xff\x51") + 2
        return (head[at + 40] & 0x7F) + 1 if 2 <= at < len(head) - 40 else 8
    args = picture.tile[0].args if picture.tile else ""
    if picture.format == "PPM" and isinstance(args, tuple) and isinstance(args[1], int):
        return max(args[1].bit_length(), 1) if args[1] > 255 else 8
    return 16 if "16" in str(args) or picture.mode.startswith("I") else 8


def to_8_bit(picture: Image.Image, depth: int, notes: list[str]) -> Image.Image:
    """Convert to one of TARGET_MODES, keeping transparency."""
    if depth > 8 and picture.mode != "F":
        notes.append(f"{depth}-bit samples coded with 8 bits")
    if picture.mode in DEEP_MODES:
        return _reduce_depth(picture, depth, notes)
    if picture.mode in FOREIGN_MODES:
        return _to_rgb(picture, notes)
    if picture.mode in TARGET_MODES and "transparency" not in picture.info:
        return picture
    has_alpha = picture.has_transparency_data
    if picture.mode in ("1", "L", "LA", "La"):
        return picture.convert("LA" if has_alpha else "L")
    return picture.convert("RGBA" if has_alpha else "RGB")


def _reduce_depth(picture: Image.Image, depth: int, notes: list[str]) -> Image.Image:
    samples = np.asarray(picture)
    if picture.mode == "F":
        return Image.fromarray(_reduce_float(samples, notes))
    if "transparency" in picture.info:
        notes.append("the transparent grey level of a 16-bit picture is ignored")
    if picture.mode == "I" and depth > 16:
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > 65535:
            scaled = (samples.astype(np.float64) - low) * (255 / (high - low))
            notes.append(f"integer samples {low} to {high} scaled to 0 to 255")
            return Image.fromarray(np.rint(scaled).astype(np.uint8))
        depth = 8 if high <= 255 else 16
    elif picture.format in ("PPM", "JPEG2000"):
        depth = 16  # Pillow has scaled the samples to 16 bits, whatever the file's depth
    peak = (1 << depth) - 1
    levels = ((np.arange(65536) * 510 + peak) // (2 * peak)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels[samples])


def _reduce_float(samples: NDArray[np.float32], notes: list[str]) -> NDArray[np.uint8]:
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("the picture has NaN or infinite samples; replace them first")
    if low >= 0 and high <= 1:
        span = (0.0, 1.0)
    elif low >= 0 and high <= 255:
        span = (0.0, 255.0)
    else:
        span = (low, high)
    notes.append(f"floating-point samples {span[0]:g} to {span[1]:g} scaled to 8 bits")
    scale = 255 / (span[1] - span[0]) if span[1] > span[0] else 0.0
    scaled: NDArray[np.float32] = np.rint((samples - span[0]) * np.float32(scale))
    return scaled.astype(np.uint8)


def _to_rgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    mode = picture.mode
    if mode == "LAB":
        notes.append("colours converted from CIELAB to sRGB")
        return _through_profile(picture, ImageCms.createProfile("LAB"))
    profile = picture.info.get("icc_profile")
    if mode == "CMYK" and profile:
        try:
            rgb = _through_profile(picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("the embedded colour profile is damaged and was ignored")
        else:
            notes.append("colours converted from CMYK to sRGB through the embedded profile")
            return rgb
    notes.append(f"colours converted from {mode} to RGB" + " without a profile" * (mode == "CMYK"))
    return picture.convert("RGB")


def _through_profile(picture: Image.Image, profile: Any) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, picture.mode, "RGB")
    converted = ImageCms.applyTransform(picture, transform)
    if converted is None:
        raise ValueError("the colour conversion gave no picture")
    return converted
