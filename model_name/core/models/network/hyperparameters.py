"""Hyperparameters of the tabular network, shared by the modules of this package."""

from abc import ABC
from typing import Literal

from pydantic import Field

from model_name.core.models.model import Model


class NetworkHyperparameters(Model, ABC):
    """Hyperparameters of a tabular network.

    Attributes:
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        members: Number of networks that share their weights except scales and biases (TabM); their mean is predicted.
        dropout: Share of a layer's outputs that is dropped in training, in steps of 1/256.
        numbers: Embedding of numbers beside the standardised value: `piecewise`, piecewise linear between quantiles,
            for targets with jumps; or `periodic`, waves of learnt frequencies, for oscillating targets.
        bins: Number of bins of a piecewise embedding.
        frequencies: Number of frequencies of a periodic embedding.
        frequency_scale: Standard deviation of the initial frequencies, in cycles per standard deviation of the number.
        embedding: Width of the embedding of a category, and of the periodic embedding of a number.
        mixup: Parameter of Beta(mixup, mixup), the distribution of the share in which pairs of rows are mixed; 0 for
            no mixup.
        noise: Standard deviation of Gaussian noise on numbers in training, in standard deviations of each number.
        class_weight: `balanced` gives every class the same total weight; probabilities then no longer match the
            frequencies in the table.
        learning_rate: Peak of the learning rate; it decays to zero over `max_epochs` along a cosine.
        warmup: Share of the steps in which the learning rate rises to its peak.
        weight_decay: Weight decay of AdamW.
        batch_size: Number of rows in a step.
        max_epochs: Maximum number of epochs.
        patience: Number of epochs without a better validation loss after which the training stops.
        validation_size: Share of the training rows that is held out for early stopping.
        threads: Number of threads of the training. It is fixed and not the number of processors, because the order of
            sums changes the weights; layers this narrow gain little from more threads, and lose much where processors
            are shared.
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
