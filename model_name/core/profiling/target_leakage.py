"""Detection of target leakage: columns that predict the target on their own, such as those recorded after it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_name.core.profiling.column_facts import ColumnFacts

MIN_LEAK_ROWS = 100
MAX_LEAK_ROWS = 6_000  # sampled; half of them for fitting, half for scoring
MIN_LEAK_SCORE = 0.98  # R2 of the target's ranks, or balanced accuracy
MAX_LEAF_NODES = 64


def find_leaking_columns(
    facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts, *, is_regression: bool
) -> Iterator[tuple[str, float]]:
    """Find the columns that predict the target nearly perfectly on their own.

    Each column is fitted on one half of the sampled rows and scored on the other.

    Yields:
        Name and score of each such column.
    """
    rows = len(target_facts.values)
    sample = np.random.default_rng(0).permutation(rows)[:MAX_LEAK_ROWS]
    # Ranks, so that one score covers every monotone relation and no outlier dominates.
    truth = pd.Series(target_facts.values[sample]).rank().to_numpy() if is_regression else target_facts.codes[sample]
    train, test = np.split(truth, [len(sample) // 2])
    if rows < MIN_LEAK_ROWS or len(np.unique(train)) < 2 or len(np.unique(test)) < 2:
        return
    scorer = r2_score if is_regression else _mean_recall
    for name, column in facts.items():
        predict = _predict_by_category if column.kind == "category" else _predict_by_tree
        score = float(scorer(test, predict(column, sample, train, is_regression=is_regression)))
        if score >= MIN_LEAK_SCORE:
            yield name, score


def _predict_by_category(
    column: ColumnFacts, sample: NDArray[np.intp], train: NDArray[Any], *, is_regression: bool
) -> NDArray[Any]:
    train_codes, test_codes = np.split(column.codes[sample], [len(train)])
    pairs = pd.DataFrame({"code": train_codes, "truth": train})
    if is_regression:
        by_code, default = pairs.groupby("code")["truth"].mean(), pairs["truth"].mean()
    else:  # the most frequent class of each category; value_counts sorts by count
        by_code = pairs.value_counts().reset_index().drop_duplicates("code").set_index("code")["truth"]
        default = pairs["truth"].mode().iloc[0]
    predicted: NDArray[Any] = pd.Series(test_codes).map(by_code).fillna(default).to_numpy()
    return predicted


def _predict_by_tree(
    column: ColumnFacts, sample: NDArray[np.intp], train: NDArray[Any], *, is_regression: bool
) -> NDArray[Any]:
    train_input, test_input = np.split(_tree_input(column, sample)[:, None], [len(train)])
    params = {"max_leaf_nodes": MAX_LEAF_NODES, "min_samples_leaf": 3, "random_state": 0}
    tree = (
        DecisionTreeRegressor(**params) if is_regression else DecisionTreeClassifier(class_weight="balanced", **params)
    )
    predicted: NDArray[Any] = tree.fit(train_input, train).predict(test_input)
    return predicted


def _tree_input(column: ColumnFacts, sample: NDArray[np.intp]) -> NDArray[np.float32]:
    if column.kind == "datetime":  # a model only uses its hour, weekday and month; but its absence can leak
        return (column.codes[sample] < 0).astype(np.float32)
    values = column.values[sample]
    # Ranks, because a tree computes in float32, in which close or huge values become equal.
    return pd.Series(np.where(np.isinf(values), np.nan, values)).rank(method="dense").to_numpy(np.float32)


def _mean_recall(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Compute the mean recall of the classes with at least three rows; that of rarer ones would be chance."""
    frequent = [label for label, rows in enumerate(np.bincount(truth)) if rows >= 3]
    recalls = [float(np.mean(predicted[truth == label] == label)) for label in frequent]
    return float(np.mean(recalls)) if len(recalls) > 1 else 0.0
