"""The Stage object: one step of training. A model lists its stages; the trainer runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from recbole.data.interaction import Interaction
from torch import Tensor, nn


class EpochLoader(Protocol):
    """Batches of one stage; `set_epoch` makes the order a function of the epoch alone."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""

    def __iter__(self) -> Iterator[Interaction]: ...

    def __len__(self) -> int: ...

    @property
    def n_rows(self) -> int:
        """Training examples of one pass."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a stage trains by gradient descent, and how.

    Attributes:
        trains: All parameters that may move; the rest of the model gets no gradient.
        loss: A method of the model: a batch to a scalar.
        loader: The stage's batches.
        max_epochs: Limit of epochs.
        learning_rate: Of RecBole's `learner`, which is built over `trains` and nothing else; None:
            the run's `learning_rate`.
    """

    trains: tuple[nn.Parameter, ...]
    loss: Callable[[Interaction], Tensor]
    loader: EpochLoader
    max_epochs: int
    learning_rate: float | None = None


@dataclass(frozen=True, eq=False)
class Pretraining:
    """What a stage is the pre-training of, where other models may take over its outcome.

    Attributes:
        model: The base model that it trains.
        rows: Columns of the rows on which it is trained.
        values: Values that its loss reads of keys that belong to one model alone.
    """

    model: nn.Module
    rows: tuple[Tensor, ...]
    values: Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of training a model.

    Attributes:
        name: For logs, errors and `requires`.
        prepare: Runs once when the stage starts: whatever is computed in closed form. It must give
            the same result each time, for a resumed run repeats it.
        training: What is trained by gradient descent; None where `prepare` does it all.
        validate: Gives the metric on validation users after each epoch, and before the first one.
            Its best epoch counts. None: the last epoch counts.
        keeps_start: Whether the state before the first epoch counts until an epoch is better by
            more than the noise of the validation users: the 95% interval of the difference, paired
            over them, is on one side of 0.
        requires: Stages that must have been trained before, else StageError.
        pretraining: What is pre-trained, if the stage depends on nothing but that and is not
            validated; with `pretrained_path` it is trained once for all models.
    """

    name: str
    prepare: Callable[[], None] | None = None
    training: Training | None = None
    validate: Callable[[], float] | None = None
    keeps_start: bool = False
    requires: tuple[str, ...] = ()
    pretraining: Pretraining | None = None
