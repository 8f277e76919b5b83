"""Search with Optuna's TPE sampler, one trial after the other in this process."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from model_name.core.metrics import Metric
from model_name.utils.search.searcher import Searcher
from model_name.utils.search.spaces import Choice, Params, Range
from model_name.utils.search.trials import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class OptunaSearcher(Searcher):
    """Samples where good trials were dense before (TPE, Bergstra et al. 2011), in this process; random at first.

    Attributes:
        trials: Number of trials, the model's own hyperparameters included.
        seed: Seed of the sampler; equal seeds give equal trials.
    """

    UNFINGERPRINTED: ClassVar[frozenset[str]] = Searcher.UNFINGERPRINTED | {"trials"}

    KIND: Literal["OptunaSearcher"] = "OptunaSearcher"
    trials: int = Field(20, ge=1)
    seed: int = 42

    @override
    def count(self) -> int:
        return self.trials

    @override
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """Suggest with a new study and sampler each time, so that the result depends on the arguments alone."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self._seed_of(number)),
        )
        study.add_trials([self._to_optuna(trial) for trial in before if self._is_observable(trial)])
        sampled = study.ask(self._distributions).params
        return {name: dimension.decode(sampled[name]) for name, dimension in self.space.items()}

    def _seed_of(self, number: int) -> int:
        return int.from_bytes(sha256(f"{self.seed}:{number}".encode()).digest()[:4], "big")

    def _is_observable(self, trial: Trial) -> bool:
        """Report whether a trial succeeded and lies in the space (the model's own hyperparameters may not)."""
        return not trial.reason and all(self.space[name].contains(value) for name, value in trial.params.items())

    def _to_optuna(self, trial: Trial) -> "FrozenTrial":
        import optuna

        return optuna.trial.create_trial(
            params={name: self.space[name].encode(value) for name, value in trial.params.items()},
            distributions=self._distributions,
            value=trial.score,
        )

    @property
    def _distributions(self) -> dict[str, "BaseDistribution"]:
        return {name: _distribution(dimension) for name, dimension in self.space.items()}


def _distribution(dimension: Choice | Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(tuple(range(len(dimension.root))))
    low, high = dimension.extremes
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
