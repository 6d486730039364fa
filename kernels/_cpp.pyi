"""Compiled kernels; call them through the module of each kernel, which checks the arguments."""

from _typeshed import ReadableBuffer, WriteableBuffer

def rans_isa() -> int: ...
def rans_prepare(
    precision: int, offsets: ReadableBuffer, lengths: ReadableBuffer, freqs: ReadableBuffer, /
) -> object: ...
def rans_encode(
    tables: object, symbols: ReadableBuffer, index: ReadableBuffer, lanes: int, isa: int, /
) -> bytes | int: ...
def rans_decode(
    tables: object,
    state: WriteableBuffer,
    data: ReadableBuffer,
    skip: int,
    index: ReadableBuffer,
    symbols: WriteableBuffer,
    isa: int,
    /,
) -> int: ...
def rans_quantise(
    tables: object,
    y: ReadableBuffer,
    means: ReadableBuffer | None,
    index: ReadableBuffer,
    symbols: WriteableBuffer,
    y_hat: WriteableBuffer,
    isa: int,
    /,
) -> bool: ...
def rans_rows(
    scales: ReadableBuffer, boundaries: ReadableBuffer, rows: WriteableBuffer, /
) -> bool: ...
def rans_normalise(counts: ReadableBuffer, precision: int, freq: WriteableBuffer, /) -> bool: ...
def channels_encode(
    tables: object,
    layout: int,
    parts: list[tuple[ReadableBuffer, ReadableBuffer, ReadableBuffer]],
    lanes: int,
    isa: int,
    out: WriteableBuffer,
    /,
) -> int: ...
def channels_decode(
    tables: object,
    layout: int,
    blocks: list[
        tuple[ReadableBuffer, list[tuple[WriteableBuffer, ReadableBuffer, ReadableBuffer]]]
    ],
    isa: int,
    /,
) -> str: ...
def codes_prepare(
    bits: list[int],
    widths: tuple[int, int, int, int, int],
    embedding: ReadableBuffer,
    first: tuple[ReadableBuffer, ...],
    past: tuple[ReadableBuffer, ...],
    hidden: tuple[ReadableBuffer, ...],
    features: tuple[ReadableBuffer, ...],
    weight: ReadableBuffer,
    bias: ReadableBuffer,
    /,
) -> object: ...
def codes_encode(network: object, codes: ReadableBuffer, k: int, isa: int, /) -> bytes: ...
def codes_decode(
    network: object, data: ReadableBuffer, codes: WriteableBuffer, k: int, isa: int, /
) -> bool: ...
def delta_count(
    layout: tuple[int, int, int, int],
    new: ReadableBuffer,
    base: ReadableBuffer,
    tokens: WriteableBuffer,
    quiet: WriteableBuffer,
    nibbles: WriteableBuffer,
    isa: int,
    /,
) -> None: ...
def delta_encode(
    layout: tuple[int, int, int, int],
    tables: object,
    class_of: ReadableBuffer,
    new: ReadableBuffer,
    base: ReadableBuffer,
    blocks: bool,
    lanes: int,
    isa: int,
    /,
) -> tuple[bytes, bytes]: ...
def delta_decode(
    layout: tuple[int, int, int, int],
    tables: object,
    class_of: ReadableBuffer,
    stream: ReadableBuffer,
    raw: ReadableBuffer,
    base: ReadableBuffer,
    blocks: bool,
    out: WriteableBuffer,
    isa: int,
    /,
) -> str: ...
def fit_symbols(
    model: tuple[int, int, int, ReadableBuffer],
    grids: ReadableBuffer,
    reference: ReadableBuffer,
    size: tuple[int, int],
    coded: int,
    symbols: WriteableBuffer,
    index: WriteableBuffer,
    threads: int,
    isa: int,
    /,
) -> None: ...
def fit_decode(
    model: tuple[int, int, int, ReadableBuffer],
    tables: object,
    state: WriteableBuffer,
    data: ReadableBuffer,
    skip: int,
    reference: ReadableBuffer,
    size: tuple[int, int],
    coded: int,
    grids: WriteableBuffer,
    isa: int,
    /,
) -> int: ...
def fit_synthesise(
    net: tuple[int, int, int, ReadableBuffer],
    grids: ReadableBuffer,
    coded: int,
    picture: tuple[int, int, bool, int],
    prediction: ReadableBuffer,
    samples: WriteableBuffer,
    threads: int,
    isa: int,
    /,
) -> None: ...
def pixels_encode(
    samples: WriteableBuffer,
    height: int,
    width: int,
    planes: list[tuple[int, int, int]],
    isa: int,
    /,
) -> bytes: ...
def pixels_decode(
    data: ReadableBuffer,
    samples: WriteableBuffer,
    height: int,
    width: int,
    planes: list[tuple[int, int, int]],
    isa: int,
    /,
) -> None: ...
def planes_encode(
    data: ReadableBuffer,
    width: int,
    layout: int,
    speed: int,
    chunk_log2: int,
    out: WriteableBuffer,
    threads: int,
    isa: int,
    /,
) -> tuple[bytes, int]: ...
def planes_parse(
    head: ReadableBuffer, coded_bytes: int, n: int, width: int, layout: int, /
) -> object | str: ...
def planes_decode(
    parsed: object,
    coded: ReadableBuffer,
    first: int,
    last: int,
    out: WriteableBuffer,
    threads: int,
    isa: int,
    /,
) -> str: ...
def fit_train_prepare(
    taps: int,
    hidden: int,
    width: int,
    colours: int,
    temporal: int,
    extra: int,
    first: int,
    half: bool,
    picture_height: int,
    picture_width: int,
    threads: int,
    /,
) -> object: ...
def fit_train_step(
    memory: object,
    objective: tuple[float, ...],
    frame: tuple[ReadableBuffer, ReadableBuffer, ReadableBuffer],
    latents: ReadableBuffer,
    params: ReadableBuffer,
    latent_grads: WriteableBuffer,
    param_grads: WriteableBuffer,
    isa: int,
    /,
) -> tuple[float, float]: ...
def fit_train_soften(
    latents: ReadableBuffer,
    temperature: float,
    noise: float,
    seed: int,
    values: WriteableBuffer,
    slope: WriteableBuffer,
    isa: int,
    /,
) -> None: ...
def fit_train_adam(
    settings: tuple[float, ...],
    grads: ReadableBuffer,
    slope: ReadableBuffer,
    latents: WriteableBuffer,
    first: WriteableBuffer,
    second: WriteableBuffer,
    isa: int,
    /,
) -> None: ...
def sounds_encode(
    samples: WriteableBuffer, channels: list[tuple[int, int, int]], effort: int, isa: int, /
) -> bytes: ...
def sounds_decode(
    data: ReadableBuffer,
    samples: WriteableBuffer,
    channels: list[tuple[int, int, int]],
    effort: int,
    isa: int,
    /,
) -> None: ...
def motion_warp(
    first: ReadableBuffer,
    second: ReadableBuffer,
    vectors: ReadableBuffer,
    modes: ReadableBuffer,
    shape: tuple[int, int, int],
    kind: int,
    scale: int,
    bits: int,
    to: WriteableBuffer,
    isa: int,
    /,
) -> None: ...
def motion_search(
    current: ReadableBuffer,
    first: ReadableBuffer,
    second: ReadableBuffer,
    shape: tuple[int, int],
    before: ReadableBuffer,
    modes_before: ReadableBuffer,
    lmbda: float,
    effort: int,
    vectors: WriteableBuffer,
    modes: WriteableBuffer,
    isa: int,
    /,
) -> None: ...
def motion_encode(
    vectors: ReadableBuffer,
    modes: ReadableBuffer,
    before: ReadableBuffer,
    modes_before: ReadableBuffer,
    shape: tuple[int, int],
    /,
) -> bytes: ...
def motion_decode(
    data: ReadableBuffer,
    before: ReadableBuffer,
    modes_before: ReadableBuffer,
    shape: tuple[int, int],
    vectors: WriteableBuffer,
    modes: WriteableBuffer,
    /,
) -> int: ...
def xxh3_64(data: ReadableBuffer, isa: int, /) -> int: ...
def memory_prefer_large_pages(buffer: WriteableBuffer, /) -> None: ...
def memory_join(parts: list[ReadableBuffer], /) -> bytes: ...
def memory_new_bytes(size: int, /) -> tuple[object, memoryview]: ...
def memory_finish_bytes(token: object, size: int, /) -> bytes: ...
