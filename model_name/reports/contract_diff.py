"""Changes between two schemas that affect clients or tables."""

from collections.abc import Iterator
from typing import Any, Literal

from model_name.core.decisions.decision import Decision
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.strict_models import FrozenModel

COMPARED_RULES = ("kind", "nullable", "min", "max", "out_of_bounds", "unseen")
MAX_SHOWN_VALUES = 20


class ContractChange(FrozenModel):
    """A change of the contract.

    Attributes:
        name: Name of the input, or of the part of the schema.
        what: Kind of the change.
        words: Description of the change, usually `OLD → NEW`.
    """

    name: str
    what: Literal["added", "removed", "changed"]
    words: str


def contract_changes(a: TableSchema, b: TableSchema) -> Iterator[ContractChange]:
    """List the changes that affect clients or tables, inputs first."""
    for name in b.inputs:
        if name not in a.inputs:
            yield ContractChange(
                name=name, what="added", words=f"a {b.inputs[name].kind} input that requests must carry"
            )
    for name, column in a.inputs.items():
        if name not in b.inputs:
            yield ContractChange(name=name, what="removed", words=f"the {column.kind} input is no longer used")
        elif description := "; ".join(column_changes(column, b.inputs[name])):
            yield ContractChange(name=name, what="changed", words=description)
    for part, before, after in (
        ("target", a.target.name, b.target.name),
        ("task", a.target.task, b.target.task),
        ("classes", a.classes, b.classes),
        ("time", a.time, b.time),
        ("key", a.key, b.key),
        ("columns that are not in the schema", a.extra, b.extra),
    ):
        if before != after:
            yield ContractChange(name=part, what="changed", words=f"{format_value(before)} → {format_value(after)}")


def decision_changes(a: Decision | None, b: Decision | None) -> Iterator[ContractChange]:
    """List the changes in how predictions are derived from scores: threshold, calibration and intervals."""
    before, after = a or Decision(), b or Decision()
    for name, old, new in (
        ("labels", describe_threshold(before), describe_threshold(after)),
        ("probabilities", describe_calibration(before), describe_calibration(after)),
        ("prediction intervals", describe_intervals(before), describe_intervals(after)),
    ):
        if old != new:
            yield ContractChange(name=name, what="changed", words=f"{old} → {new}")


def describe_threshold(decision: Decision) -> str:
    """Describe how the predicted class is chosen."""
    return "the most probable" if decision.threshold is None else f"positive from {decision.threshold:.4g} on"


def describe_calibration(decision: Decision) -> str:
    """Describe how probabilities are calibrated."""
    return "not calibrated" if decision.calibrator is None else f"calibrated ({decision.calibrator.KIND})"


def describe_intervals(decision: Decision) -> str:
    """Describe the levels of the prediction intervals."""
    return (
        "none" if decision.intervals is None else "of " + ", ".join(f"{level:g}" for level in decision.intervals.levels)
    )


def column_changes(a: Column, b: Column) -> Iterator[str]:
    """Describe the changes in the rules of one column."""
    for rule in COMPARED_RULES:
        before, after = getattr(a, rule), getattr(b, rule)
        if before != after:
            yield f"{rule} {format_value(before)} → {format_value(after)}"
    if a.values != b.values:
        old, new = a.values or (), b.values or ()
        for change, values in (
            ("categories added", [value for value in new if value not in old]),
            ("categories removed", [value for value in old if value not in new]),
        ):
            if values:
                more = f" and {len(values) - MAX_SHOWN_VALUES} more" if len(values) > MAX_SHOWN_VALUES else ""
                yield f"{change}: {', '.join(values[:MAX_SHOWN_VALUES])}{more}"
        if set(old) == set(new):
            yield "categories in another order"


def format_value(value: Any) -> str:
    """Format a value of a schema."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    )
