"""What the target of a table is: a number to predict, or the classes to tell apart."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from model_name.core.dataframes import Frame, decode_target
from model_name.core.profiling.column_facts import ColumnFacts, compute_column_facts
from model_name.core.schemas import Label, Target, Task
from model_name.errors import DataError

MAX_CLASSES = 50
MAX_NUMBERED_CLASSES = 20
MIN_CLASS_ROWS = 5  # that each number needs to be taken for a class; with fewer it is the tail of a count
MIN_CLASS_SHARE = 0.01
POSITIVE_LABELS = frozenset({"yes", "true", "1", "y", "t", "on", "positive", "pos"})


def infer_target(frame: Frame, name: str) -> tuple[Target, ColumnFacts]:
    """The target, its task and its classes; and what its column holds.

    Raises:
        DataError: Nothing can learn it.
    """
    try:
        target_facts = compute_column_facts(pd.Series(frame[name].array.to_numpy()))  # an array, so that categories keep their type
    except DataError as err:
        raise DataError(f"{name}: the target holds values that cannot be read ({err.message})") from err
    _check_learnable(name, target_facts)
    classes = _infer_classes(name, target_facts)
    task: Task = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    target = Target(name=name, task=task, classes=classes)
    is_plain = target_facts.is_text or frame[name].dtype.kind in "biuf"
    first = np.unique(target_facts.codes, return_index=True)[1]  # a row of each value is enough where like values look alike
    decode_target(frame.iloc[first] if is_plain else frame, target)  # the words of every job that follows, but now
    return target, target_facts


def target_messages(target: Target, target_facts: ColumnFacts) -> Iterator[str]:
    """What was decided, and what the classes lack."""
    if target.classes is None:
        change = "; to predict classes set `task: multiclass` and list them under `classes`" if target_facts.is_integer else ""
        yield f"target: {target.name} is a number (regression) with {len(target_facts.distinct):,} different values{change}"
        return
    words = ", ".join(repr(label) for label in target.classes)
    if target.task == "binary":
        yield f"target: {target.name} is binary, {target.classes[1]!r} is the positive class; else swap its `classes`"
    else:
        yield f"target: {target.name} is taken as {len(target.classes)} classes (multiclass): {words}"
    if target_facts.kind == "numeric":
        yield f"target: {target.name} holds numbers; to predict it as one set `task: regression` and remove `classes`"
    counts = np.bincount(target_facts.codes)
    rare = [f"{target_facts.distinct[code]} ({counts[code]} rows)" for code in np.flatnonzero(counts < 10)]
    if rare:
        yield f"target: too few rows to learn from and to hold out: {', '.join(rare)}; bring more, or group classes"


def _check_learnable(name: str, target_facts: ColumnFacts) -> None:
    if not target_facts.is_complete:
        raise DataError(
            f"{name}: the target is missing in {target_facts.missing:,} of {len(target_facts.values):,} rows",
            hint="leave those rows out of the table",
        )
    if target_facts.kind == "datetime":
        raise DataError(
            f"{name}: the target is a date; a model predicts numbers or classes",
            hint="turn it into a number, such as the days until then",
        )
    if len(target_facts.distinct) < 2:
        raise DataError(f"{name}: the target is constant ({target_facts.distinct[0]}); there is nothing to learn")
    if target_facts.kind == "numeric" and not np.isfinite(target_facts.distinct).all():
        rows = int((~np.isfinite(target_facts.values)).sum())
        raise DataError(f"{name}: the target is infinite in {rows:,} rows", hint="leave those rows out of the table")


def _infer_classes(name: str, target_facts: ColumnFacts) -> tuple[Label, ...] | None:
    if target_facts.kind == "boolean":
        return (False, True)
    if target_facts.kind == "numeric":
        return tuple(sorted(int(value) for value in target_facts.distinct)) if _are_class_numbers(target_facts) else None
    if len(target_facts.distinct) > MAX_CLASSES:
        raise DataError(
            f"{name}: the target is a text with {len(target_facts.distinct):,} different values, over {MAX_CLASSES}",
            hint="group the rare ones, or name a target that is a number or has fewer values",
        )
    labels = sorted(target_facts.distinct)
    positives = [label for label in labels if label.casefold() in POSITIVE_LABELS]
    if len(labels) == 2 and len(positives) == 1:
        labels.sort(key=lambda label: label in positives)
    return tuple(labels)


def _are_class_numbers(target_facts: ColumnFacts) -> bool:
    """Two integers are classes; more are if they number 0 or 1 to k, none of them rare as the tail of a count is."""
    count = len(target_facts.distinct)
    if not target_facts.is_integer or count == 2:
        return target_facts.is_integer
    numbers = np.sort(target_facts.distinct)
    is_numbered = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == count - 1
    rarest = int(np.bincount(target_facts.codes).min())
    is_filled = rarest >= max(MIN_CLASS_ROWS, MIN_CLASS_SHARE * len(target_facts.values))
    return bool(count <= MAX_NUMBERED_CLASSES and is_numbered and is_filled)
