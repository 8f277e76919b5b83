"""Comparison of two versions of a model: contract, hyperparameters, features, metrics and feature importances."""

from collections.abc import Iterator, Mapping
from typing import Literal

from model_name.core.formatting import format_number, format_percent, format_range
from model_name.core.metrics import Metric
from model_name.core.versions import CHAMPION
from model_name.reports.artifacts import VersionArtifacts
from model_name.reports.comparison import Comparison, ImportanceChange, MetricChange, ParameterChange, VersionSummary
from model_name.reports.contract_diff import ContractChange, contract_changes, decision_changes
from model_name.reports.feature_figures import importance_shares
from model_name.results import ExplanationResult, PromotionResult


def compare_versions(a: VersionArtifacts, b: VersionArtifacts) -> Comparison:
    """Compare two versions of one model; `b` is the candidate."""
    older, candidate = summarize_version(a), summarize_version(b)
    contract = (
        *contract_changes(a.manifest.table, b.manifest.table),
        *decision_changes(a.manifest.decision, b.manifest.decision),
    )
    parameters = tuple(parameter_changes(a.run.data.params, b.run.data.params))
    metrics = tuple(metric_changes(a, b))
    importances = importance_changes(a.explanation, b.explanation) if have_same_explanation_method(a, b) else ()
    return Comparison(
        name=b.version.name,
        a=older,
        b=candidate,
        sentence=summary_sentence(older, candidate, contract, parameters, metrics),
        contract=contract,
        parameters=parameters,
        features_added=tuple(name for name in candidate.features if name not in older.features),
        features_removed=tuple(name for name in older.features if name not in candidate.features),
        same_rows=have_same_rows(a, b),
        measured=describe_rows(a, b),
        metrics=metrics,
        importances=tuple(importances),
        missing=tuple(missing_artifacts(a, b)),
    )


def summarize_version(artifacts: VersionArtifacts) -> VersionSummary:
    """Summarize one version."""
    version = artifacts.version
    return VersionSummary(
        version=version.version,
        semver=version.semver,
        aliases=version.aliases,
        kind=version.kind,
        created=version.created,
        run_id=version.run_id,
        table=artifacts.tags.get("table", ""),
        held_out=artifacts.held_out_digest,
        rows=artifacts.evaluation.rows if artifacts.evaluation else None,
        features=tuple(artifacts.manifest.features.names),
        bundle_bytes=artifacts.bundle_bytes,
        gate=describe_gate_decision(artifacts.gate),
    )


def describe_gate_decision(gate: PromotionResult | None) -> str:
    """Describe the decision of the gate."""
    if gate is None:
        return "not put through the gate"
    if gate.accepted:
        return f"{'forced' if gate.forced else 'passed'}, became {gate.alias}"
    failed = [check.name for check in gate.checks if not check.passed]
    return f"refused: {', '.join(failed)}"


