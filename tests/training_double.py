"""A small codec to train in tests, also in processes of their own.

python tests/training_double.py FOLDER STEPS [die-at STEP]     train in FOLDER
python -m torch.distributed.run --nproc-per-node 2 tests/training_double.py FOLDER STEPS
"""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from latentpack.codecs.training import Recipe, train
from latentpack.codecs.training_config import TrainingConfig


class Doubling(Recipe):
    """Learns to double a signal through dropout; the figures are the error and its share."""

    name = "test/doubling"

    def model(self):
        """Two layers with noise between, a buffer that gathers, a parameter without a use."""
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.BatchNorm1d(16))
        model.append(nn.Linear(16, 8))
        model.register_parameter("idle", nn.Parameter(torch.ones(3)))
        return model

    def load(self, weights):
        """From the tensors as they are."""
        model = self.model()
        model.load_state_dict(dict(weights.tensors))
        return model

    def optimizers(self, model, lr):
        """One with momenta, one without."""
        first, *rest = model.parameters()
        return [torch.optim.SGD([first], lr=lr), torch.optim.Adam(rest, lr=lr)]

    def start(self, model, batch):
        """Centre the last layer."""
        model[3].bias.copy_(2 * batch.mean(0))

    def loss(self, model, batch):
        """Mean squared error."""
        error = (model(batch) - 2 * batch).square().mean()
        return error, {"psnr_db": -10 * error.log10()}

    def validate(self, model, batch):
        """The same."""
        return {"loss": self.loss(model, batch)[0]}

    def freeze(self, model):
        """All of it."""
        return model.state_dict(), {}


class Signals(torch.utils.data.Dataset[torch.Tensor]):
    """Signals of eight numbers, each a function of its key."""

    def __getitem__(self, key):
        """Signal `number` of `step`."""
        step, number = key
        return torch.rand(8, generator=torch.Generator().manual_seed(1000 * step + number))


def config(**changes):
    """A run of few steps that keeps every one of them."""
    values = {"steps": 6, "batch": 8, "lr": 0.01, "log_every": 2, "checkpoint_minutes": 0.0}
    return TrainingConfig(**(values | changes))


HELD_OUT = [torch.linspace(0, 1, 32).view(4, 8)]


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    torch.set_num_threads(1)
    folder, steps, *end = sys.argv[1:]

    def killed(step, figures):
        """The power fails."""
        if end and step == int(end[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        Doubling(),
        config(steps=int(steps)),
        Signals(),
        Path(folder),
        validation=HELD_OUT,
        progress=killed,
    )
