"""The picture codecs that ours stand beside, set to what PSNR rewards.

    jpeg      Pillow (libjpeg-turbo): 4:2:0, optimised, progressive
    webp      Pillow (libwebp): lossy, method 6
    jpeg2000  Pillow (OpenJPEG): 9/7 wavelet, bare codestream; one rate for all pictures, as it has
              no step size to set: on sets of easy and hard pictures this costs it some percent
    avif      Pillow (libavif, aom): 4:4:4, tune=psnr, speed 6
    hevc      PyAV (x265): one intra frame, preset slow, tune psnr, 4:4:4 with 10 bits, raw stream

The defaults of AVIF and x265 are tuned for the eye and lose 10 to 15 % in PSNR; these are not.
Every coder works with one thread, and its files hold nothing beside the picture.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from .images import to_picture

_HEVC_DEPTH = 10
# Full-range BT.709: the rows give Y, Cb and Cr of R, G, B in 0..1.
_KR, _KB = 0.2126, 0.0722
_YCBCR = np.array(
    [
        [_KR, 1 - _KR - _KB, _KB],
        [-_KR / (2 - 2 * _KB), -(1 - _KR - _KB) / (2 - 2 * _KB), 0.5],
        [0.5, -(1 - _KR - _KB) / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)],
    ]
)


@dataclass(frozen=True)
class PictureCoder:
    """A picture codec as a pair of functions.

    Attributes:
        name: short, for tables.
        settings: what is set, in words.
        steps: values of the setting that moves the rate, from small files to large ones.
        encode: (uint8 [3, H, W], step) -> the whole file.
        decode: the whole file -> uint8 [3, H, W].
    """

    name: str
    settings: str
    steps: tuple[float, ...]
    encode: Callable[[Tensor, float], bytes]
    decode: Callable[[bytes], Tensor]


def peer(name: str) -> PictureCoder:
    """The peer of this name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PEERS:
        raise ValueError(f"no peer codec {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]


def _through_pillow(format: str, option: Callable[[float], dict[str, Any]], **fixed: Any) -> Any:
    def encode(x: Tensor, step: float) -> bytes:
        file = io.BytesIO()
        to_picture(x).save(file, format, **fixed, **option(step))
        return file.getvalue()

    return encode


def _encode_jpeg(x: Tensor, step: float) -> bytes:
    # Pillow's buffer must hold a whole progressive file; its own guess is too small for noise.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2 * x.numel())
    file = io.BytesIO()
    to_picture(x).save(
        file, "JPEG", quality=int(step), subsampling="4:2:0", optimize=True, progressive=True
    )
    return file.getvalue()


def _decode_with_pillow(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as picture:
        samples = np.array(picture.convert("RGB"))
    return torch.from_numpy(samples).permute(2, 0, 1)


def _encode_hevc(x: Tensor, step: float) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=Fraction(1))
        stream.height, stream.width = x.shape[1:]
        stream.pix_fmt = "yuv444p10le"
        stream.options = {
            "preset": "slow",
            "tune": "psnr",
            "crf": str(step),
            # info=0 leaves out the text that names the encoder's settings.
            "x265-params": "log-level=none:info=0:keyint=1:pools=none:frame-threads=1:range=full",
        }
        planes = _to_ycbcr(x)
        frame = av.VideoFrame(x.shape[2], x.shape[1], "yuv444p10le")
        for plane, samples in zip(frame.planes, planes, strict=True):
            padded = np.zeros((plane.height, plane.line_size // 2), dtype="<u2")
            padded[:, : plane.width] = samples
            plane.update(padded.tobytes())
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def _decode_hevc(data: bytes) -> Tensor:
    import av

    with av.open(io.BytesIO(data), "r", format="hevc") as container:
        container.streams.video[0].thread_count = 1
        frame = next(container.decode(video=0))
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), dtype="<u2").reshape(plane.height, -1)
        planes.append(rows[:, : plane.width])
    return _from_ycbcr(np.stack(planes))


def _to_ycbcr(x: Tensor) -> NDArray[np.uint16]:
    """Uint8 [3, H, W] RGB to 10-bit full-range Y, Cb, Cr."""
    ycbcr = np.einsum("ij,jhw->ihw", _YCBCR, x.numpy() / 255)
    ycbcr[1:] += 0.5
    peak = 2**_HEVC_DEPTH - 1
    samples: NDArray[np.uint16] = np.rint(ycbcr * peak).clip(0, peak).astype(np.uint16)
    return samples


def _from_ycbcr(planes: NDArray[np.uint16]) -> Tensor:
    ycbcr = planes / (2**_HEVC_DEPTH - 1)
    ycbcr[1:] -= 0.5
    rgb = np.einsum("ij,jhw->ihw", np.linalg.inv(_YCBCR), ycbcr)
    return torch.from_numpy(np.rint(rgb * 255).clip(0, 255).astype(np.uint8))


def _quality(step: float) -> dict[str, Any]:
    return {"quality": int(step)}


def _bits_per_pixel(step: float) -> dict[str, Any]:
    return {"quality_layers": [24 / step]}


PEERS = {
    coder.name: coder
    for coder in (
        PictureCoder(
            "jpeg",
            "Pillow, 4:2:0, optimised, progressive",
            (5, 10, 20, 35, 50, 65, 80, 90, 95),
            _encode_jpeg,
            _decode_with_pillow,
        ),
        PictureCoder(
            "webp",
            "Pillow, method 6",
            (2, 10, 25, 40, 55, 70, 80, 90, 95),
            _through_pillow("WEBP", _quality, method=6),
            _decode_with_pillow,
        ),
        PictureCoder(
            "jpeg2000",
            "Pillow, 9/7, bare codestream, one rate for all pictures",
            (0.1, 0.2, 0.3, 0.5, 0.75, 1.1, 1.6, 2.2, 3.0),
            _through_pillow(
                "JPEG2000", _bits_per_pixel, irreversible=True, no_jp2=True, quality_mode="rates"
            ),
            _decode_with_pillow,
        ),
        PictureCoder(
            "avif",
            "Pillow, 4:4:4, tune=psnr, speed 6",
            (4, 12, 22, 32, 42, 52, 62, 74, 84),
            _through_pillow(
                "AVIF",
                _quality,
                subsampling="4:4:4",
                speed=6,
                advanced={"tune": "psnr"},
                max_threads=1,
            ),
            _decode_with_pillow,
        ),
        PictureCoder(
            "hevc",
            "x265 intra, slow, tune psnr, 4:4:4 10 bits",
            (50, 47, 44, 40, 36, 32, 28, 24, 20),
            _encode_hevc,
            _decode_hevc,
        ),
    )
}
