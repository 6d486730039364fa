"""The alpha plane of a tile: lossless WebP, a library's work."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...kernels.errors import BitstreamError


def encode(alpha: Tensor) -> bytes:
    """uint8 [H, W] -> a lossless WebP picture."""
    file = io.BytesIO()
    Image.fromarray(alpha.numpy()).convert("RGB").save(file, "WEBP", lossless=True, quality=100)
    return file.getvalue()


def decode(data: bytes, height: int, width: int) -> Tensor:
    """The mirror of `encode`.

    Raises:
        BitstreamError: the bytes are not a WebP picture of this size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            if image.size != (width, height):
                raise BitstreamError(f"alpha is {image.size}, expected {(width, height)}")
            return torch.from_numpy(np.array(image.convert("RGB"))[:, :, 1].copy())
    except BitstreamError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged pictures
        raise BitstreamError(f"alpha is damaged: {error}") from error
