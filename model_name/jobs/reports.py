"""One self-contained page about a version: verdict, metrics, gate, explanations, data, lineage."""

import json
from pathlib import Path
from typing import Any, Literal

import jinja2
import mlflow
from pydantic import Field

import model_name
from model_name.core.metrics import Metric
from model_name.core.versions import LATEST
from model_name.errors import NotFoundError
from model_name.io.configs import exists
from model_name.io.datasets import replacing
from model_name.io.registries import Version
from model_name.jobs.base import Job, Result
from model_name.jobs.evaluations import CONSTANT, EVALUATION, EvaluationResult, passes
from model_name.jobs.explanations import EXPLANATION, ExplanationResult
from model_name.jobs.preparation import PreparationResult, findings_place
from model_name.jobs.promotion import GATE, PromotionResult
from model_name.serving.bundle import Manifest, read_manifest

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
SHOWN_FEATURES = 20


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
    ref: str = LATEST
    path: str = Field("", pattern=r"^$|\.html$")

    def run(self) -> ReportResult:
        """As of `Job`.

        Raises:
            NotFoundError: There is no such version, or it was not evaluated.
        """
        version = self.registry.resolve(self.ref)
        evaluation = EvaluationResult.model_validate_json(self._text(version, EVALUATION))
        gate = self._gate(version)
        bundle = self._bundle(version)
        manifest = read_manifest(bundle)
        page = render(
            "report.html",
            verdict=verdict(self.name, evaluation, gate),
            manifest=manifest,
            evaluation=evaluation,
            gate=gate,
            explanation=self._explanation(version),
            prepared=self._prepared(),
            run=mlflow.get_run(version.run_id),
            version=version,
            rows=metric_rows(evaluation),
            columns=column_rows(manifest),
            code=model_name.__version__,
            top=SHOWN_FEATURES,
        )
        path = self.path or f"{self.build.rstrip('/')}/reports/{self.name}-{version.version}.html"
        with replacing(path) as file:
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

    def _text(self, version: Version, path: str) -> str:
        return self.registry.artifact(version, path).read_text(encoding="utf-8")

    def _explanation(self, version: Version) -> ExplanationResult | None:
        try:
            return ExplanationResult.model_validate_json(self._text(version, EXPLANATION))
        except NotFoundError:
            return None

    def _gate(self, version: Version) -> PromotionResult | None:
        try:
            return PromotionResult.model_validate_json(self._text(version, GATE))
        except NotFoundError:
            return None

    def _bundle(self, version: Version) -> Path:
        """The bundle that training left here, or else a copy from the registry."""
        place = Path(self.build) / "bundles" / self.name / version.version
        return place if place.is_dir() else self.registry.bundle(version.version)

    def _prepared(self) -> PreparationResult | None:
        place = findings_place(self.table.path)
        if not exists(place):
            return None
        import fsspec

        with fsspec.open(place, "rt") as file:
            return PreparationResult.model_validate_json(file.read())


def verdict(name: str, evaluation: EvaluationResult, gate: PromotionResult | None) -> str:
    """One sentence for someone who reads no further."""
    metric = evaluation.measures[0]
    value = evaluation.metrics[metric.name]
    decided = "was not put through the gate"
    if gate is not None:
        decided = f"is the {gate.alias}" if gate.accepted else "was refused by the gate"
        decided += " by force, against its checks" if gate.forced else ""
    sentence = (
        f"{name} {evaluation.semver} {decided}: {metric.name} {number(value)} on {evaluation.rows:,} held-out rows"
    )
    compared = [
        compared_with(metric, value, scores[metric.name], f"{'a constant' if who == CONSTANT else who}")
        for who, scores in evaluation.references.items()
    ]
    champion = evaluation.champion
    if champion is not None and not champion.problem:
        compared.insert(
            0, compared_with(metric, value, champion.metrics[metric.name], f"the champion before, {champion.semver}")
        )
    return f"{sentence}; {', '.join(filter(None, compared))}."


def compared_with(metric: Metric, value: float | None, other: float | None, who: str) -> str:
    """`"12 % better than X"`, as a share of X's value."""
    if value is None or other is None or other == 0:
        return ""
    share = abs(value - other) / abs(other)
    if share < 0.0005:  # would be printed as 0.0 %
        return f"equal to {who}"
    return f"{share:.1%} {'better' if metric.is_better(value, other) else 'worse'} than {who}"


def metric_rows(evaluation: EvaluationResult) -> list[dict[str, Any]]:
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
                "threshold": metric.threshold,
                "passed": passes(metric, value),
                "champion": evaluation.champion.metrics.get(metric.name) if evaluation.champion else None,
                "references": {who: scores[metric.name] for who, scores in evaluation.references.items()},
            }
        )
    return rows


def column_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """The data table: one row an input."""
    rows = []
    for name, column in manifest.table.inputs.items():
        profile = manifest.profile[name]
        words = ""
        if profile.quantiles:
            middle = profile.quantiles[len(profile.quantiles) // 2]
            words = f"{number(profile.quantiles[0])} … {number(middle)} … {number(profile.quantiles[-1])}"
        elif profile.shares:
            first = list(profile.shares.items())[:3]
            words = ", ".join(f"{value} {share:.0%}" for value, share in first)
            words += f", {len(profile.shares) - 3} more" if len(profile.shares) > 3 else ""
        rows.append({"name": name, "kind": column.kind, "missing": profile.missing, "words": words})
    return rows


def number(value: float | None) -> str:
    """A figure for people: four digits that count."""
    return "–" if value is None else f"{value:,.4g}"


def render(template: str, **context: Any) -> str:
    """A page from its template; everything in the context is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["compact"] = lambda value: json.dumps(value, sort_keys=True)
    page: str = environment.get_template(template).render(**context)
    return page
