import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.models import BoostedTrees, ConstantModel
from model_name.core.versions import Recipe, Semver, next_semver

NUMBERS = st.integers(0, 10**6)
SEMVERS = st.builds(Semver, major=NUMBERS, minor=NUMBERS, patch=NUMBERS)
SAME = Recipe(contract="c", model="m")


@given(SEMVERS)
def test_version_round_trips_through_text(version):
    assert Semver.parse(str(version)) == version


@given(st.text(max_size=12) | st.from_regex(r"\d+\.\d+\.\d+\s?"))
def test_parsed_text_is_formatted_unchanged(text):
    try:
        formatted = str(Semver.parse(text))
    except ValueError as err:
        formatted = str(err).removesuffix(" is not of the form MAJOR.MINOR.PATCH")
        text = repr(text)
    assert formatted == text


@pytest.mark.parametrize("text", ["1.2", "v1.2.3", "1.2.3-rc1", "01.2.3", "1.2.3\n", " 1.2.3", "1.2.1٢", ""])
def test_invalid_version_is_refused(text):
    with pytest.raises(ValueError, match=r"MAJOR.MINOR.PATCH"):
        Semver.parse(text)


@given(SEMVERS, SEMVERS)
def test_versions_sort_numerically(one, other):
    assert (one.sort_key < other.sort_key) == (
        (one.major, one.minor, one.patch) < (other.major, other.minor, other.patch)
    )


@pytest.mark.parametrize(
    ("history", "recipe", "expected"),
    [
        pytest.param([], SAME, "1.0.0", id="the first"),
        pytest.param([("1.2.3", SAME)], SAME, "1.2.4", id="the same recipe on new data"),
        pytest.param([("1.2.3", SAME)], Recipe(contract="c", model="n"), "1.3.0", id="another model"),
        pytest.param([("1.2.3", SAME)], Recipe(contract="d", model="m"), "2.0.0", id="another contract"),
        pytest.param([("1.2.3", SAME)], Recipe(contract="d", model="n"), "2.0.0", id="both"),
        pytest.param([("1.10.0", SAME), ("1.9.0", SAME)], SAME, "1.10.1", id="after the highest, not the last"),
        pytest.param(
            [("1.0.0", SAME), ("2.0.0", Recipe(contract="d", model="m"))], SAME, "3.0.0", id="back to an older contract"
        ),
    ],
)
def test_next_version_depends_on_the_change(history, recipe, expected):
    past = [(Semver.parse(text), earlier) for text, earlier in history]
    assert str(next_semver(past, recipe)) == expected


@given(st.lists(st.tuples(SEMVERS, st.sampled_from("ab"), st.sampled_from("ab")), max_size=5))
def test_next_version_is_the_highest(history):
    past = [(version, Recipe(contract=contract, model=model)) for version, contract, model in history]
    following = next_semver(past, Recipe(contract="a", model="a"))
    assert all(following.sort_key > version.sort_key for version, _ in past)


@pytest.fixture(scope="module")
def recipe_of(make_schema, make_table):
    """Return a function that fits a model to a table and computes its recipe."""

    def make(model, task="regression", seed=0, rows=240, schema=None, **columns):
        schema = schema or make_schema(task)
        table = dataframes.check_frame(make_table(task, seed=seed, rows=rows).assign(**columns), schema).frame
        return Recipe.for_model(model.fit(schema, table))

    return make


def small(**params):
    return BoostedTrees(**({"max_iter": 2} | params))


def test_new_data_does_not_change_the_recipe(recipe_of):
    assert recipe_of(small()) == recipe_of(small(), seed=1, group="only one category")


def test_parameters_and_kind_change_the_model_hash(recipe_of):
    before = recipe_of(small())
    for after in (recipe_of(small(max_iter=3)), recipe_of(ConstantModel())):
        assert after.contract == before.contract
        assert after.model != before.model


def test_schema_changes_the_contract_hash(recipe_of, make_schema):
    raw = make_schema("regression").model_dump(mode="json")
    del raw["columns"]["gap"]
    schema = type(make_schema("regression")).model_validate(raw | {"extra": "drop"})
    assert recipe_of(small(), schema=schema).contract != recipe_of(small()).contract


def test_recipe_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        SAME.model = "other"
