"""Inference of the target of a table: a number, or the classes of a classification."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from model_name.core.dataframes import Frame, decode_target
from model_name.core.profiling.column_facts import ColumnFacts, compute_column_facts
from model_name.core.schemas import Label, Target, Task
from model_name.errors import DataError

MAX_CLASSES = 50
MAX_NUMBERED_CLASSES = 20
MIN_CLASS_ROWS = 5  # rows of each number if numbers are classes; a number with fewer is the tail of a count
MIN_CLASS_SHARE = 0.01
MIN_EVALUATION_ROWS = 10  # rows of a class below which it is reported as rare
POSITIVE_LABELS = frozenset({"yes", "true", "1", "y", "t", "on", "positive", "pos"})


def infer_target(frame: Frame, name: str) -> tuple[Target, ColumnFacts]:
    """Infer the task and the classes of the target.

    Returns:
        The target, and the facts of its column.

    Raises:
        DataError: No model can be fitted to the target: it cannot be decoded, has gaps, is constant, a date, or a text
            with too many values.
    """
    try:
        # Converted to an array first, so that a pandas categorical has the type of its categories.
        target_facts = compute_column_facts(pd.Series(frame[name].array.to_numpy()))
    except DataError as err:
        raise DataError(f"{name}: the target holds values that cannot be read ({err.message})") from err
    _check_learnable(name, target_facts)
    classes = _infer_classes(name, target_facts)
    task: Task = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    target = Target(name=name, task=task, classes=classes)
    is_plain = target_facts.is_text or frame[name].dtype.kind in "biuf"
    first_rows = np.unique(target_facts.codes, return_index=True)[1]  # one row of each value is enough for plain types
    decode_target(frame.iloc[first_rows] if is_plain else frame, target)  # every later job would raise the same error
    return target, target_facts


def target_messages(target: Target, target_facts: ColumnFacts) -> Iterator[str]:
    """Describe the inferred target, how to change it, and classes with too few rows."""
    if target.classes is None:
        is_integer = target_facts.is_integer
        change = "; to predict classes set `task: multiclass` and list them under `classes`" if is_integer else ""
        count = len(target_facts.distinct)
        yield f"target: {target.name} is a number (regression) with {count:,} distinct values{change}"
        return
    labels = ", ".join(repr(label) for label in target.classes)
    if target.task == "binary":
        yield (
            f"target: {target.name} is binary, {target.classes[1]!r} is the positive class; "
            "to change that, swap its `classes`"
        )
    else:
        yield f"target: {target.name} has {len(target.classes)} classes (multiclass): {labels}"
    if target_facts.kind == "numeric":
        yield f"target: {target.name} holds numbers; to predict a number set `task: regression` and remove `classes`"
    counts = np.bincount(target_facts.codes)
    rare = [
        f"{target_facts.distinct[code]} ({counts[code]} rows)" for code in np.flatnonzero(counts < MIN_EVALUATION_ROWS)
    ]
    if rare:
        yield f"target: too few rows to train and evaluate on: {', '.join(rare)}; add rows, or merge classes"


def _check_learnable(name: str, target_facts: ColumnFacts) -> None:
    if not target_facts.is_complete:
        raise DataError(
            f"{name}: the target is missing in {target_facts.missing_count:,} of {len(target_facts.values):,} rows",
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
        if not _are_class_numbers(target_facts):
            return None
        return tuple(sorted(int(value) for value in target_facts.distinct))
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
    """Return whether numbers are classes: two integers, or 0 or 1 to k without any rare one.

    A rare number indicates the tail of a count.
    """
    count = len(target_facts.distinct)
    if not target_facts.is_integer or count == 2:
        return target_facts.is_integer
    numbers = np.sort(target_facts.distinct)
    is_consecutive = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == count - 1
    rarest = int(np.bincount(target_facts.codes).min())
    has_no_rare = rarest >= max(MIN_CLASS_ROWS, MIN_CLASS_SHARE * len(target_facts.values))
    return bool(count <= MAX_NUMBERED_CLASSES and is_consecutive and has_no_rare)
