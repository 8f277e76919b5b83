"""From a table to its schema: what each column is, what names a row, and what looks wrong, a sentence each.

Kinds are tried with the decoder that will read the table later, so that the schema accepts the table it came from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_name.core.frames import Frame, decode_target
from model_name.core.schemas import (
    LARGEST,
    Column,
    Kind,
    Label,
    Problems,
    TableSchema,
    Target,
    also,
    decode_column,
    did_you_mean,
)
from model_name.errors import DataError

TRIED: tuple[Kind, ...] = ("numeric", "boolean", "datetime", "category")  # the stricter decoder first
# By NumPy's letter; float() would also take dates, durations and complex numbers, and mean something else by them.
KINDS: dict[str, tuple[Kind, ...]] = {
    "b": ("boolean",),
    "i": ("numeric",),
    "u": ("numeric",),
    "f": ("numeric",),
    "M": ("datetime",),
    "m": (),
    "c": (),
}
GLANCE_ROWS = 200  # that show cheaply that a kind does not fit
LISTED_CATEGORIES = 100  # more are not written down but taken from the training part
TEXT_ID_DISTINCT = 50  # more, on over half of the rows, and a text names a row rather than a category
UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
MAX_CLASSES = 50
MAX_NUMBERED_CLASSES = 20
CLASS_ROWS = 5  # that each number needs to be taken for a class; with fewer it is the tail of a count
CLASS_SHARE = 0.01
EXACT_INTEGER = 2**53  # beyond it float64 skips integers
POSITIVES = frozenset({"yes", "true", "1", "y", "t", "on", "positive", "pos"})
MIN_KEY_ROWS = 20  # with fewer, columns are unique by chance
KEY_CANDIDATES = 8
KEY_COLUMNS = 3
MIN_LEAK_ROWS = 100
LEAK_ROWS = 6_000  # half to learn on, half to judge on
LEAK_SCORE = 0.98  # share of the variance of the target's ranks, or balanced accuracy
LEAF_NODES = 64


@dataclass(frozen=True)
class Inferred:
    """What a table seems to be.

    Attributes:
        schema: Its schema, which accepts it; infinite values of a column alone, no schema does.
        findings: What was decided and what looks wrong, a sentence each.
        notes: What was seen in a column, by name.
    """

    schema: TableSchema
    findings: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """A column as the decoder reads it.

    Attributes:
        kind: What its values are.
        values: The typed values.
        codes: The position of each in `distinct`, -1 where it is missing.
        distinct: The different ones, in the order of the table.
        is_text: Whether the table holds texts, and nothing but texts.
    """

    kind: Kind
    values: NDArray[Any]
    codes: NDArray[np.int64]
    distinct: NDArray[Any]
    is_text: bool

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return int((self.codes < 0).sum())

    @property
    def is_whole(self) -> bool:
        """Whether none is missing."""
        return self.missing == 0

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return len(self.distinct) == len(self.values)

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers that float64 keeps apart."""
        if self.kind != "numeric" or not len(self.distinct):
            return False
        return bool(np.all(np.abs(self.distinct) < EXACT_INTEGER) and np.all(self.distinct == np.floor(self.distinct)))

    @property
    def is_sequence(self) -> bool:
        """Whether it counts the rows: different integers that only rise, or only fall."""
        if not (self.is_integer and self.is_whole and self.is_unique and len(self.values) >= MIN_KEY_ROWS):
            return False
        steps = np.diff(self.values)
        return bool((steps > 0).all() or (steps < 0).all())


@dataclass(frozen=True)
class Doubt:
    """Why a column should not be a feature.

    Attributes:
        reason: A few words.
        is_suspicion: Whether it may be wrong: then the column comes back rather than leave a model without features.
    """

    reason: str
    is_suspicion: bool = False


