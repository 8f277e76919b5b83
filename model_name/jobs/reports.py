"""One self-contained page about a version: verdict, metrics, gate, weak spots, curves, search, data and lineage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import fsspec
import mlflow
from pydantic import Field

import model_name
from model_name.core.formatting import format_range, format_number, format_percent
from model_name.core.metrics import Metric
from model_name.core.schemas.columns import Column
from model_name.core.versions import LATEST, Ref
from model_name.errors import NotFoundError
from model_name.io.configs import exists
from model_name.io.registries import Version
from model_name.io.storage import atomic_write
from model_name.jobs.base import Job, Result
from model_name.jobs.evaluations import CONSTANT, EVALUATION, EvaluationResult, passes
from model_name.jobs.explanations import ExplanationResult
from model_name.jobs.preparation import PreparationResult, findings_place
from model_name.jobs.promotion import PromotionResult
from model_name.reports import feature_figures, figures
from model_name.reports.artifacts import (
    Detail,
    Difference,
    Findings,
    Search,
    explanation_of,
    read_findings,
    search_of,
)
from model_name.reports.diff import importance_changes
from model_name.reports.render import render_page
from model_name.serving.bundle import ColumnProfile
from model_name.serving.model_card.descriptions import describe_profile

REPORT = "report.html"
CHAMPION = "champion"  # what an evaluation calls the one that it compared with


class ReportResult(Result):
    """A version in one document.

    Attributes:
        version: Its number.
        semver: Its semantic version.
        alias: What it is called now: champion, challenger, or nothing.
        metrics: What it scores on the held-out rows.
        references: What a constant and default boosted trees score there.
        gate: What the gate decided, if it was asked.
        bundle: The folder of its bundle.
        report: The page.
    """

    version: str
    semver: str
    alias: str
    metrics: dict[str, float | None]
    references: dict[str, dict[str, float | None]]
    gate: dict[str, Any]
    bundle: str
    report: str


class ReportJob(Job):
    """Write the page about a version from what the other jobs left in its run.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        path: Where to write it; by default `BUILD/reports/NAME-VERSION.html`.
    """

    KIND: Literal["ReportJob"] = "ReportJob"
    ref: Ref = LATEST
    path: str = Field("", pattern=r"^$|\.html$")

    def run(self) -> ReportResult:
        """As of `Job`.

        Raises:
            NotFoundError: There is no such version, or it was not evaluated.
        """
        version = self.registry.resolve(self.ref)
        bundle = self._bundle(version)
        findings = read_findings(self.registry, version, bundle)
        evaluation, gate = findings.evaluation, findings.gate
        if evaluation is None:
            raise NotFoundError(
                f"{version.title} has no {EVALUATION}, it was not evaluated", hint="run the EvaluationsJob for it first"
            )
        page = report(findings, evaluation, self._before(evaluation), search_of(findings.run), self._prepared())
        path = self.path or f"{self.build.rstrip('/')}/reports/{self.name}-{version.version}.html"
        with atomic_write(path) as file:
            file.write(page.encode())
        with self.mlflow.run("report", experiment=self.name, run_id=version.run_id):
            mlflow.log_text(page, REPORT)
        self.alerts.notify("reported", path)
        return ReportResult(
            accepted=gate.accepted if gate else True,
            version=version.version,
            semver=version.semver,
            alias=gate.alias if gate else "",
            metrics=evaluation.metrics,
            references=evaluation.references,
            gate=gate.model_dump(mode="json") if gate else {},
            bundle=str(bundle),
            report=path,
        )

    def _bundle(self, version: Version) -> Path:
        """The bundle that training left here, or else a copy from the registry."""
        place = Path(self.build) / "bundles" / self.name / version.version
        return place if place.is_dir() else self.registry.download_bundle(version.version)

    def _before(self, evaluation: EvaluationResult) -> ExplanationResult | None:
        """What the champion looks at that the version was compared with."""
        champion = evaluation.champion and self.registry.find_version(evaluation.champion.version)
        return explanation_of(self.registry, champion) if champion else None

    def _prepared(self) -> PreparationResult | None:
        place = findings_place(self.table.path)
        if not exists(place):
            return None
        with fsspec.open(place, "rt") as file:
            return PreparationResult.model_validate_json(file.read())


def report(
    findings: Findings,
    evaluation: EvaluationResult,
    before: ExplanationResult | None = None,
    search: Search | None = None,
    prepared: PreparationResult | None = None,
) -> str:
    """The page.

    Args:
        findings: About the version.
        evaluation: That of the findings.
        before: What the champion looks at that it was compared with; counts if it was explained by the same method.
        search: Where the hyperparameters come from.
        prepared: What became of the table.
    """
    manifest, detail, explanation = findings.manifest, findings.detail, findings.explanation
    metric = evaluation.measures[0]
    champion = champion_name(evaluation, findings.gate)
    before = before if before and explanation and before.method == explanation.method else None
    return render_page(
        "report.html",
        champion=champion,
        verdict=verdict(findings.version, evaluation, detail, findings.gate),
        findings=findings,
        manifest=manifest,
        evaluation=evaluation,
        detail=detail,
        gate=findings.gate,
        explanation=explanation,
        prepared=prepared,
        search=search,
        metric=metric,
        rows=metric_rows(evaluation, detail),
        metric_figures=shown(figures.difference_figure(detail), *figures.metric_figures(evaluation, detail)),
        slice_pictures=shown(figures.slice_figure(evaluation, detail)),
        curves=shown(*figures.curve_figures(manifest.table, detail), figures.learning_curve_figure(detail, metric)),
        search_pictures=shown(figures.search_figure(search) if search else None),
        folds=fold_rows(search, metric) if search else [],
        kinds=list(kind_rows(search, metric)) if search else [],
        members=list(member_rows(search)) if search else [],
        unscored=unscored(search) if search else {},
        explanation_pictures=shown(
            feature_figures.importance_figure(explanation, before, f"the {champion}") if explanation else None,
            feature_figures.beeswarm_figure(findings),
            *feature_figures.dependence_figures(findings),
        ),
        importances=list(importance_changes(before, explanation)) if explanation else [],
        is_compared=before is not None,
        columns=list(column_rows(findings, prepared)),
        code=model_name.__version__,
    )


def shown(*found: figures.Figure | None) -> list[figures.Figure]:
    """The pictures that there are."""
    return [figure for figure in found if figure is not None]


def verdict(version: Version, evaluation: EvaluationResult, detail: Detail, gate: PromotionResult | None) -> str:
    """One sentence for someone who reads no further."""
    metric = evaluation.measures[0]
    interval = detail.intervals.get(metric.name)
    certain = f" (95 % interval {format_range(interval.low, interval.high)})" if interval else ""
    worth = f"{metric.name} {format_number(evaluation.metrics[metric.name])}{certain} on {evaluation.rows:,} held-out rows"
    compared = ", ".join(comparisons(evaluation, detail, champion_name(evaluation, gate)))
    return f"{version.name} {evaluation.semver} {decided(version, gate)}: {worth}{'; ' if compared else ''}{compared}."


def decided(version: Version, gate: PromotionResult | None) -> str:
    """What became of a version."""
    if gate is None:
        return "was not put through the gate"
    if not gate.accepted:
        return "was refused by the gate"
    force = " by force, against its checks" if gate.forced else ""
    return f"{'is' if gate.alias in version.aliases else 'was'} the {gate.alias}{force}"


def champion_name(evaluation: EvaluationResult, gate: PromotionResult | None) -> str:
    """What to call the champion that it was compared with; a version that was promoted took its place."""
    if evaluation.champion is None:
        return ""
    return f"{'previous champion' if gate and gate.accepted else 'champion'} {evaluation.champion.semver}"


def comparisons(evaluation: EvaluationResult, detail: Detail, champion: str) -> Iterator[str]:
    """`"better than X by a to b"`, the champion first; without an interval, as a share of X's value."""
    metric = evaluation.measures[0]
    called = {CONSTANT: "a constant", CHAMPION: f"the {champion}"}
    scores = {who: found[metric.name] for who, found in evaluation.references.items()}
    if evaluation.champion is not None and not evaluation.champion.problem:
        scores = {CHAMPION: evaluation.champion.metrics[metric.name]} | scores
    known = {found.against: found for found in detail.differences if found.metric == metric.name}
    for who, score in scores.items():
        name = called.get(who, who)
        words = told(metric, known[who], name) if who in known else ""
        if words := words or compared_with(metric, evaluation.metrics[metric.name], score, name):
            yield words


