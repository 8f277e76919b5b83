"""Two versions of a model side by side: what they promise, are made of, are worth and look at."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from model_name.core.formatting import format_range, format_number, format_percent, format_bytes
from model_name.core.metrics import Metric
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.io.storage import atomic_write
from model_name.reports.artifacts import Findings
from model_name.reports.contract_diff import Change, contract_changes, decision_changes
from model_name.reports.feature_figures import importance_picture, importance_shares
from model_name.reports.figures import Picture, metric_pair
from model_name.reports.render import render
from model_name.results import ExplanationResult, PromotionResult

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""A title, the names of the columns, and rows of texts."""

SHOWN_FEATURES = 20


class ParameterChange(FrozenModel):
    """A hyperparameter that differs; None where one of the two has none of that name."""

    name: str
    a: str | None
    b: str | None


class MetricChange(FrozenModel):
    """A metric of both.

    Attributes:
        name: The metric.
        a: What the one scores.
        b: What the other scores.
        better: Who is better; empty where they are equal or cannot be told apart.
        low: Lower end of b - a with 95 % confidence, where it is known.
        high: Its upper end.
        words: The same for people.
    """

    name: str
    a: float | None
    b: float | None
    better: Literal["a", "b", ""]
    low: float | None = None
    high: float | None = None
    words: str


class ImportanceChange(FrozenModel):
    """What a feature was to the one and is to the other: its share in all contributions, and its rank from 1."""

    feature: str
    a: float | None
    b: float | None
    rank_a: int | None
    rank_b: int | None

    @property
    def words(self) -> str:
        """`"up 2"`, `"new"`, ..."""
        if self.rank_a is None or self.rank_b is None:
            return "new" if self.rank_a is None else "gone"
        moved = self.rank_a - self.rank_b
        return "same rank" if not moved else f"{'up' if moved > 0 else 'down'} {abs(moved)}"


class Side(FrozenModel):
    """One of the two."""

    version: str
    semver: str
    aliases: LaxTuple[str]
    kind: str
    created: str
    run_id: str
    table: str
    held_out: str
    rows: int | None
    features: LaxTuple[str]
    bundle_bytes: int
    gate: str


class Comparison(FrozenModel):
    """What differs between two versions.

    Attributes:
        name: The model.
        a: The one that is compared with, as a rule the older.
        b: The candidate.
        sentence: All in one sentence.
        contract: What a client or a table notices.
        parameters: Hyperparameters that differ.
        features_added: What only the candidate looks at.
        features_removed: What only the other looks at.
        same_rows: Whether both were measured on the same held-out rows.
        measured: The same for people.
        metrics: Those of both; none where one was not evaluated.
        importances: By their rank in the candidate; none where one was not explained.
        missing: What could not be compared, and why.
    """

    name: str
    a: Side
    b: Side
    sentence: str
    contract: LaxTuple[Change]
    parameters: LaxTuple[ParameterChange]
    features_added: LaxTuple[str]
    features_removed: LaxTuple[str]
    same_rows: bool
    measured: str
    metrics: LaxTuple[MetricChange]
    importances: LaxTuple[ImportanceChange]
    missing: LaxTuple[str]


def compare(a: Findings, b: Findings) -> Comparison:
    """What differs between two versions of one model; `b` is the candidate."""
    sides = side(a), side(b)
    contract = (
        *contract_changes(a.manifest.table, b.manifest.table),
        *decision_changes(a.manifest.decision, b.manifest.decision),
    )
    parameters = tuple(parameter_changes(a.run.data.params, b.run.data.params))
    metrics = tuple(metric_changes(a, b))
    return Comparison(
        name=b.version.name,
        a=sides[0],
        b=sides[1],
        sentence=sentence(sides, contract, parameters, metrics),
        contract=contract,
        parameters=parameters,
        features_added=tuple(name for name in sides[1].features if name not in sides[0].features),
        features_removed=tuple(name for name in sides[0].features if name not in sides[1].features),
        same_rows=are_same_rows(a, b),
        measured=measured(a, b),
        metrics=metrics,
        importances=tuple(importance_changes(a.explanation, b.explanation)) if are_explained_alike(a, b) else (),
        missing=tuple(missing(a, b)),
    )


def side(found: Findings) -> Side:
    """One version in short."""
    version = found.version
    return Side(
        version=version.version,
        semver=version.semver,
        aliases=version.aliases,
        kind=version.kind,
        created=version.created,
        run_id=version.run_id,
        table=found.tags.get("table", ""),
        held_out=found.held_out,
        rows=found.evaluation.rows if found.evaluation else None,
        features=tuple(found.manifest.features.names),
        bundle_bytes=found.bundle_bytes,
        gate=decision(found.gate),
    )


