"""A picture to the bytes of a .lpk file and back, with a codec that is loaded once."""

import io
from typing import Any, BinaryIO

from torch import Tensor

from latentpack.codecs import registry
from latentpack.codecs.codec import Buffer, Codec, Rate
from latentpack.codecs.container import Reader, Writer, empty_size
from latentpack.scripts.codec_options import make_codec

_BYTE_RATES = ("bpp", "max_bytes", "ratio")


def open_codec(codec: str | int, **options: Any) -> Codec:
    """Make a picture codec; options that are None are left to it.

    Raises:
        ValueError: no such codec, not one for pictures, or it has no such option.
    """
    loaded = registry.load(codec)
    if not loaded.name.startswith("image/"):
        raise ValueError(f"{loaded.name} is no codec for pictures; tensors: use pack and unpack")
    return make_codec(loaded, options)


def encode_picture(
    codec: Codec, x: Tensor, rate: Rate | None = None, metadata: dict[str, Any] | None = None
) -> bytes:
    """The whole file: what it spends beside the packets counts for the rate.

    Args:
        codec: from `open_codec`.
        x: uint8 [C, H, W].
        rate: None is the codec's default.
        metadata: for box M.
    """
    number = registry.codec_id(codec.name)
    header = codec.header(x)
    file = io.BytesIO()
    with Writer(file, number, header, metadata) as writer:
        for packet in codec.encode(x, rate, empty_size(number, header, metadata)):
            writer.write(packet)
    return file.getvalue()


def decode_picture(
    source: Buffer | BinaryIO, codec: Codec | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """The picture of a .lpk file, uint8 [C, H, W], and its metadata.

    Args:
        source: bytes or a seekable file.
        codec: None is the one that the file names, with its defaults.

    Raises:
        BitstreamError: the file is damaged.
        ValueError: it holds no picture, or was made with other weights.
    """
    reader = Reader(source)
    codec = codec or open_codec(reader.codec_id)
    x: Tensor = codec.decode(reader.params, reader.packets())
    return x, reader.metadata


def bytes_asked(rate: Rate | None, x: Tensor) -> float | None:
    """The size of file that a rate asks for; None where it asks for something else."""
    if rate is None or rate.name not in _BYTE_RATES:
        return None
    if rate.name == "bpp":
        return rate.value * x.shape[1] * x.shape[2] / 8
    return rate.value if rate.name == "max_bytes" else x.numel() / rate.value


def bits_per_pixel(size: int, x: Tensor) -> float:
    """Bits of a whole file to each pixel of the original."""
    return size * 8 / (x.shape[1] * x.shape[2])