def told(metric: Metric, found: Difference, who: str) -> str:
    """A difference with its interval, in words."""
    gains = (found.low, found.high) if metric.greater_is_better else (-found.high, -found.low)
    if gains[0] > 0:
        return f"better than {who} by {format_range(*gains)}"
    if gains[1] < 0:
        return f"worse than {who} by {format_range(-gains[1], -gains[0])}"
    if found.low == found.high == 0:
        return f"equal to {who}"
    return f"cannot be told apart from {who} (difference {format_range(found.low, found.high)})"


def compared_with(metric: Metric, value: float | None, other: float | None, who: str) -> str:
    """`"12 % better than X"`, as a share of X's value."""
    if value is None or other is None or other == 0:
        return ""
    share = abs(value - other) / abs(other)
    if share < 0.0005:  # would be printed as 0.0 %
        return f"equal to {who}"
    return f"{format_percent(share)} {'better' if metric.is_better(value, other) else 'worse'} than {who}"


def metric_rows(evaluation: EvaluationResult, detail: Detail) -> list[dict[str, Any]]:
    """The metrics table: one row a metric, one column a model."""
    rows = []
    for metric in evaluation.measures:
        value = evaluation.metrics[metric.name]
        rows.append(
            {
                "name": metric.name,
                "arrow": "↑" if metric.greater_is_better else "↓",
                "direction": "higher is better" if metric.greater_is_better else "lower is better",
                "value": value,
                "interval": detail.intervals.get(metric.name),
                "threshold": metric.threshold,
                "passed": passes(metric, value),
                "champion": evaluation.champion.metrics.get(metric.name) if evaluation.champion else None,
                "references": {who: scores[metric.name] for who, scores in evaluation.references.items()},
            }
        )
    return rows


