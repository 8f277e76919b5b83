import numpy as np
import onnxruntime as ort
import pytest
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.models import AutoModel, build_model
from model_name.core.models.explanation import to_probabilities
from model_name.errors import ConfigError, DataError

TREES = {"KIND": "BoostedTrees", "max_iter": 5}
LINE = {"KIND": "LinearModel"}


@pytest.fixture
def checked(make_schema, make_table, task):
    return dataframes.check_frame(make_table(task), make_schema(task)).frame


def test_prediction_is_the_weighted_mean_of_the_members(make_schema, checked, task):
    schema = make_schema(task)
    blend = AutoModel(members=[TREES, LINE], weights=[0.75, 0.25]).fit(schema, checked)
    # given the same members fitted separately
    alone = [build_model(member).fit(schema, checked) for member in (TREES, LINE)]
    scores = [model.score_matrix(model.matrix(checked)) for model in alone]
    # then the blend predicts their mean, in the graph as well
    expected = 0.75 * scores[0] + 0.25 * scores[1]
    np.testing.assert_allclose(blend.score_matrix(blend.matrix(checked)), expected, rtol=1e-6)
    session = ort.InferenceSession(blend.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    (served,) = session.run(["scores"], {"features": blend.matrix(checked)})
    np.testing.assert_allclose(served.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_explanation_is_the_weighted_sum_of_the_members_explanations(make_schema, checked, task):
    blend = AutoModel(members=[TREES, LINE], weights=[0.75, 0.25]).fit(make_schema(task), checked)
    rows = blend.matrix(checked.head(20))
    parts = [to_probabilities(model.explain_matrix(rows)).values for model in blend.get_internal_model()]
    np.testing.assert_allclose(blend.explain_matrix(rows).values, 0.75 * parts[0] + 0.25 * parts[1])
    assert blend.explain(checked.head(20)).scale == ("prediction" if task == "regression" else "probability")


def test_members_use_the_seed_of_the_blend_unless_they_have_their_own(make_schema, make_table):
    checked = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    blend = AutoModel(members=[TREES, TREES | {"random_state": 7}], weights=[0.5, 0.5], random_state=3)
    seeds = [model.random_state for model in blend.fit(make_schema("regression"), checked).get_internal_model()]
    assert seeds == [3, 7]


def test_params_are_described_by_member():
    blend = AutoModel(members=[TREES, LINE], weights=[0.25, 0.75])
    assert blend.describe_params() == {
        "member 1": "75 % LinearModel",
        "member 2": "25 % BoostedTrees: max_iter 5",
        "random_state": 42,
    }


def test_fit_without_members_names_the_jobs_that_search_them(make_schema, checked, task):
    with pytest.raises(ConfigError, match="no members before a search"):
        AutoModel().fit(make_schema(task), checked)


def test_error_in_a_members_fit_is_raised(make_schema, make_table):
    checked = dataframes.check_frame(make_table("multiclass"), make_schema("multiclass")).frame
    with pytest.raises(DataError, match="no row of class"):
        AutoModel(members=[TREES], weights=[1.0]).fit(make_schema("multiclass"), checked[checked["outcome"] != "mid"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"members": [TREES]}, "1 members and 0 weights", id="no weights"),
        pytest.param({"members": [TREES], "weights": [0.5]}, "sum of 1", id="weights that do not add up to 1"),
        pytest.param({"members": [TREES, LINE], "weights": [1.5, -0.5]}, "above 0", id="a negative weight"),
        pytest.param({"members": [{"KIND": "Trees"}], "weights": [1.0]}, "members.0: Trees is not", id="unknown kind"),
        pytest.param(
            {"members": [TREES | {"max_itr": 3}], "weights": [1.0]}, "did you mean max_iter", id="a misspelt key"
        ),
        pytest.param({"members": [{"KIND": "AutoModel"}], "weights": [1.0]}, "a blend itself", id="a blend in a blend"),
    ],
)
def test_inconsistent_blend_is_refused(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        AutoModel(**wrong)