def infer(frame: Frame, *, name: str, target: str, time: str | None = None, key: Sequence[str] = ()) -> Inferred:
    """Guess the schema of a table and say what was guessed.

    Args:
        frame: The table.
        name: What it is about.
        target: The column to predict.
        time: The datetime column that orders the rows; the only one by default.
        key: The columns that name a row; by default the fewest that do.

    Raises:
        DataError: There is nothing to learn from the table, or a named column is not in it or not fit for its role.
    """
    named = _with_text_names(frame)
    _require_columns(named, target, time, key)
    goal = _target_facts(named[target])
    described = _target(named, target, goal)
    facts, unreadable = _readable(named, [name for name in named.columns if name != target])
    moment, said_of_time = _time(facts, time)
    names_row, duplicates, said_of_key = _key(facts, tuple(key), goal)
    doubts = _doubts(facts, goal, described, keep=moment)
    columns = {name: _column(found, is_feature=name not in doubts) for name, found in facts.items()}
    if not any(column.is_input for column in columns.values()):
        raise _no_feature(facts, unreadable, doubts)
    schema = TableSchema(
        name=name,
        target=described,
        columns=columns,
        time=moment,
        key=names_row,
        extra="drop" if unreadable else "refuse",
        duplicates="drop" if duplicates else "refuse",
    )
    findings = [
        *_said_of_target(described, goal),
        *said_of_time,
        *said_of_key,
        *(f"{name}: left out (`extra: drop`), no kind reads its values ({what})" for name, what in unreadable.items()),
        *_said_of_columns(facts),
        *_said_of_features(facts, doubts, target),
    ]
    notes = {name: _note(found, doubts.get(name)) for name, found in facts.items()}
    return Inferred(schema, tuple(findings), notes)


def bounds(values: NDArray[Any]) -> tuple[float | None, float | None]:
    """Bounds that new values should keep to: the observed ones and their span beyond, but not across zero.

    Returns:
        The lower and the upper one, rounded outward to two digits of the span; None where there is nothing to go by.
    """
    known = values[np.abs(values) <= LARGEST]
    if not len(known):
        return None, None
    low, high = float(known.min()), float(known.max())
    span = high - low or abs(low) or 1.0
    if span < 1e-300:  # its digits are beyond float64
        return None, None
    lower = max(low - span, 0.0) if low >= 0 else low - span
    upper = min(high + span, 0.0) if high <= 0 and low < 0 else high + span
    digits = 1 - int(np.floor(np.log10(span)))
    # min and max: for huge values with a small span, rounding could fall back into what was observed.
    return min(_outward(lower, digits, np.floor), low), max(_outward(upper, digits, np.ceil), high)


def _outward(value: float, digits: int, whole: Any) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = round(float(whole(value * 10.0**digits) / 10.0**digits), digits)
    return rounded if np.isfinite(rounded) else value


def _with_text_names(frame: Frame) -> Frame:
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    named = frame.copy(deep=False)
    named.columns = pd.Index([str(name) for name in frame.columns])
    if not named.columns.is_unique:
        twice = named.columns[named.columns.duplicated()][0]
        raise DataError(f"{twice}: the table has this column twice", hint="rename one of them")
    return named


def _require_columns(frame: Frame, target: str, time: str | None, key: Sequence[str]) -> None:
    for role, names in (("target", [target]), ("time", [time] if time is not None else []), ("key", key)):
        for name in names:
            if name not in frame.columns:
                nearest = did_you_mean(name, list(frame.columns))
                raise DataError(f"{name}: the {role} is not a column of the table{nearest}")
            if name == target and role != "target":
                raise DataError(f"{name}: is the target and cannot be the {role} as well")
    if len(set(key)) < len(key):
        raise DataError(f"the key names a column twice: {', '.join(key)}")


def _facts(column: "pd.Series[Any]") -> Facts:
    """What a column holds.

    Raises:
        DataError: No kind of column can read it.
    """
    raw = column.array.to_numpy()
    known = raw[~column.isna().to_numpy()]
    is_text = infer_dtype(known) == "string"
    if is_text:  # each different text is decoded once, which a table of millions of rows can feel
        codes, texts = pd.factorize(raw)
        kind, read = _read(texts)
        values = np.append(read, np.array([None if kind == "category" else "NaT"], read.dtype))[codes]
    else:
        # What pandas holds as a category is one, also where its categories are numbers.
        kind, values = _read(raw, ("category",) if isinstance(column.dtype, pd.CategoricalDtype) else None)
    codes, distinct = pd.factorize(values)
    if kind == "category" and _names_rows(distinct, len(known)):
        kind = "text-id"
    return Facts(kind, values, codes, distinct, is_text)


def _target_facts(column: "pd.Series[Any]") -> Facts:
    try:
        return _facts(pd.Series(column.array.to_numpy()))  # labels keep their type, also where pandas holds categories
    except DataError as err:
        raise DataError(f"{column.name}: the target holds values that cannot be read ({err.message})") from err


