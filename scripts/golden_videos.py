"""Golden files of the video codecs, see `make_golden.py`."""

import io
import json
from typing import Any

from latentpack.scripts.golden_numbers import numbers


def video_inr() -> dict[str, bytes]:
    """Files of networks and grids that no fit has made, and the values of the grids."""
    import numpy as np

    from latentpack.codecs.codec import Packet
    from latentpack.codecs.container import Writer
    from latentpack.codecs.video import inr_stream
    from latentpack.codecs.video.gop_times import Times, put_times
    from latentpack.codecs.video.inr_grids import CLASSES, Expectation
    from latentpack.codecs.video.inr_networks import Layout

    def integers(count: int, most: int, seed: int) -> Any:
        """From -most to most, mostly small."""
        values = np.array(numbers(count, 2 * most + 1, seed)) - most
        return (values * abs(values) // max(1, most)).astype(np.int32)

    def networks(layout: Layout, most: int, seed: int) -> inr_stream.Networks:
        shapes = layout.shapes
        steps = np.array([96 + n % 5 for n in range(len(shapes))], np.int32)
        rows = np.array([18 + n % 4 for n in range(len(shapes))], np.int32)
        return inr_stream.Networks(steps, rows, integers(layout.count, most, seed))

    def grids(layout: Layout, frames: int, seed: int) -> inr_stream.Grids:
        gains, expectations = [], []
        for level, channels in enumerate(layout.grids):
            gains.append(np.arange(channels, dtype=np.int32) + 112)
            lift = integers(2 * CLASSES * bool(channels), 3, seed + level).reshape(2, -1)
            follow = np.array(numbers(channels, 17, seed), np.int32)
            row = np.array(numbers(channels, 20, seed + 1), np.int32)
            expectations.append(Expectation(follow, row, lift))
        values = [
            [
                integers(c * h * w, 6, seed + t).reshape(c, h, w)
                for c, (h, w) in zip(layout.grids, layout.sizes, strict=True)
            ]
            for t in range(frames)
        ]
        return inr_stream.Grids(gains, expectations, values)

    clip = {"s": [21, 13], "b": 8, "c": 3, "g": 3}
    tensor = {"s": [18, 10], "b": 8, "g": 3}
    size = (5, 9)
    cases: dict[str, tuple[dict[str, Any], Layout, int]] = {
        "boosted": (clip, Layout("boosted", (4, 6, 8), (1, 2, 3), 6, 7, 11), 2),
        "grey": (clip | {"c": 1, "b": 10}, Layout("boosted", (4, 6), (0, 3), 4, 7, 11), 1),
        "hnerv": (
            tensor | {"c": 3, "t": "float32"}, Layout("hnerv", (4, 5, 6), (0, 0, 2), 12, *size), 1
        ),
        "nerv": (tensor | {"c": 2, "t": "uint8"}, Layout("nerv", (4, 5, 6), (0, 0), 8, *size), 1),
    }  # fmt: skip
    files: dict[str, bytes] = {}
    for name, (header, layout, gops) in cases.items():
        file, shown = io.BytesIO(), []
        origin = None
        with Writer(file, 12, header) as writer:
            for number in range(gops):
                coded = grids(layout, 3, 10 * number)
                stream = inr_stream.put_networks(layout, networks(layout, 30 >> number, number))
                payload = inr_stream.write(
                    layout, stream, inr_stream.put_grids(layout, coded), origin
                )
                times = Times([3 * number + t for t in range(3)], [1] * 3)
                writer.write(Packet(number, put_times(times) + payload))
                kept = [y.ravel().tolist() for frame in coded.frames for y in frame if len(y)]
                shown.append({"grids": kept if any(layout.grids) else []})
                origin = 1, inr_stream.networks_id(stream)
        files[f"{name}.lpk"] = file.getvalue()
        files[f"{name}.json"] = json.dumps(shown).encode()
    return files


def video_fit() -> dict[str, bytes]:
    """Files of motion, networks and latents that no fit has made, and the frames they become."""
    import numpy as np

    from latentpack.codecs.codec import Packet
    from latentpack.codecs.container import Writer
    from latentpack.codecs.image.fit_parameters import Coded
    from latentpack.codecs.video import fit, fit_order, fit_prior, fit_stream
    from latentpack.codecs.video.frames import VideoFormat
    from latentpack.codecs.video.gop_times import Times, put_times
    from latentpack.kernels import motion, motion_ref
    from latentpack.kernels.fit import grid_shapes

    priors = fit_prior.load()

    def integers(count: int, most: int, seed: int) -> Any:
        """From -most to most, mostly small."""
        values = np.array(numbers(count, 2 * most + 1, seed)) - most
        return values * abs(values) // max(1, most)

    def networks(prior: fit_prior.Prior, seed: int) -> Coded:
        slices = len(prior.slices)
        q = np.clip(prior.q + integers(slices, 1, seed), 5, 9).astype(np.int64)
        shift = integers(slices, 2, seed + 1).astype(np.int64)
        return Coded(q, shift, integers(len(prior.mean), 3, seed + 2).astype(np.int64))

    def group(
        format: VideoFormat, preset: str, rate: int, lengths: list[int], seed: int
    ) -> fit_stream.Group:
        kinds = priors.kinds(preset, format.colours, rate)
        order = fit_order.slots(lengths)
        even = format.colours > 1
        shapes = grid_shapes(*(n + n % 2 * even for n in (format.height, format.width)))
        h, w = motion.blocks(format.height, format.width)
        pictures = []
        for number, slot in enumerate(order):
            grids = [
                integers(r * c, 2 + k, seed + 10 * number + k).reshape(r, c).astype(np.int16)
                if k > 1 or number == 0
                else np.zeros((r, c), np.int16)
                for k, (r, c) in enumerate(shapes)
            ]
            field, count = None, len(slot.references)
            if count:
                moves = integers(count * h * w * 2, 9, seed + number).astype(np.int16)
                vectors = moves.reshape(count, h, w, 2)
                mode = np.array(numbers(h * w, 3, seed + number), np.uint8).reshape(h, w)
                vectors[0][mode == motion_ref.SECOND] = 0
                if count == 2:
                    vectors[1][mode == motion_ref.FIRST] = 0
                    field = motion.Field(vectors, mode)
                else:
                    field = motion.Field(vectors[0])
            pictures.append(fit_stream.Picture(field, grids))
        used = sorted({slot.kind for slot in order})
        coded = {kind: networks(kinds[kind], seed + kind) for kind in used}
        return fit_stream.Group(kinds, 100, lengths, coded, pictures)

    cases: dict[str, tuple[VideoFormat, str, int, list[list[int]]]] = {
        "hierarchy": (VideoFormat(27, 19), "default", 2, [[5, 1], [1]]),
        "grey": (VideoFormat(17, 21, 10, 1), "fast", 0, [[2]]),
        "still": (VideoFormat(12, 10), "best", 4, [[]]),
    }
    files: dict[str, bytes] = {}
    for name, (format, preset, rate, gops) in cases.items():
        header = {**format.header(), "g": 16, "w": priors.digest}
        file, shown = io.BytesIO(), []
        with Writer(file, 10, header) as writer:
            for number, lengths in enumerate(gops):
                count = 1 + sum(lengths)
                payload = fit_stream.write(group(format, preset, rate, lengths, 7 * number))
                times = put_times(Times(list(range(count)), [1] * count))
                writer.write(Packet(number, times + payload))
                found = fit.Fit().decode_gop(header, memoryview(payload), format, count)
                shown += [[plane.ravel().tolist() for plane in planes] for planes in found]
        files[f"{name}.lpk"] = file.getvalue()
        files[f"{name}.json"] = json.dumps(shown).encode()
    return files


def lite_model() -> Any:
    """Networks of `video/lite` whose parse is of integers that no training has made."""
    import torch

    from latentpack.codecs.image.light_frozen import RowTables
    from latentpack.codecs.transforms.integer import IntegerConv2d
    from latentpack.codecs.video.lite_frozen import FrozenLite

    def fill(buffer: torch.Tensor, top: int, least: int) -> None:
        values = torch.tensor(numbers(buffer.numel(), top, buffer.numel() + top))
        buffer.copy_((values + least).view(buffer.shape))

    model = FrozenLite()
    model.digest = b"integers"
    for part in model.modules():
        if isinstance(part, IntegerConv2d):
            fill(part.weight, 21, -10)
            fill(part.bias, 20001, -8000)
            fill(part.multiplier, 1 << 14, 1 << 14)
            fill(part.shift, 3, 20)
        elif isinstance(part, RowTables):
            fill(part.offset, 300, 0)
            fill(part.z_row, 700, 100)
    return model


def video_lite() -> dict[str, bytes]:
    """Payloads of groups with networks of `lite_model`, and digests of what is in them."""
    import numpy as np
    import torch
    import xxhash

    from latentpack.codecs.video.lite_inter import field_integers
    from latentpack.codecs.video.lite_stream import put_group
    from latentpack.entropy.coder import Encoder
    from latentpack.kernels import motion

    model = lite_model()
    h, w = 4, 6
    files: dict[str, bytes] = {}

    def some(rows: torch.Tensor, seed: int) -> torch.Tensor:
        """Integers for these rows, most of them small."""
        v = torch.tensor(numbers(rows.numel(), 9, seed)).view(rows.shape) - 4
        return torch.where(rows > 0, v * v.abs() // 5, 0).to(torch.int16)

    for name, positions in (("one", [448]), ("alike", [300, 200, 200]), ("others", [5, 0, 64, 9])):
        encoder, shown = Encoder(model.tables), []
        last = torch.zeros(1, 384, h, w, dtype=torch.int16)
        fields: list[bytes] = []
        before: motion.Field | None = None
        for number, position in enumerate(positions):
            tables = model.inter.rows if number else model.intra.h_s
            z_rows = tables.z_rows(position)[:, None, None].expand(-1, h // 2, w // 2)
            z = some(z_rows, 100 + number)
            encoder.put(z.flatten(), z_rows.flatten())
            z = z[None].to(torch.int8)
            if number:
                steps = np.array(numbers(2 * h * 2 * w * 2, 5, number), np.int16) - 2
                field = motion.Field((steps * abs(steps) * 3).reshape(2 * h, 2 * w, 2))
                fields.append(motion.encode(field, before))
                before, vectors = field, torch.from_numpy(field.vectors)[None]
                features = tables.features(z, last, field_integers(vectors).round().to(torch.int8))
                q = torch.zeros_like(last)
                for half in (0, 1):
                    if half:
                        rows = tables.of_second(features, q, position)
                    else:
                        rows = tables.of_first(features, position)
                    values = some(rows, 200 + 2 * number + half)
                    for row in (0, 1):
                        place = (..., slice(row, None, 2), slice((row + half) % 2, None, 2))
                        q[place] = values[place]
                        encoder.put(q[place].flatten(), rows[place].flatten())
            else:
                vectors = torch.zeros(0, dtype=torch.int16)
                rows = tables(z, position)
                q = some(rows, 200)
                encoder.put(q.flatten(), rows.flatten())
            shown.append([xxhash.xxh3_64_hexdigest(x.numpy().tobytes()) for x in (z, q, vectors)])
            last = q if number else last
        files[f"{name}.bin"] = put_group(positions, fields, encoder.finish())
        files[f"{name}.json"] = json.dumps({"positions": positions, "digests": shown}).encode()
    return files
