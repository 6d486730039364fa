"""Command line: latentpack demo."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentpack.scripts.main import main

if TYPE_CHECKING:
    from rich.table import Table

    from latentpack.scripts.showcase import Coded, CodedTensor


@click.command()
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the files; those of an earlier demo are replaced.",
)
@click.option("--bpp", default=0.6, show_default=True, help="Bits per pixel of the photograph.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights for image/light.")
def demo(output: Path, bpp: float, weights: Path | None) -> None:
    """Encode and decode a photograph, a voice, tensors and a model file that come with latentpack.

    Prints how small and how good they are, beside JPEG and WebP of the same size, Opus and copying
    memory, and writes the files, a picture that shows them side by side, and a page to listen.

    \b
    latentpack demo
    latentpack demo -o /tmp/demo --bpp 0.4
    """
    from latentpack.codecs.codec import Rate
    from latentpack.codecs.output import create
    from latentpack.datasets.images import read_image
    from latentpack.scripts import listening, showcase
    from latentpack.scripts.compare import table_of

    x, _ = read_image(showcase.SAMPLE)
    coded = showcase.show_picture(x, Rate(bpp=bpp), weights)
    sound = showcase.show_sound()
    packed = [
        showcase.show_tensor(name, tensor, mode)
        for name, tensor in showcase.sample_tensors().items()
        for mode in ("fast", "tight")
    ]
    output.mkdir(parents=True, exist_ok=True)
    model = showcase.show_model(output)
    files = {"photo.lpk": coded[0].data, "photo.jpg": coded[1].data, "tensor.lpk": packed[1].data}
    files |= sound.files | {"listen.html": sound.page}
    for name, data in files.items():
        with create(output / name, force=True) as file:
            file.write(data)
    with create(output / "side_by_side.png", force=True) as file:
        showcase.side_by_side(x, coded).save(file, "PNG")
    voice = table_of(sound.item, listening.COLUMNS)
    _print(f"a photograph, {x.shape[2]}x{x.shape[1]}", coded, voice, packed)
    click.echo(
        f"{model.source.name}, a real model file: {model.before:,} -> {model.after:,} bytes "
        f"({model.after / model.before:.1%}), unpacked byte for byte the same"
    )
    names = ", ".join([*files, "model.safetensors", "model.lpk", "side_by_side.png"])
    click.echo(f"wrote {names} to {output}/; `latentpack info {output}/` looks into them")
    click.echo(f"open {output}/listen.html in a browser to hear the voice")
    if not all(tensor.identical for tensor in packed):
        raise RuntimeError("a tensor came back changed; please report this")


def _print(title: str, coded: "list[Coded]", voice: "Table", packed: "list[CodedTensor]") -> None:
    from rich.console import Console
    from rich.table import Table

    pictures = Table(title=title, title_justify="left")
    pictures.add_column("codec")
    for column in ("bytes", "bits per pixel", "PSNR"):
        pictures.add_column(column, justify="right")
    for picture in coded:
        pictures.add_row(
            picture.name,
            f"{len(picture.data):,}",
            f"{picture.bpp:.3f}",
            f"{picture.psnr_db:.2f} dB",
        )
    tensors = Table(title="tensors like weights, without loss, one thread", title_justify="left")
    tensors.add_column("tensor, mode")
    for column in ("size", "bit for bit", "encode / memcpy", "decode / memcpy"):
        tensors.add_column(column, justify="right")
    for tensor in packed:
        tensors.add_row(
            tensor.name,
            f"{tensor.ratio:.2%}",
            "the same" if tensor.identical else "DIFFERENT",
            f"{tensor.encode_vs_memcpy:.2f}",
            f"{tensor.decode_vs_memcpy:.2f}",
        )
    for table in (pictures, voice, tensors):
        Console().print(table)


if __name__ == "__main__":
    main("demo")
