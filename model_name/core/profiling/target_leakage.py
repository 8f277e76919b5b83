"""Which columns tell the target alone, as those do that were written down after it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_name.core.profiling.column_facts import ColumnFacts

MIN_LEAK_ROWS = 100
MAX_LEAK_ROWS = 6_000  # half to learn on, half to judge on
MIN_LEAK_SCORE = 0.98  # share of the variance of the target's ranks, or balanced accuracy
MAX_LEAF_NODES = 64


def find_leaking_columns(facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts, *, is_regression: bool) -> Iterator[tuple[str, float]]:
    """The columns that predict the target nearly perfectly, and how well: learned on some rows, judged on others."""
    rows = len(target_facts.values)
    sample = np.random.default_rng(0).permutation(rows)[:MAX_LEAK_ROWS]
    # Ranks, so that one measure holds for every monotone relation and no outlier decides.
    truth = pd.Series(target_facts.values[sample]).rank().to_numpy() if is_regression else target_facts.codes[sample]
    learned, judged = np.split(truth, [len(sample) // 2])
    if rows < MIN_LEAK_ROWS or len(np.unique(learned)) < 2 or len(np.unique(judged)) < 2:
        return
    measure = r2_score if is_regression else _mean_recall
    for name, found in facts.items():
        predict = _predict_by_category if found.kind == "category" else _predict_by_tree
        score = float(measure(judged, predict(found, sample, learned, is_regression=is_regression)))
        if score >= MIN_LEAK_SCORE:
            yield name, score


def _predict_by_category(found: ColumnFacts, sample: NDArray[np.intp], learned: NDArray[Any], *, is_regression: bool) -> NDArray[Any]:
    codes, asked = np.split(found.codes[sample], [len(learned)])
    pairs = pd.DataFrame({"code": codes, "truth": learned})
    if is_regression:
        answers, usual = pairs.groupby("code")["truth"].mean(), pairs["truth"].mean()
    else:  # the most frequent class of each category: counts come sorted
        answers = pairs.value_counts().reset_index().drop_duplicates("code").set_index("code")["truth"]
        usual = pairs["truth"].mode().iloc[0]
    predicted: NDArray[Any] = pd.Series(asked).map(answers).fillna(usual).to_numpy()
    return predicted


def _predict_by_tree(found: ColumnFacts, sample: NDArray[np.intp], learned: NDArray[Any], *, is_regression: bool) -> NDArray[Any]:
    numbers, asked = np.split(_tree_input(found, sample)[:, None], [len(learned)])
    shape = {"max_leaf_nodes": MAX_LEAF_NODES, "min_samples_leaf": 3, "random_state": 0}
    tree = DecisionTreeRegressor(**shape) if is_regression else DecisionTreeClassifier(class_weight="balanced", **shape)
    predicted: NDArray[Any] = tree.fit(numbers, learned).predict(asked)
    return predicted


def _tree_input(found: ColumnFacts, sample: NDArray[np.intp]) -> NDArray[np.float32]:
    if found.kind == "datetime":  # a model sees its hour, weekday and month alone; whether it is missing can leak
        return (found.codes[sample] < 0).astype(np.float32)
    values = found.values[sample]
    # Ranks, because a tree computes in float32 and would take near or huge values for equal ones.
    return pd.Series(np.where(np.isinf(values), np.nan, values)).rank(method="dense").to_numpy(np.float32)


def _mean_recall(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """The mean recall of the classes; one of few rows is hit or missed by chance and does not count."""
    frequent = [label for label, rows in enumerate(np.bincount(truth)) if rows >= 3]
    recalls = [float(np.mean(predicted[truth == label] == label)) for label in frequent]
    return float(np.mean(recalls)) if len(recalls) > 1 else 0.0