def decision(gate: PromotionResult | None) -> str:
    """What the gate said, in words."""
    if gate is None:
        return "not put through the gate"
    if gate.accepted:
        return f"{'forced' if gate.forced else 'passed'}, became {gate.alias}"
    failed = [check.name for check in gate.checks if not check.passed]
    return f"refused: {', '.join(failed)}"


def parameter_changes(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[ParameterChange]:
    """The hyperparameters that differ, by name; the kind is among them."""
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield ParameterChange(name=name, a=a.get(name), b=b.get(name))


def metric_changes(a: Findings, b: Findings) -> Iterator[MetricChange]:
    """The metrics that both were measured by."""
    if a.evaluation is None or b.evaluation is None:
        return
    before, after = a.evaluation.metrics, b.evaluation.metrics
    if is_champion_of(a, b) and b.evaluation.champion:
        before = b.evaluation.champion.metrics  # on exactly the rows of the candidate
    elif is_champion_of(b, a) and a.evaluation.champion:
        after = a.evaluation.champion.metrics
    for metric in b.evaluation.measures:
        if metric.name in before and metric.name in after:
            low, high = interval(a, b, metric.name)
            yield metric_change(metric, before[metric.name], after[metric.name], low, high)


def is_champion_of(champion: Findings, candidate: Findings) -> bool:
    """Whether the one was in charge, and was measured, when the other was evaluated."""
    found = candidate.evaluation.champion if candidate.evaluation else None
    return found is not None and found.version == champion.version.version and not found.problem


def interval(a: Findings, b: Findings, metric: str) -> tuple[float | None, float | None]:
    """Where b - a lies with 95 % confidence, as far as an evaluation has measured it on the same rows."""
    for champion, candidate, sign in ((a, b, 1), (b, a, -1)):
        if is_champion_of(champion, candidate):
            for found in candidate.detail.differences:
                if found.against == "champion" and found.metric == metric:
                    low, high = sorted((sign * found.low, sign * found.high))
                    return low, high
    return None, None


def metric_change(
    metric: Metric, a: float | None, b: float | None, low: float | None = None, high: float | None = None
) -> MetricChange:
    """One metric of both, and who is better."""

    def change(better: Literal["a", "b", ""], words: str) -> MetricChange:
        return MetricChange(name=metric.name, a=a, b=b, better=better, low=low, high=high, words=words)

    if a is None or b is None:
        return change("", "not defined on these rows")
    if low is not None and high is not None:
        least, most = (low, high) if metric.greater_is_better else (-high, -low)
        if least <= 0 <= most:
            return change("", f"cannot be told apart ({format_number(low)} to {format_number(high)})")
        ends = (least, most) if least > 0 else (-most, -least)
        return change("b" if least > 0 else "a", f"{'better' if least > 0 else 'worse'} by {format_range(*ends)}")
    if a == b:
        return change("", "equal")
    is_better = metric.is_better(b, a)
    share = f" ({format_percent(abs(b - a) / abs(a))})" if a else ""
    return change("b" if is_better else "a", f"{'better' if is_better else 'worse'} by {format_number(abs(b - a))}{share}")


def are_same_rows(a: Findings, b: Findings) -> bool:
    """Whether both were measured on the same held-out rows, as far as it was recorded."""
    if a.evaluation is None or b.evaluation is None:
        return False
    if is_champion_of(a, b) or is_champion_of(b, a):
        return True
    return bool(a.held_out) and a.held_out == b.held_out and a.evaluation.rows == b.evaluation.rows


def measured(a: Findings, b: Findings) -> str:
    """What the metrics were measured on."""
    if a.evaluation is None or b.evaluation is None:
        return "The metrics cannot be compared."
    if are_same_rows(a, b):
        rows = a.evaluation.rows if is_champion_of(b, a) else b.evaluation.rows
        return f"Both were measured on the same {rows:,} held-out rows."
    return (
        f"The two were measured on different rows ({a.version.semver} on {a.evaluation.rows:,}, {b.version.semver} on "
        f"{b.evaluation.rows:,}): a difference may come from the rows."
    )


def importance_changes(a: ExplanationResult | None, b: ExplanationResult | None) -> Iterator[ImportanceChange]:
    """The features by their rank in the candidate, then those that only the other has."""
    before, after = importance_shares(a) if a else {}, importance_shares(b) if b else {}
    for feature in [*after, *(name for name in before if name not in after)]:
        yield ImportanceChange(
            feature=feature,
            a=before.get(feature),
            b=after.get(feature),
            rank_a=1 + list(before).index(feature) if feature in before else None,
            rank_b=1 + list(after).index(feature) if feature in after else None,
        )


def missing(a: Findings, b: Findings) -> Iterator[str]:
    """What could not be compared, and why."""
    for found in (a, b):
        if found.evaluation is None:
            yield f"{found.version.semver} was not evaluated"
        if found.explanation is None:
            yield f"{found.version.semver} was not explained"
    if a.explanation and b.explanation and a.explanation.method != b.explanation.method:
        yield f"one was explained by {a.explanation.method}, the other by {b.explanation.method}"


def are_explained_alike(a: Findings, b: Findings) -> bool:
    """Whether the importances of both mean the same."""
    return a.explanation is not None and b.explanation is not None and a.explanation.method == b.explanation.method


def sentence(
    sides: tuple[Side, Side],
    contract: tuple[Change, ...],
    parameters: tuple[ParameterChange, ...],
    metrics: tuple[MetricChange, ...],
) -> str:
    """All in one sentence, for someone who reads no further."""
    a, b = sides
    promises = f"{len(contract)} changes of the contract" if len(contract) > 1 else "one change of the contract"
    kind = f"a {b.kind} instead of a {a.kind}" if a.kind != b.kind else f"both {b.kind}"
    changed = [change.name for change in parameters if change.name != "kind"]
    made = f"{kind}, {len(changed)} hyperparameter{'s' if len(changed) != 1 else ''} changed" if changed else kind
    worth = f"{metrics[0].name} {metrics[0].words}" if metrics else "not compared by metrics"
    return f"{b.semver} against {a.semver}: {promises if contract else 'the same contract'}; {made}; {worth}; {b.gate}."


def tables(found: Comparison) -> list[Table]:
    """The comparison as tables of texts, for a terminal and for the page; those without rows are left out."""
    a, b = f"{found.a.semver} (a)", f"{found.b.semver} (b)"
    drawn: list[Table] = [
        ("The two", ("", a, b), side_rows(found)),
        ("Contract", ("what", "", "from → to"), [(row.name, row.what, row.words) for row in found.contract]),
        ("Hyperparameters", ("name", a, b), [(row.name, row.a or "–", row.b or "–") for row in found.parameters]),
        (
            "Features",
            ("feature", ""),
            [
                *((name, "added") for name in found.features_added),
                *((name, "removed") for name in found.features_removed),
            ],
        ),
        (
            "Metrics on held-out rows",
            ("metric", a, b, "b is"),
            [(row.name, format_number(row.a), format_number(row.b), row.words) for row in found.metrics],
        ),
        (
            "What they look at (share of all contributions)",
            ("feature", a, b, "rank"),
            [(row.feature, share(row.a), share(row.b), row.words) for row in found.importances[:SHOWN_FEATURES]],
        ),
    ]
    return [table for table in drawn if table[2]]


def side_rows(found: Comparison) -> list[tuple[str, ...]]:
    """What is said of each of the two."""
    sides = (found.a, found.b)
    rows = {
        "version": [one.version for one in sides],
        "called": [", ".join(one.aliases) or "–" for one in sides],
        "kind": [one.kind for one in sides],
        "made": [one.created[:19] for one in sides],
        "table": [Path(one.table).name or "–" for one in sides],
        "held-out rows": ["not evaluated" if one.rows is None else f"{one.rows:,}" for one in sides],
        "features": [str(len(one.features)) for one in sides],
        "bundle": [format_bytes(one.bundle_bytes) for one in sides],
        "gate": [one.gate for one in sides],
    }
    return [(name, *values) for name, values in rows.items()]


def share(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else format_percent(value)


def write_page(a: Findings, b: Findings, found: Comparison, path: str) -> None:
    """Write the comparison as a page of its own.

    Raises:
        StorageError: It cannot be written.
    """
    page = render("diff.html", found=found, tables=tables(found), pictures=list(comparison_pictures(a, b, found)))
    with atomic_write(path) as file:
        file.write(page.encode())


def comparison_pictures(a: Findings, b: Findings, found: Comparison) -> Iterator[Picture]:
    """The metrics and the importances of both."""
    changes = {row.name: row for row in found.metrics}
    for metric in b.evaluation.measures if b.evaluation else ():
        if change := changes.get(metric.name):
            picture = metric_pair(metric, {found.a.semver: change.a, found.b.semver: change.b})
            if picture is not None:
                yield picture
    if a.explanation and b.explanation and found.importances:
        yield importance_picture(b.explanation, a.explanation, found.a.semver)
