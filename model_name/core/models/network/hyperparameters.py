"""The hyperparameters of the tabular network: all that the other modules of this folder know of it."""

from abc import ABC
from typing import Literal

from pydantic import Field

from model_name.core.models.model import Model


class NetworkSettings(Model, ABC):
    """What a tabular network can be told.

    Attributes:
        hidden: Width of the layers.
        layers: How many of them.
        members: Networks that share their weights but for scales and biases (TabM); they answer by their mean.
        dropout: Share of a layer's answer that is dropped in training, in steps of 1/256.
        numbers: What a number becomes beside its standardised value: `piecewise`, how far it has come between
            quantiles, for targets that jump; or `periodic`, waves of learnt frequencies, for targets that swing.
        bins: Linear pieces of a number.
        frequencies: Waves of a number.
        frequency_scale: How fast they are at the start: the deviation of their turns within a deviation of the number.
        embedding: Width of the embedding of a category, and of the waves of a number.
        mixup: Mixes pairs of rows, by a share of Beta(mixup, mixup); 0 mixes none.
        noise: Gaussian noise on the numbers in training, in deviations of each.
        class_weight: `balanced` lets each class count the same, however rare it is; probabilities are then no longer
            those of the table.
        learning_rate: Its peak; it decays to zero over `max_epochs` along a cosine.
        warmup: Share of the steps in which the learning rate rises to its peak.
        weight_decay: Shrinkage of the weights (AdamW).
        batch_size: Rows of a step.
        max_epochs: Passes over the training rows at the most.
        patience: Epochs without a better validation loss after which it stops.
        validation_size: Share of the training rows that it does not learn from but stops by.
        threads: Processors of the training. A number rather than all there are, since sums in another order make other
            weights; layers this narrow gain little from more, and lose much where processors are shared.
    """

    hidden: int = Field(192, ge=1, le=4096)
    layers: int = Field(2, ge=0, le=32)
    members: int = Field(1, ge=1, le=64)
    dropout: float = Field(0.1, ge=0, lt=1)
    numbers: Literal["piecewise", "periodic"] = "piecewise"
    bins: int = Field(32, ge=1, le=256)
    frequencies: int = Field(16, ge=1, le=256)
    frequency_scale: float = Field(0.1, gt=0, le=100)
    embedding: int = Field(8, ge=1, le=256)
    mixup: float = Field(0.0, ge=0, le=10)
    noise: float = Field(0.0, ge=0, le=1)
    class_weight: Literal["none", "balanced"] = "none"
    learning_rate: float = Field(2e-3, gt=0, le=1)
    warmup: float = Field(0.02, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(256, ge=1)
    max_epochs: int = Field(20, ge=1)
    patience: int = Field(8, ge=1)
    validation_size: float = Field(0.1, gt=0, lt=1)
    threads: int = Field(1, ge=1, le=256)
