"""What a client or a table notices of another schema."""

from collections.abc import Iterator
from typing import Any, Literal

from model_name.core.decisions.decision import Decision
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.strict_models import FrozenModel

RULES = ("kind", "nullable", "min", "max", "out_of_bounds", "unseen")
SHOWN_VALUES = 20


class Change(FrozenModel):
    """A change of the contract.

    Attributes:
        name: The input, or the part of the schema.
        what: What happened to it.
        words: From what to what.
    """

    name: str
    what: Literal["added", "removed", "changed"]
    words: str


def contract_changes(a: TableSchema, b: TableSchema) -> Iterator[Change]:
    """What a client or a table notices, inputs first."""
    for name in b.inputs:
        if name not in a.inputs:
            yield Change(name=name, what="added", words=f"a {b.inputs[name].kind} input that requests must carry")
    for name, column in a.inputs.items():
        if name not in b.inputs:
            yield Change(name=name, what="removed", words=f"the {column.kind} input is no longer looked at")
        elif words := "; ".join(column_changes(column, b.inputs[name])):
            yield Change(name=name, what="changed", words=words)
    for part, before, after in (
        ("target", a.target.name, b.target.name),
        ("task", a.target.task, b.target.task),
        ("classes", a.classes, b.classes),
        ("time", a.time, b.time),
        ("key", a.key, b.key),
        ("columns that are not in the schema", a.extra, b.extra),
    ):
        if before != after:
            yield Change(name=part, what="changed", words=f"{shown(before)} → {shown(after)}")


def decision_changes(a: Decision | None, b: Decision | None) -> Iterator[Change]:
    """What a client notices of the way in which answers are made of scores."""
    before, after = a or Decision(), b or Decision()
    for name, old, new in (
        ("labels", threshold_words(before), threshold_words(after)),
        ("probabilities", calibration_words(before), calibration_words(after)),
        ("prediction intervals", interval_words(before), interval_words(after)),
    ):
        if old != new:
            yield Change(name=name, what="changed", words=f"{old} → {new}")


def threshold_words(decision: Decision) -> str:
    """From where on a row is called positive."""
    return "the most probable" if decision.threshold is None else f"positive from {decision.threshold:.4g} on"


def calibration_words(decision: Decision) -> str:
    """How probabilities are calibrated."""
    return "as the model gives them" if decision.calibrator is None else f"calibrated ({decision.calibrator.KIND})"


def interval_words(decision: Decision) -> str:
    """Which levels there are."""
    return (
        "none" if decision.intervals is None else "of " + ", ".join(f"{level:g}" for level in decision.intervals.levels)
    )


def column_changes(a: Column, b: Column) -> Iterator[str]:
    """What became of the rules of one column."""
    for rule in RULES:
        before, after = getattr(a, rule), getattr(b, rule)
        if before != after:
            yield f"{rule} {shown(before)} → {shown(after)}"
    if a.values != b.values:
        old, new = a.values or (), b.values or ()
        for word, values in (
            ("categories added", [value for value in new if value not in old]),
            ("categories removed", [value for value in old if value not in new]),
        ):
            if values:
                more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
                yield f"{word}: {', '.join(values[:SHOWN_VALUES])}{more}"
        if set(old) == set(new):
            yield "categories in another order"


def shown(value: Any) -> str:
    """A value of a schema for people."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    )
