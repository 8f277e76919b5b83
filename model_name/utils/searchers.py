"""How hyperparameters are searched: a space, a strategy that proposes points of it, and a journal that survives a kill.

Every strategy proposes trial i from its seed, i and the trials before it alone. That is what makes two searches equal,
and a resumed search equal to one that was never interrupted.
"""

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from itertools import islice, product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    RootModel,
    StrictFloat,
    StrictInt,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from model_name.core.metrics import Metric
from model_name.core.models import FitContext, Model
from model_name.core.schemas import Frozen, Many, TableSchema, did_you_mean
from model_name.errors import ConfigError, DataError, StorageError
from model_name.utils.splitters import Rows, Split, Splitter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Params = dict[str, Any]

Report = Callable[[int, int, str], None]
"""Called with (done, total, words) after each trial."""

JOURNAL_FORMAT = 1
DIGITS = 14  # that a proposed float keeps: 0.1 instead of 0.09999999999999999


def _require_number(raw: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError(f"{raw!r} is not a finite number")
    return raw


Number = Annotated[StrictInt | StrictFloat, BeforeValidator(_require_number)]


class Choice(RootModel[Many[JsonValue]]):
    """One of the values of a list, which have no order: in a config a plain list."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="after")
    def _offers_something(self) -> Self:
        if not self.root:
            raise ValueError("the list of choices is empty")
        for place, value in enumerate(self.root):
            if self.position(value) != place:
                raise ValueError(f"{value!r} is among the choices twice")
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that a model must accept for it to accept all."""
        return self.root

    def grid(self, points: int) -> list[Any]:
        """All values: they have no order to leave any out by."""
        return list(self.root)

    def position(self, value: Any) -> int | None:
        """Where a value is in the list; None where it is not."""
        same = (place for place, choice in enumerate(self.root) if _is_same(choice, value))
        return next(same, None)


class Range(Frozen):
    """A number between two others, both included; an integer where all that is given are integers.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether orders of magnitude are equally likely, rather than equal distances.
        step: The distance between neighbours, counted from `low`.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low}")
        if self.step is not None and self.log:
            raise ValueError("log and step exclude each other")
        if self.step is not None and (self.step <= 0 or not self._steps):
            raise ValueError(f"step {self.step} is not between 0 and the width of the range, {self.high - self.low:g}")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether its values are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def extremes(self) -> tuple[float, float]:
        """Its smallest and its largest value; the latter is below `high` where the steps do not meet it."""
        return self.typed(self.low), self.typed(self.low + self._steps * self.step if self.step else self.high)

    def grid(self, points: int) -> list[float]:
        """At most so many values, evenly spaced (by their logarithm where it is a `log` range), ends included."""
        if self.step is not None:
            counts = np.linspace(0, self._steps, points).round()
            values = self.low + counts * self.step
        else:
            values = (np.geomspace if self.log else np.linspace)(self.low, self.high, points)
        return list(dict.fromkeys(self.typed(value) for value in values))

    def typed(self, value: float) -> float:
        """A number of the range as the model gets it."""
        if self.is_integer:
            return round(value)
        if self.step:
            return float(_exact(self.low) + round((value - self.low) / self.step) * _exact(self.step))
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def contains(self, value: Any) -> bool:
        """Whether a search could have proposed the value."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_integer else int | float):
            return False
        if not self.low <= value <= self.extremes[1]:
            return False
        count = (value - self.low) / self.step if self.step else 0
        return math.isclose(count, round(count), abs_tol=1e-8)  # Optuna's own tolerance

    @property
    def _steps(self) -> int:
        return int((_exact(self.high) - _exact(self.low)) // _exact(self.step)) if self.step else 0


def _exact(number: float) -> Decimal:
    # As it is written: as floats, three steps of 0.1 end above 0.3.
    return Decimal(str(number))


def _dimension_kind(raw: Any) -> str | None:
    if isinstance(raw, list | tuple | Choice):
        return "choice"
    return "range" if isinstance(raw, dict | Range) else None


Dimension = Annotated[
    Annotated[Choice, Tag("choice")] | Annotated[Range, Tag("range")],
    Discriminator(
        _dimension_kind,
        custom_error_type="dimension",
        custom_error_message="A dimension is a list of choices, or a range with low and high",
    ),
]
Space = dict[str, Dimension]
"""What is searched, by hyperparameter; every engine translates it from here."""


@dataclass(frozen=True)
class Trial:
    """One point of the space, and what it was worth. Two are equal where they tried and found the same.

    Attributes:
        number: Counts from 0, which is the model with its own hyperparameters.
        params: The hyperparameters that the space names.
        score: The mean over the folds; NaN where it failed.
        fold_scores: What each fold scored, up to the one that failed.
        seconds: How long it took.
        reason: Why it failed; empty where it did not.
    """

    number: int
    params: Params
    # No part of equality: it follows from the folds, and a NaN would not be equal to itself.
    score: Annotated[float, BeforeValidator(lambda score: math.nan if score is None else score)] = field(compare=False)
    fold_scores: tuple[float, ...]
    seconds: float = field(compare=False)
    reason: str = ""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: All of them, in their order; the first is the model with its own hyperparameters.
        best: The first of those with the best score.
        metric: The name of what was scored.
    """

    trials: tuple[Trial, ...]
    best: Trial
    metric: str

    @property
    def best_params(self) -> Params:
        """The hyperparameters to change; none where the model's own were best."""
        return dict(self.best.params) if self.best.number else {}

    def frame(self) -> pd.DataFrame:
        """One row a trial: `number`, `param_NAME`, `score`, `fold_N` (from 1), `seconds`, `reason`."""
        folds = max(len(trial.fold_scores) for trial in self.trials)
        return pd.DataFrame([_row(trial, folds) for trial in self.trials])


@dataclass(frozen=True)
class Bench:
    """What all trials of a search are judged on.

    Attributes:
        model: Has the hyperparameters that are not searched.
        schema: What the table is.
        table: The checked training part.
        metric: What decides.
        splits: The folds.
    """

    model: Model
    schema: TableSchema
    table: pd.DataFrame
    metric: Metric
    splits: tuple[Split, ...]

    def judge(self, number: int, params: Params) -> Trial:
        """Fit and score on every fold; a fit that the data does not allow makes a failed trial."""
        start = time.monotonic()
        scores, reason = self._try(params if number else {})
        score = math.nan if reason else fmean(scores)
        return Trial(number, params, score, tuple(scores), round(time.monotonic() - start, 3), reason)

    @cached_property
    def data_hash(self) -> str:
        """Of the names, values and order of the table."""
        digest = sha256(repr(list(self.table.columns)).encode())
        digest.update(pd.util.hash_pandas_object(self.table, index=False).to_numpy().tobytes())
        return digest.hexdigest()

    def _try(self, params: Params) -> tuple[list[float], str]:
        scores: list[float] = []
        try:
            model = self.model.with_params(**params)
        except ValidationError as err:  # each value alone was accepted before the search began
            return scores, f"{self.model.KIND} does not accept this combination: {err.errors()[0]['msg']}"
        for fold, (train, test) in enumerate(self.splits, start=1):
            try:
                score = self._score(model, train, test)
            except DataError as err:
                return scores, f"fold {fold}: {err.message}"
            if not math.isfinite(score):
                return scores, f"fold {fold}: {self.metric.name} is {score} on its held-out rows"
            scores.append(score)
        return scores, ""

    def _score(self, model: Model, train: Rows, test: Rows) -> float:
        held_out = self.table.iloc[test]
        fitted = model.with_params().fit(self.schema, self.table.iloc[train], self._context)
        return self.metric.score(held_out[self.schema.target.name].to_numpy(), fitted.outputs(held_out))

    @cached_property
    def _context(self) -> FitContext:
        moment = self.schema.time
        return FitContext(has_time_order=moment is not None and bool(self.table[moment].is_monotonic_increasing))


class Searcher(Frozen, ABC):
    """Searches hyperparameters on folds of the training part.

    Attributes:
        space: What to search, by hyperparameter: a list of choices, or a range.
        folds: How many folds of the splitter judge a trial.
        budget_seconds: No trial begins once the trials before it took so long, those of a resumed search included.
    """

    # What says how long a search goes on, but not what its trials are: it may be changed between kill and resumption.
    EXTENT: ClassVar[frozenset[str]] = frozenset({"budget_seconds"})

    KIND: str
    space: Space
    folds: int = Field(3, ge=1)
    budget_seconds: float | None = Field(None, gt=0)

    @abstractmethod
    def count(self) -> int:
        """How many trials there are to do, the model's own hyperparameters included.

        Raises:
            ConfigError: Too many.
        """

    @abstractmethod
    def propose(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """The hyperparameters of a trial from 1 on; equal arguments give equal ones."""

    def search(
        self,
        model: Model,
        schema: TableSchema,
        table: pd.DataFrame,
        *,
        metric: Metric,
        splitter: Splitter,
        journal: Path | None = None,
        progress: Report | None = None,
    ) -> SearchResult:
        """Try the model as it is, then what the strategy proposes.

        Args:
            model: Has the hyperparameters that are not searched.
            schema: What the table is.
            table: The checked training part.
            metric: What decides.
            splitter: Makes the folds.
            journal: Where finished trials are kept. Those of the same search are taken over, others are replaced.
            progress: Told after each trial.

        Raises:
            ConfigError: The space does not fit the model, or the metric does not fit the task.
            DataError: The table is too small for the folds, or no trial succeeded.
            StorageError: The journal cannot be written.
        """
        require_fit(self.space, model)
        metric.require(schema.target.task)
        total = self.count()
        bench = Bench(model, schema, table, metric, tuple(splitter.folds(table, schema, self.folds)))
        book = Journal(journal, self.fingerprint(bench, splitter))
        trials = book.take_over()[:total]
        for number in range(len(trials), total):
            if self._is_spent(trials):
                break
            params = self.propose(number, trials, metric) if number else own_params(self.space, model)
            trials.append(bench.judge(number, params))
            book.append(trials[-1])
            if progress is not None:
                progress(number + 1, total, _words(trials, metric))
        best = best_of(trials, metric)
        if best is None:
            raise DataError(f"all {len(trials)} trials failed; the first one: {trials[0].reason}")
        return SearchResult(tuple(trials), best, metric.name)

    def fingerprint(self, bench: Bench, splitter: Splitter) -> str:
        """Hash of all that decides what the trials are and what they score."""
        parts = (
            str(JOURNAL_FORMAT),
            self.model_dump_json(exclude=set(self.EXTENT)),
            bench.model.KIND,
            bench.model.model_dump_json(),
            bench.schema.model_dump_json(),
            bench.metric.name,
            bench.data_hash,
            splitter.model_dump_json(),
        )
        return sha256("\n".join(parts).encode()).hexdigest()

    def _is_spent(self, trials: Sequence[Trial]) -> bool:
        if self.budget_seconds is None or not trials:
            return False
        return sum(trial.seconds for trial in trials) >= self.budget_seconds


class GridSearcher(Searcher):
    """Tries every combination, the last hyperparameter of the space varying fastest.

    Attributes:
        points: Values of a range; lists of choices are tried in full.
        max_trials: The largest grid that is not refused.
    """

    EXTENT: ClassVar[frozenset[str]] = Searcher.EXTENT | {"max_trials"}

    KIND: Literal["GridSearcher"] = "GridSearcher"
    points: int = Field(3, ge=2)
    max_trials: int = Field(1000, ge=1)

    def count(self) -> int:
        """As of `Searcher`."""
        size = math.prod(len(values) for values in self._axes)
        if size > self.max_trials:
            raise ConfigError(
                f"the grid has {size:,} points, more than max_trials: {self.max_trials:,}",
                hint="take fewer points or hyperparameters, raise max_trials, or use KIND: OptunaSearcher",
            )
        return 1 + size

    def propose(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """As of `Searcher`."""
        values = next(islice(product(*self._axes), number - 1, None))
        return dict(zip(self.space, values, strict=True))

    @property
    def _axes(self) -> list[list[Any]]:
        return [dimension.grid(self.points) for dimension in self.space.values()]


class OptunaSearcher(Searcher):
    """Samples where good trials were dense before (TPE, Bergstra et al. 2011), in this process; random at first.

    Attributes:
        trials: How many, the model's own hyperparameters included.
        seed: Equal seeds give equal trials.
    """

    EXTENT: ClassVar[frozenset[str]] = Searcher.EXTENT | {"trials"}

    KIND: Literal["OptunaSearcher"] = "OptunaSearcher"
    trials: int = Field(20, ge=1)
    seed: int = 42

    def count(self) -> int:
        """As of `Searcher`."""
        return self.trials

    def propose(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """As of `Searcher`: a fresh study and sampler each time, so that nothing but the arguments plays a part."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self._seed_of(number)),
        )
        study.add_trials([self._observed(trial) for trial in before if self._is_observable(trial)])
        sampled = study.ask(self._distributions).params
        return {name: _value(dimension, sampled[name]) for name, dimension in self.space.items()}

    def _seed_of(self, number: int) -> int:
        return int.from_bytes(sha256(f"{self.seed}:{number}".encode()).digest()[:4], "big")

    def _is_observable(self, trial: Trial) -> bool:
        """Whether a sampler can learn from it: it succeeded, and lies in the space (the model's own may not)."""
        return not trial.reason and all(_contains(self.space[name], value) for name, value in trial.params.items())

    def _observed(self, trial: Trial) -> "FrozenTrial":
        import optuna

        return optuna.trial.create_trial(
            params={name: _internal(self.space[name], value) for name, value in trial.params.items()},
            distributions=self._distributions,
            value=trial.score,
        )

    @property
    def _distributions(self) -> dict[str, "BaseDistribution"]:
        return {name: _distribution(dimension) for name, dimension in self.space.items()}


SearcherKind = GridSearcher | OptunaSearcher


class Journal:
    """Finished trials on disk: JSON Lines, a header with the fingerprint of the search first, then one a trial."""

    _trial: ClassVar[TypeAdapter[Trial]] = TypeAdapter(Trial)

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        """Look at a place; without one, nothing is kept."""
        self.path = path
        self.fingerprint = fingerprint

    def take_over(self) -> list[Trial]:
        """The trials of the same search, leaving the file such that the next one can be appended.

        Raises:
            StorageError: The file cannot be read or written.
        """
        if self.path is None:
            return []
        with _storage_errors(self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
            trials, length = self._read(content)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not length:
                _write(self.path, "wb", {"fingerprint": self.fingerprint})
            elif length < len(content):
                os.truncate(self.path, length)
        return trials

    def append(self, trial: Trial) -> None:
        """Keep a trial: once this returns, a kill or a crash does not lose it.

        Raises:
            StorageError: The file cannot be written.
        """
        if self.path is None:
            return
        with _storage_errors(self.path):
            _write(self.path, "ab", asdict(trial) | {"score": None if trial.reason else trial.score})

    def _read(self, content: bytes) -> tuple[list[Trial], int]:
        """The trials, and the bytes up to the end of the last whole one; no bytes where it is another search's."""
        lines = content.splitlines(keepends=True)
        if not lines or not self._is_mine(lines[0]):
            return [], 0
        trials: list[Trial] = []
        length = len(lines[0])
        for number, line in enumerate(lines[1:]):
            trial = self._parse(line)
            if trial is None or trial.number != number:
                break
            trials.append(trial)
            length += len(line)
        return trials, length

    def _is_mine(self, line: bytes) -> bool:
        return line == _line({"fingerprint": self.fingerprint})

    def _parse(self, line: bytes) -> Trial | None:
        if not line.endswith(b"\n"):  # killed in the middle of a write
            return None
        try:
            return self._trial.validate_python(json.loads(line))
        except ValueError:  # no JSON or no trial: a disk that lost power may leave anything
            return None


def require_fit(space: Space, model: Model) -> None:
    """Refuse a space that names what the model does not have, or offers what it does not accept.

    Raises:
        ConfigError: Naming the hyperparameter, and the nearest right one.
    """
    names = list(model.get_params())
    if not space:
        raise ConfigError("the space of the search is empty", hint=f"{model.KIND} has {', '.join(names)}")
    for name, dimension in space.items():
        if name not in names:
            raise ConfigError(
                f"space: {name} is not a hyperparameter of {model.KIND}{did_you_mean(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
        for value in dimension.extremes:
            _require_accepted(model, name, value)


def own_params(space: Space, model: Model) -> Params:
    """What the model itself has where the space offers something else, as a journal can keep it."""
    own = model.model_dump(mode="json")
    return {name: own[name] for name in space}


def best_of(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """The first of the trials with the best score; None where all failed."""
    best: Trial | None = None
    for trial in trials:
        if not trial.reason and (best is None or metric.is_better(trial.score, best.score)):
            best = trial
    return best


def _require_accepted(model: Model, name: str, value: Any) -> None:
    try:
        model.with_params(**{name: value})
    except ValidationError as err:
        raise ConfigError(
            f"space.{name}: {model.KIND} does not accept {value!r}: {err.errors()[0]['msg']}",
            hint="a range is one of floats if low, high or step has a point",
        ) from err


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _row(trial: Trial, folds: int) -> dict[str, Any]:
    scores = [*trial.fold_scores, *[math.nan] * (folds - len(trial.fold_scores))]
    return {
        "number": trial.number,
        **{f"param_{name}": value for name, value in trial.params.items()},
        "score": trial.score,
        **{f"fold_{fold}": score for fold, score in enumerate(scores, start=1)},
        "seconds": trial.seconds,
        "reason": trial.reason,
    }


def _words(trials: Sequence[Trial], metric: Metric) -> str:
    last, best = trials[-1], best_of(trials, metric)
    found = f"failed ({last.reason})" if last.reason else f"{metric.name} {last.score:.4g}"
    return f"{found}, best {best.score:.4g}" if best else f"{found}, best none"


def _distribution(dimension: Choice | Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        # Positions, because Optuna takes 1 and true for the same, and lists for no choice at all.
        return CategoricalDistribution(tuple(range(len(dimension.root))))
    low, high = dimension.extremes
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def _value(dimension: Choice | Range, sampled: Any) -> Any:
    return dimension.root[sampled] if isinstance(dimension, Choice) else dimension.typed(sampled)


def _internal(dimension: Choice | Range, value: Any) -> Any:
    return dimension.position(value) if isinstance(dimension, Choice) else value


def _contains(dimension: Choice | Range, value: Any) -> bool:
    return dimension.position(value) is not None if isinstance(dimension, Choice) else dimension.contains(value)


def _write(path: Path, mode: Literal["ab", "wb"], record: Params) -> None:
    with path.open(mode) as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())


def _line(record: Params) -> bytes:
    return json.dumps(record).encode() + b"\n"


@contextmanager
def _storage_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as err:
        raise StorageError(f"{path}: the journal of the search cannot be kept: {err.strerror}") from err
