"""Tables about a hyperparameter search for the report of a version."""

from collections.abc import Iterator
from typing import Any

from model_name.core.formatting import format_number
from model_name.core.metrics import Metric
from model_name.reports.search_run import SearchRun


def fold_rows(search: SearchRun, metric: Metric) -> list[dict[str, Any]]:
    """Return one row per fold: score of the first trial, and of the selected hyperparameters."""
    trials = search.trials[search.trials["score"].notna()]
    if not len(trials):
        return []
    scores = trials["score"].astype(float)
    first, best = trials.iloc[0], trials.iloc[int(scores.argmax() if metric.greater_is_better else scores.argmin())]
    columns = {"mean": "score"} | {
        f"fold {name.removeprefix('fold_')}": name for name in trials.columns if name.startswith("fold_")
    }
    selected = (search.best.score, *search.best.fold_scores) if search.best else tuple(best[list(columns.values())])
    return [
        {"name": label, "own": first[column], "best": score}
        for (label, column), score in zip(columns.items(), selected, strict=True)
    ]


def kind_rows(search: SearchRun, metric: Metric) -> Iterator[dict[str, Any]]:
    """Return one row per kind of model that a search over kinds has tried."""
    if not search.is_over_kinds:
        return
    for kind, trials in search.trials.groupby("param_KIND", sort=False):
        scores = trials["score"].dropna().astype(float)
        best = (scores.max() if metric.greater_is_better else scores.min()) if len(scores) else None
        yield {"kind": kind, "trials": len(trials), "unscored": len(trials) - len(scores), "best": best}


def member_rows(search: SearchRun) -> Iterator[dict[str, Any]]:
    """Return one row per member of the blend that a search over kinds has selected, the largest weight first."""
    if not search.is_over_kinds or search.best is None:
        return
    members = zip(search.best.params["members"], search.best.params["weights"], strict=True)
    for member, weight in sorted(members, key=lambda pair: -pair[1]):
        params = [f"{name} {format_number(value) if type(value) is float else value}" for name, value in member.items()]
        yield {"kind": member["KIND"], "params": ", ".join(params[1:]) or "its defaults", "weight": weight}


def count_unscored(search: SearchRun) -> dict[str, int]:
    """Count the trials without a score by reason: they failed, were stopped or would have taken too long."""
    if "reason" not in search.trials:
        return {}
    reasons = search.trials["reason"][search.trials["score"].isna()]
    return {str(reason): int(count) for reason, count in reasons.value_counts(sort=False).items()}