def _read(raw: NDArray[Any], kinds: Sequence[Kind] | None = None) -> tuple[Kind, NDArray[Any]]:
    """The values as the first kind that takes them all.

    Raises:
        DataError: None does.
    """
    known = raw[~pd.isna(raw)]
    glance = known[:GLANCE_ROWS]
    for kind in kinds or KINDS.get(raw.dtype.kind, TRIED if len(known) else ("category",)):
        if _decoded(glance, kind) is not None and (values := _decoded(raw, kind)) is not None:
            return kind, values
    raise DataError(type(known[0]).__name__ if raw.dtype.kind == "O" else str(raw.dtype))


def _decoded(raw: NDArray[Any], kind: Kind) -> NDArray[Any] | None:
    problems = Problems()
    values = decode_column("", Column(kind=kind), raw, problems)
    return None if problems.found else values


def _names_rows(distinct: NDArray[Any], known: int) -> bool:
    if len(distinct) > TEXT_ID_DISTINCT and len(distinct) > known / 2:
        return True
    return len(distinct) > 1 and bool(pd.Series(distinct).str.fullmatch(UUID).all())


def _readable(frame: Frame, names: Sequence[str]) -> tuple[dict[str, Facts], dict[str, str]]:
    facts: dict[str, Facts] = {}
    unreadable: dict[str, str] = {}
    for name in names:
        try:
            facts[name] = _facts(frame[name])
        except DataError as err:
            unreadable[name] = err.message
    return facts, unreadable


