"""The picture codecs that ours stand beside, set to what PSNR rewards.

    jpeg      Pillow (libjpeg-turbo): 4:2:0, optimised, progressive
    webp      Pillow (libwebp): lossy, method 6
    jpeg2000  Pillow (OpenJPEG): 9/7 wavelet, bare codestream; one rate for all pictures, as it has
              no step size to set: on sets of easy and hard pictures this costs it some percent
    avif      Pillow (libavif, aom): 4:4:4, tune=psnr, speed 6
    jxl       pillow-jxl-plugin (libjxl): effort 7; it has no tuning for PSNR
    hevc      PyAV (x265): one intra frame, preset slow, tune psnr, 4:4:4 with 10 bits, raw stream

The defaults of AVIF and x265 are tuned for the eye and lose 10 to 15 % in PSNR; these are not.
Every coder works with one thread, and its files hold nothing beside the picture. Which of them can
run depends on what is installed: `PictureCoder.missing` says it.
"""

import importlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, features
from torch import Tensor

from .images import to_picture

_HEVC_DEPTH = 10
_HEVC_LEAST_SIDE = 16
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
        steps: values of the setting that moves the rate, for a curve from small files to large.
        dial: all its values that are worth trying, from small files to large ones.
        encode: (uint8 [3, H, W], step) -> the whole file. With `alpha` it also takes [4, H, W].
        decode: the whole file -> uint8, the shape that was encoded.
        alpha: transparency is kept.
        missing: what must be installed for it to run; None where all is there.
    """

    name: str
    settings: str
    steps: tuple[float, ...]
    dial: tuple[float, ...]
    encode: Callable[[Tensor, float], bytes]
    decode: Callable[[bytes], Tensor]
    alpha: bool
    missing: Callable[[], str | None]


def peer(name: str) -> PictureCoder:
    """The peer of this name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PEERS:
        raise ValueError(f"no peer codec {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]


def _pillow_with(feature: str) -> Callable[[], str | None]:
    return lambda: None if features.check(feature) else f"a Pillow with {feature}"


def _no_jxl() -> str | None:
    return None if importlib.util.find_spec("pillow_jxl") else "pillow-jxl-plugin"


def _no_x265() -> str | None:
    try:
        import av
    except ImportError:
        return "av"
    return None if "libx265" in av.codecs_available else "an av with libx265"


def _through_pillow(
    format: str, option: Callable[[float], dict[str, Any]], **fixed: Any
) -> Callable[[Tensor, float], bytes]:
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
        samples = np.array(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))
    return torch.from_numpy(samples).permute(2, 0, 1)


def _jxl() -> Any:  # the types that it comes with are of an older version
    return importlib.import_module("pillow_jxl")


def _encode_jxl(x: Tensor, step: float) -> bytes:
    mode = "RGBA" if x.shape[0] == 4 else "RGB"
    encoder = _jxl().Encoder(
        mode=mode, lossless=False, quality=step, effort=7, num_threads=0, use_container=False,
        decoding_speed=0, use_original_profile=False,
    )  # fmt: skip
    samples = x.permute(1, 2, 0).contiguous().numpy().tobytes()
    nothing = {"exif": None, "jumb": None, "xmp": None, "compress": False}
    return bytes(encoder(samples, x.shape[2], x.shape[1], jpeg_encode=False, **nothing))


def _decode_jxl(data: bytes) -> Tensor:
    _, about, samples, _, _ = _jxl().Decoder(num_threads=0)(data)
    x = torch.frombuffer(bytearray(samples), dtype=torch.uint8)
    return x.view(about.height, about.width, -1).permute(2, 0, 1)


def _encode_hevc(x: Tensor, step: float) -> bytes:
    import av

    if min(x.shape[1:]) < _HEVC_LEAST_SIDE:
        raise ValueError(f"x265 takes no pictures below {_HEVC_LEAST_SIDE} pixels a side")
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
            tuple(range(101)),
            _encode_jpeg,
            _decode_with_pillow,
            alpha=False,
            missing=_pillow_with("jpg"),
        ),
        PictureCoder(
            "webp",
            "Pillow, method 6",
            (2, 10, 25, 40, 55, 70, 80, 90, 95),
            tuple(range(101)),
            _through_pillow("WEBP", _quality, method=6, exact=True),
            _decode_with_pillow,
            alpha=True,
            missing=_pillow_with("webp"),
        ),
        PictureCoder(
            "jpeg2000",
            "Pillow, 9/7, bare codestream, one rate for all pictures",
            (0.1, 0.2, 0.3, 0.5, 0.75, 1.1, 1.6, 2.2, 3.0),
            tuple(0.02 * 1200 ** (i / 250) for i in range(251)),  # to 24 bits, the raw size
            _through_pillow(
                "JPEG2000", _bits_per_pixel, irreversible=True, no_jp2=True, quality_mode="rates"
            ),
            _decode_with_pillow,
            alpha=False,
            missing=_pillow_with("jpg_2000"),
        ),
        PictureCoder(
            "avif",
            "Pillow, 4:4:4, tune=psnr, speed 6",
            (4, 12, 22, 32, 42, 52, 62, 74, 84),
            tuple(range(101)),
            _through_pillow(
                "AVIF",
                _quality,
                subsampling="4:4:4",
                speed=6,
                advanced={"tune": "psnr"},
                max_threads=1,
            ),
            _decode_with_pillow,
            alpha=True,
            missing=_pillow_with("avif"),
        ),
        PictureCoder(
            "jxl",
            "libjxl, effort 7",
            (2, 10, 25, 40, 55, 68, 80, 88, 93),
            tuple(range(101)),
            _encode_jxl,
            _decode_jxl,
            alpha=True,
            missing=_no_jxl,
        ),
        PictureCoder(
            "hevc",
            "x265 intra, slow, tune psnr, 4:4:4 10 bits",
            (50, 47, 44, 40, 36, 32, 28, 24, 20),
            tuple(51 - i / 2 for i in range(103)),
            _encode_hevc,
            _decode_hevc,
            alpha=False,
            missing=_no_x265,
        ),
    )
}
