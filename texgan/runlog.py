"""What a training run writes down: a table of losses, and TensorBoard events with pictures."""
from __future__ import annotations

import torch

from facemodel.errors import InputError


def check_installed():
    """Raises InputError, before any work, when TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise InputError("training needs the package tensorboard; install it with "
                         "pip install -e \".[train]\"") from error


class RunLog:
    """curve.csv and TensorBoard events; what a run wrote after its last checkpoint is dropped when it is resumed."""

    def __init__(self, run, step):
        from torch.utils.tensorboard import SummaryWriter
        self._path = run / "curve.csv"
        kept = [x for x in self._path.read_text().splitlines()[1:] if int(x.split(",")[0]) <= step] \
            if self._path.exists() else []
        self._file = open(self._path, "w", encoding="utf-8")
        self._file.write("\n".join(["step,loss,value", *kept]) + "\n")
        self._board = SummaryWriter(run, purge_step=step + 1)
        self._sums, self._count = {}, 0

    def losses(self, step, losses):
        for k, v in losses.items():
            self._sums[k] = self._sums.get(k, 0.0) + v
        self._count += 1
        if step % 50 == 0:
            for k, v in self._sums.items():
                self._write(step, f"train/{k}", v / self._count)
            self._sums, self._count = {}, 0
            self._file.flush()

    def validation(self, step, values):
        for k, v in values.items():
            self._write(step, f"validation/{k}", v)

    def pictures(self, step, trainer, batch):
        with torch.no_grad():
            made = trainer.predict(trainer.average, batch["source"], batch["neutral"])
        rows = torch.cat([batch["source"], batch["neutral"], made, batch["truth"]], dim=3)
        self._board.add_images("source | neutral | made | truth", (rows.float() + 1).clamp(0, 2) / 2, step)

    def _write(self, step, name, value):
        self._file.write(f"{step},{name},{value:.6g}\n")
        self._board.add_scalar(name, value, step)

    def close(self):
        self._file.close()
        self._board.close()
