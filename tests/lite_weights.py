"""Weights of video/lite for tests: those of image/light, with noise where training starts at 0."""

import torch

from latentpack.codecs import weight_files
from latentpack.codecs.video import lite_frozen
from latentpack.codecs.video.lite_model import LiteModel
from latentpack.codecs.video.lite_start import from_light


def write_weights(path):
    """Write a weights file in which every branch does something; returns its path."""
    torch.manual_seed(0)
    model = LiteModel(from_light())
    with torch.no_grad():
        for name, p in model.inter.named_parameters():
            if name.endswith(("tail.weight", "second.weight")) and not p.any():
                p.normal_(0, 0.01 / p.shape[1] ** 0.5)
    weight_files.write(path, "video/lite", lite_frozen.frozen_state(model), {})
    return path