def fold_rows(search: Search, metric: Metric) -> list[dict[str, Any]]:
    """The folds of the search: where it began and what it chose, side by side."""
    trials = search.trials[search.trials["score"].notna()]
    if not len(trials):
        return []
    scores = trials["score"].astype(float)
    own, best = trials.iloc[0], trials.iloc[int(scores.argmax() if metric.greater_is_better else scores.argmin())]
    names = {"mean": "score"} | {
        f"fold {name.removeprefix('fold_')}": name for name in trials.columns if name.startswith("fold_")
    }
    chosen = (search.best.score, *search.best.fold_scores) if search.best else tuple(best[list(names.values())])
    return [
        {"name": words, "own": own[name], "best": value}
        for (words, name), value in zip(names.items(), chosen, strict=True)
    ]


def kind_rows(search: Search, metric: Metric) -> Iterator[dict[str, Any]]:
    """One row a kind of model that a search over kinds has tried."""
    if not search.is_over_kinds:
        return
    for kind, trials in search.trials.groupby("param_KIND", sort=False):
        scores = trials["score"].dropna().astype(float)
        best = (scores.max() if metric.greater_is_better else scores.min()) if len(scores) else None
        yield {"kind": kind, "trials": len(trials), "unscored": len(trials) - len(scores), "best": best}


def member_rows(search: Search) -> Iterator[dict[str, Any]]:
    """One row a member of the blend that a search over kinds chose, the heaviest first."""
    if not search.is_over_kinds or search.best is None:
        return
    found = zip(search.best.params["members"], search.best.params["weights"], strict=True)
    for member, weight in sorted(found, key=lambda one: -one[1]):
        words = [f"{name} {format_number(value) if type(value) is float else value}" for name, value in member.items()]
        yield {"kind": member["KIND"], "words": ", ".join(words[1:]) or "its defaults", "weight": weight}


def unscored(search: Search) -> dict[str, int]:
    """Why trials have no score, and how many: they failed, were stopped or would have taken too long."""
    if "reason" not in search.trials:
        return {}
    reasons = search.trials["reason"][search.trials["score"].isna()]
    return {str(reason): int(count) for reason, count in reasons.value_counts(sort=False).items()}


def column_rows(findings: Findings, prepared: PreparationResult | None) -> Iterator[dict[str, Any]]:
    """The data table: one row an input."""
    for name, column in findings.manifest.table.inputs.items():
        profile = findings.manifest.profile[name]
        yield {
            "name": name,
            "kind": column.kind,
            "description": column.description,
            "missing": profile.missing,
            "spark": feature_figures.sparkline(name, profile),
            "words": column_words(name, column, profile, prepared),
        }


def column_words(name: str, column: Column, profile: ColumnProfile, prepared: PreparationResult | None) -> str:
    """What a column holds, unless nobody may know."""
    if column.sensitive:
        return "sensitive, its values are not shown"
    return describe_profile(column, profile) or range_words(name, prepared)


def range_words(name: str, prepared: PreparationResult | None) -> str:
    """From when to when, in the whole table."""
    first, last = prepared.ranges.get(name, ("", "")) if prepared else ("", "")
    return f"{moment(first)} … {moment(last)} (whole table)" if first else ""


def moment(text: str) -> str:
    """A moment for people, to the minute."""
    return text[:16].replace("T", " ").removesuffix(" 00:00")