def parameter_changes(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[ParameterChange]:
    """List the hyperparameters that differ, by name; the kind of the model is one of them."""
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield ParameterChange(name=name, a=a.get(name), b=b.get(name))


def metric_changes(a: VersionArtifacts, b: VersionArtifacts) -> Iterator[MetricChange]:
    """List the metrics that both versions have."""
    if a.evaluation is None or b.evaluation is None:
        return
    before, after = a.evaluation.metrics, b.evaluation.metrics
    if is_champion_of(a, b) and b.evaluation.champion:
        before = b.evaluation.champion.metrics  # on exactly the rows of the candidate
    elif is_champion_of(b, a) and a.evaluation.champion:
        after = a.evaluation.champion.metrics
    for metric in b.evaluation.measures:
        if metric.name in before and metric.name in after:
            low, high = difference_interval(a, b, metric.name)
            yield metric_change(metric, before[metric.name], after[metric.name], low, high)


def is_champion_of(champion: VersionArtifacts, candidate: VersionArtifacts) -> bool:
    """Report whether a version was the champion, and was measured, when the candidate was evaluated."""
    recorded = candidate.evaluation.champion if candidate.evaluation else None
    return recorded is not None and recorded.version == champion.version.version and not recorded.problem


def difference_interval(a: VersionArtifacts, b: VersionArtifacts, metric: str) -> tuple[float | None, float | None]:
    """Return the 95 % interval of b - a if an evaluation measured it on the same rows, else two times None."""
    for champion, candidate, sign in ((a, b, 1), (b, a, -1)):
        if candidate.evaluation and is_champion_of(champion, candidate):
            ends = candidate.evaluation.difference_bounds(CHAMPION, metric)
            if ends is not None:
                low, high = sorted(sign * end for end in ends)
                return low, high
    return None, None


def metric_change(
    metric: Metric, a: float | None, b: float | None, low: float | None = None, high: float | None = None
) -> MetricChange:
    """Compare one metric of both versions; the interval of the difference decides if it is known."""

    def change(better: Literal["a", "b", ""], description: str) -> MetricChange:
        return MetricChange(name=metric.name, a=a, b=b, better=better, low=low, high=high, words=description)

    if a is None or b is None:
        return change("", "not defined on these rows")
    if low is not None and high is not None:
        least, most = (low, high) if metric.greater_is_better else (-high, -low)
        if least <= 0 <= most:
            return change("", f"not significantly different ({format_number(low)} to {format_number(high)})")
        ends = (least, most) if least > 0 else (-most, -least)
        return change("b" if least > 0 else "a", f"{'better' if least > 0 else 'worse'} by {format_range(*ends)}")
    if a == b:
        return change("", "equal")
    is_better = metric.is_better(b, a)
    share = f" ({format_percent(abs(b - a) / abs(a))})" if a else ""
    description = f"{'better' if is_better else 'worse'} by {format_number(abs(b - a))}{share}"
    return change("b" if is_better else "a", description)


def have_same_rows(a: VersionArtifacts, b: VersionArtifacts) -> bool:
    """Report whether both versions were measured on the same held-out rows, as far as the artifacts show."""
    if a.evaluation is None or b.evaluation is None:
        return False
    if is_champion_of(a, b) or is_champion_of(b, a):
        return True
    is_same_digest = bool(a.held_out_digest) and a.held_out_digest == b.held_out_digest
    return is_same_digest and a.evaluation.rows == b.evaluation.rows


def describe_rows(a: VersionArtifacts, b: VersionArtifacts) -> str:
    """Describe the rows that the metrics were measured on."""
    if a.evaluation is None or b.evaluation is None:
        return "The metrics cannot be compared."
    if have_same_rows(a, b):
        rows = a.evaluation.rows if is_champion_of(b, a) else b.evaluation.rows
        return f"Both were measured on the same {rows:,} held-out rows."
    return (
        f"The two were measured on different rows ({a.version.semver} on {a.evaluation.rows:,}, {b.version.semver} on "
        f"{b.evaluation.rows:,}): a difference may come from the rows."
    )


def importance_changes(a: ExplanationResult | None, b: ExplanationResult | None) -> Iterator[ImportanceChange]:
    """List the features by rank in the candidate, then those that only the other version has."""
    before, after = importance_shares(a) if a else {}, importance_shares(b) if b else {}
    for feature in [*after, *(name for name in before if name not in after)]:
        yield ImportanceChange(
            feature=feature,
            a=before.get(feature),
            b=after.get(feature),
            rank_a=1 + list(before).index(feature) if feature in before else None,
            rank_b=1 + list(after).index(feature) if feature in after else None,
        )


def missing_artifacts(a: VersionArtifacts, b: VersionArtifacts) -> Iterator[str]:
    """Describe what could not be compared, and why."""
    for each in (a, b):
        if each.evaluation is None:
            yield f"{each.version.semver} was not evaluated"
        if each.explanation is None:
            yield f"{each.version.semver} was not explained"
    if a.explanation and b.explanation and a.explanation.method != b.explanation.method:
        yield f"one was explained by {a.explanation.method}, the other by {b.explanation.method}"


def have_same_explanation_method(a: VersionArtifacts, b: VersionArtifacts) -> bool:
    """Report whether the importances of both versions are comparable."""
    return a.explanation is not None and b.explanation is not None and a.explanation.method == b.explanation.method


def summary_sentence(
    a: VersionSummary,
    b: VersionSummary,
    contract: tuple[ContractChange, ...],
    parameters: tuple[ParameterChange, ...],
    metrics: tuple[MetricChange, ...],
) -> str:
    """Summarize the comparison in one sentence."""
    changes = f"{len(contract)} changes of the contract" if len(contract) > 1 else "one change of the contract"
    kind = f"a {b.kind} instead of a {a.kind}" if a.kind != b.kind else f"both {b.kind}"
    changed = [change.name for change in parameters if change.name != "kind"]
    recipe = f"{kind}, {len(changed)} hyperparameter{'s' if len(changed) != 1 else ''} changed" if changed else kind
    metric = f"{metrics[0].name} {metrics[0].words}" if metrics else "not compared by metrics"
    return (
        f"{b.semver} against {a.semver}: {changes if contract else 'the same contract'}; {recipe}; {metric}; {b.gate}."
    )
