"""What a trainer can go back to, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


class Snapshot:
    """Copies of the model's and the optimizer's state, the learning rate and the counts of steps."""

    def __init__(self, trainer: Trainer) -> None:
        slab = trainer._make_slab()
        self._model = trainer.model.state_dict()
        self._states = [
            (name, p, np.array(slab.state(name, p)))
            for p in slab.parameters
            for name in slab.states
        ]
        self._means = slab.means_copy()
        self._counts = trainer.steps, trainer.epochs, trainer.optimizer.lr

    def restore(self, trainer: Trainer) -> None:
        """Make the trainer what it was; what is trained must be the same."""
        trainer.model.load_state_dict(self._model)
        slab = trainer._make_slab()
        for name, parameter, state in self._states:
            slab.state(name, parameter)[...] = state
        if self._means is not None:
            slab.flat(slab.means)[...] = self._means
        trainer.steps, trainer.epochs, trainer.optimizer.lr = self._counts