def _target(frame: Frame, name: str, goal: Facts) -> Target:
    """The target, its task and its classes.

    Raises:
        DataError: Nothing can learn it.
    """
    if not goal.is_whole:
        raise DataError(
            f"{name}: the target is missing in {goal.missing:,} of {len(frame):,} rows",
            hint="leave those rows out of the table",
        )
    if goal.kind == "datetime":
        raise DataError(
            f"{name}: the target is a date; a model predicts numbers or classes",
            hint="turn it into a number, such as the days until then",
        )
    if len(goal.distinct) < 2:
        raise DataError(f"{name}: the target is constant ({goal.distinct[0]}); there is nothing to learn")
    if goal.kind == "numeric" and not np.isfinite(goal.distinct).all():
        rows = int((~np.isfinite(goal.values)).sum())
        raise DataError(f"{name}: the target is infinite in {rows:,} rows", hint="leave those rows out of the table")
    classes = _classes(name, goal)
    task: Literal["regression", "binary", "multiclass"] = (
        "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    )
    target = Target(name=name, task=task, classes=classes)
    is_plain = goal.is_text or frame[name].dtype.kind in "biuf"
    first = np.unique(goal.codes, return_index=True)[1]  # a row of each value is enough where like values look alike
    decode_target(frame.iloc[first] if is_plain else frame, target)  # the words of every job that follows, but now
    return target


def _classes(name: str, goal: Facts) -> tuple[Label, ...] | None:
    if goal.kind == "boolean":
        return (False, True)
    if goal.kind == "numeric":
        return tuple(sorted(int(value) for value in goal.distinct)) if _are_classes(goal) else None
    if len(goal.distinct) > MAX_CLASSES:
        raise DataError(
            f"{name}: the target is a text with {len(goal.distinct):,} different values, over {MAX_CLASSES}",
            hint="group the rare ones, or name a target that is a number or has fewer values",
        )
    labels = sorted(goal.distinct)
    positives = [label for label in labels if label.casefold() in POSITIVES]
    if len(labels) == 2 and len(positives) == 1:
        labels.sort(key=lambda label: label in positives)
    return tuple(labels)


def _are_classes(goal: Facts) -> bool:
    """Two integers are classes; more are if they number 0 or 1 to k, none of them rare as the tail of a count is."""
    count = len(goal.distinct)
    if not goal.is_integer or count == 2:
        return goal.is_integer
    numbers = np.sort(goal.distinct)
    is_numbered = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == count - 1
    rarest = int(np.bincount(goal.codes).min())
    is_filled = rarest >= max(CLASS_ROWS, CLASS_SHARE * len(goal.values))
    return bool(count <= MAX_NUMBERED_CLASSES and is_numbered and is_filled)


def _time(facts: Mapping[str, Facts], given: str | None) -> tuple[str | None, list[str]]:
    """The time column, and why it is that one.

    Raises:
        DataError: The given one does not order the rows.
    """
    if given is not None:
        problem = _not_a_time(facts.get(given))
        if problem:
            raise DataError(f"{given}: cannot be the time column: {problem}", hint="name another --time, or none")
        return given, [f"time: {given} orders the rows, the newest are held out"]
    moments = [name for name, found in facts.items() if found.kind == "datetime" and len(found.distinct)]
    if not moments:
        return None, ["time: there is no datetime column, rows are held out at random"]
    if len(moments) > 1:
        words = f"time: which of {', '.join(moments)} orders the rows? None was taken, rows are held out at random"
        return None, [f"{words}; name it with --time"]
    problem = _not_a_time(facts[moments[0]])
    if problem:
        return None, [f"time: {moments[0]} was not taken, rows are held out at random: {problem}"]
    return moments[0], [f"time: {moments[0]}, the only datetime column, orders the rows; the newest are held out"]


def _not_a_time(found: Facts | None) -> str:
    if found is None or found.kind != "datetime":
        return f"it is {found.kind}, not a datetime" if found else "its values cannot be read"
    if not found.is_whole:
        return f"it is missing in {found.missing:,} rows"
    times = np.sort(found.values)
    if len(np.unique(times.astype("datetime64[D]"))) < 2:
        return "it holds a single day"
    return "" if times[len(times) // 2] > times[0] else "over half of the rows have its first moment"


def _key(facts: Mapping[str, Facts], given: tuple[str, ...], goal: Facts) -> tuple[tuple[str, ...], bool, list[str]]:
    """The key, whether rows share it, and why it is that one.

    Raises:
        DataError: A given column cannot be read, or the rows without duplicates have one target.
    """
    if not given:
        found = find_key(facts)
        if found:
            return found, False, [f"key: {', '.join(found)} names each row; rows that share it will be refused"]
        words = "key: none of the texts and dates, nor up to three together, names each row"
        return (), False, [f"{words}; name the key with --key, numbers can be part of it"]
    for name in given:
        if name not in facts:
            raise DataError(f"{name}: cannot be part of the key: its values cannot be read")
    again = pd.DataFrame({name: facts[name].codes for name in given}).duplicated().to_numpy()
    if not again.any():
        return given, False, [f"key: {', '.join(given)} names each row"]
    names = ", ".join(given)
    if len(np.unique(goal.codes[~again])) < 2:
        raise DataError(f"{names}: with this key the rows left have one target", hint="name another --key")
    words = f"key: {int(again.sum()):,} rows have the {names} of an earlier row and are dropped (`duplicates: drop`)"
    return given, True, [f"{words}; name more columns with --key to keep them"]


def find_key(facts: Mapping[str, Facts]) -> tuple[str, ...]:
    """The fewest columns that name a row: one that counts or names it, else texts and dates together; or none."""
    whole = {name: found for name, found in facts.items() if found.is_whole and len(found.distinct) > 1}
    rows = len(next(iter(whole.values())).values) if whole else 0
    if rows < MIN_KEY_ROWS:
        return ()
    for name, found in whole.items():
        if found.is_sequence or (found.kind == "text-id" and found.is_unique):
            return (name,)
    texts = [name for name, found in whole.items() if found.kind in {"category", "text-id", "datetime"}]
    telling = sorted(texts, key=lambda name: -len(whole[name].distinct))[:KEY_CANDIDATES]
    candidates = [name for name in texts if name in telling]
    for size in range(1, KEY_COLUMNS + 1):
        for names in combinations(candidates, size):
            are_enough = prod(len(whole[name].distinct) for name in names) >= rows
            if are_enough and _are_unique([whole[name].codes for name in names]):
                return names
    return ()


def _are_unique(columns: Sequence[NDArray[np.int64]]) -> bool:
    table = pd.DataFrame(dict(enumerate(columns)))
    # Neighbours are the likeliest duplicates, and most combinations end with them.
    return not table.head(10_000).duplicated().any() and not table.duplicated().any()


def _column(found: Facts, *, is_feature: bool) -> Column:
    low, high = bounds(found.values) if found.kind == "numeric" else (None, None)
    is_listed = found.kind == "category" and 0 < len(found.distinct) <= LISTED_CATEGORIES
    return Column(
        kind=found.kind,
        nullable=not found.is_whole,
        min=low,
        max=high,
        values=tuple(sorted(found.distinct)) if is_listed else None,
        feature=is_feature,
    )


def _doubts(facts: Mapping[str, Facts], goal: Facts, target: Target, *, keep: str | None) -> dict[str, Doubt]:
    """Why columns should not be features, by name."""
    doubts: dict[str, Doubt] = {}
    for name, found in facts.items():
        if not len(found.distinct):
            doubts[name] = Doubt("all its values are missing")
        elif len(found.distinct) == 1 and found.is_whole:
            doubts[name] = Doubt(f"it is constant ({found.distinct[0]})")
        elif found.is_sequence:
            doubts[name] = Doubt("it counts the rows, as an id does", is_suspicion=True)
    copies = {name: Doubt(f"it is the same as {first}") for name, first in _copies(facts) if name != keep}
    doubts = copies | doubts
    left = {name: found for name, found in facts.items() if name not in doubts and found.kind != "text-id"}
    doubts |= dict(_leaks(left, goal, is_regression=target.task == "regression"))
    if all(name in doubts or found.kind == "text-id" for name, found in facts.items()):
        return {name: doubt for name, doubt in doubts.items() if not doubt.is_suspicion}
    return doubts


def _copies(facts: Mapping[str, Facts]) -> Iterator[tuple[str, str]]:
    first: dict[tuple[Kind, int], str] = {}
    for name, found in facts.items():
        earlier = first.setdefault((found.kind, hash(found.codes.tobytes())), name)
        if earlier != name and np.array_equal(facts[earlier].distinct, found.distinct):
            yield name, earlier


def _leaks(facts: Mapping[str, Facts], goal: Facts, *, is_regression: bool) -> Iterator[tuple[str, Doubt]]:
    rows = len(goal.values)
    if rows < MIN_LEAK_ROWS:
        return
    sample = np.random.default_rng(0).permutation(rows)[:LEAK_ROWS]
    # Ranks, so that one measure holds for every monotone relation and no outlier decides.
    truth = pd.Series(goal.values[sample]).rank().to_numpy() if is_regression else goal.codes[sample]
    for name, found in facts.items():
        score = _alone(found, sample, truth, is_regression=is_regression)
        if score >= LEAK_SCORE:
            reason = f"it alone predicts the target nearly perfectly ({score:.1%}): a suspected leak"
            yield name, Doubt(reason, is_suspicion=True)


def _alone(found: Facts, sample: NDArray[np.int64], truth: NDArray[Any], *, is_regression: bool) -> float:
    """What one column tells of the target, learned on one half of the sample and judged on the other."""
    half = len(sample) // 2
    judged = truth[half:]
    if len(np.unique(judged)) < 2 or len(np.unique(truth[:half])) < 2:
        return 0.0
    if found.kind == "category":
        predicted = _by_category(found.codes[sample], truth, half, is_regression=is_regression)
    else:
        predicted = _by_tree(_numbers(found, sample), truth, half, is_regression=is_regression)
    return float(r2_score(judged, predicted) if is_regression else _balanced(judged, predicted))


def _numbers(found: Facts, sample: NDArray[np.int64]) -> NDArray[np.float32]:
    if found.kind == "datetime":  # a model sees its hour, weekday and month alone; whether it is missing can leak
        return (found.codes[sample] < 0).astype(np.float32)
    values = found.values[sample]
    # Ranks, because a tree computes in float32 and would take near or huge values for equal ones.
    return pd.Series(np.where(np.isinf(values), np.nan, values)).rank(method="dense").to_numpy(np.float32)


def _by_tree(numbers: NDArray[np.float32], truth: NDArray[Any], half: int, *, is_regression: bool) -> NDArray[Any]:
    shape = {"max_leaf_nodes": LEAF_NODES, "min_samples_leaf": 3, "random_state": 0}
    tree = DecisionTreeRegressor(**shape) if is_regression else DecisionTreeClassifier(class_weight="balanced", **shape)
    predicted: NDArray[Any] = tree.fit(numbers[:half, None], truth[:half]).predict(numbers[half:, None])
    return predicted


def _by_category(codes: NDArray[np.int64], truth: NDArray[Any], half: int, *, is_regression: bool) -> NDArray[Any]:
    learned = pd.DataFrame({"code": codes[:half], "truth": truth[:half]})
    if is_regression:
        answers, usual = learned.groupby("code")["truth"].mean(), learned["truth"].mean()
    else:  # the most frequent class of each category: counts come sorted
        answers = learned.value_counts().reset_index().drop_duplicates("code").set_index("code")["truth"]
        usual = learned["truth"].mode().iloc[0]
    predicted: NDArray[Any] = pd.Series(codes[half:]).map(answers).fillna(usual).to_numpy()
    return predicted


def _balanced(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """The mean recall of the classes; one of few rows is hit or missed by chance and does not count."""
    frequent = [label for label, rows in enumerate(np.bincount(truth)) if rows >= 3]
    recalls = [float(np.mean(predicted[truth == label] == label)) for label in frequent]
    return float(np.mean(recalls)) if len(recalls) > 1 else 0.0


def _no_feature(facts: Mapping[str, Facts], unreadable: Mapping[str, str], doubts: Mapping[str, Doubt]) -> DataError:
    reasons = [f"{name}: {doubts[name].reason if name in doubts else 'it names rows'}" for name in facts]
    reasons += [f"{name}: its values cannot be read ({what})" for name, what in unreadable.items()]
    words = "; ".join(reasons) or "the table has no other column than the target"
    return DataError(
        f"no column is left for a model to look at: {words}",
        hint="bring a table with columns that say something about the target",
    )


def _said_of_target(target: Target, goal: Facts) -> Iterator[str]:
    if target.classes is None:
        change = "; to predict classes set `task: multiclass` and list them under `classes`" if goal.is_integer else ""
        yield f"target: {target.name} is a number (regression) with {len(goal.distinct):,} different values{change}"
        return
    words = ", ".join(repr(label) for label in target.classes)
    if target.task == "binary":
        yield f"target: {target.name} is binary, {target.classes[1]!r} is the positive class; else swap its `classes`"
    else:
        yield f"target: {target.name} is taken as {len(target.classes)} classes (multiclass): {words}"
    if goal.kind == "numeric":
        yield f"target: {target.name} holds numbers; to predict it as one set `task: regression` and remove `classes`"
    counts = np.bincount(goal.codes)
    rare = [f"{goal.distinct[code]} ({counts[code]} rows)" for code in np.flatnonzero(counts < 10)]
    if rare:
        yield f"target: too few rows to learn from and to hold out: {', '.join(rare)}; bring more, or group classes"


def _said_of_columns(facts: Mapping[str, Facts]) -> Iterator[str]:
    for name, found in facts.items():
        if found.kind == "numeric":
            infinite = int((np.abs(found.values) > LARGEST).sum())
            if infinite:
                words = f"{name}: is infinite, or too large for a model, in {infinite:,} rows"
                yield f"{words}; every job REFUSES the table until these are mended or left empty"
            if found.is_integer and set(found.distinct) == {0.0, 1.0}:
                yield f"{name}: holds only 0 and 1 and is numeric; for no and yes set `kind: boolean`, without bounds"
        if found.kind == "datetime" and found.is_text:
            yield f"{name}: holds dates as texts; they are read as ISO 8601"
        if found.kind == "text-id":
            words = f"{name}: its {len(found.distinct):,} different texts name rows, no model looks at them (`text-id`)"
            yield f"{words}; set `kind: category` if they are categories"
        if found.kind == "category" and len(found.distinct) > LISTED_CATEGORIES:
            yield f"{name}: its {len(found.distinct):,} categories are not listed, those of the training part count"


def _said_of_features(facts: Mapping[str, Facts], doubts: Mapping[str, Doubt], target: str) -> Iterator[str]:
    for name, doubt in doubts.items():
        more = "; remove `feature: false` to let the model look at it" if doubt.is_suspicion else ""
        yield f"{name}: is no feature (`feature: false`), because {doubt.reason}{more}"
    likely = [name for name in facts if name not in doubts and len(target) > 2 and target.casefold() in name.casefold()]
    if likely:
        words = f"{likely[0]}{also(likely[1:])}: has the target's name in its own"
        yield f"{words}; set `feature: false` if it is known only after the target"


def _note(found: Facts, doubt: Doubt | None) -> str:
    parts = [doubt.reason] if doubt else []
    if found.kind == "numeric" and np.isfinite(found.distinct).any():
        known = found.distinct[np.isfinite(found.distinct)]
        parts.append(f"{known.min():.6g} to {known.max():.6g}")
    if found.kind == "datetime" and len(found.distinct):
        parts.append(f"{str(found.distinct.min())[:10]} to {str(found.distinct.max())[:10]}")
    if found.kind in {"category", "text-id"} and len(found.distinct) > LISTED_CATEGORIES:
        parts.append(f"{len(found.distinct):,} different texts")
    if found.missing:
        parts.append(f"{found.missing / len(found.values):.1%} missing")
    return ", ".join(parts)
