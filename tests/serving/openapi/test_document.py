"""The OpenAPI document is exact: requests validate if and only if the server accepts them."""

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from model_name.errors import DataError
from model_name.serving.bundle import Bundle, Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.openapi.document import build_document
from model_name.serving.protocols.tensors import DATATYPES
from tests.support.in_process_requests import infer_v1, infer_v2
from tests.support.manifests import COLUMNS, EXAMPLE, TARGETS, manifest_of, plane_of, table_of

Row = dict[str, Any]

PREDICT, INFER = "/v1/models/flats:predict", "/v2/models/flats/infer"
MANIFEST = manifest_of(table_of())
PLANE = plane_of(MANIFEST)


def validator(manifest: Manifest, name: str) -> Draft202012Validator:
    """Build a validator of a component of the document."""
    schemas = build_document(manifest, name="flats")["components"]["schemas"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def tensors(row: Row, manifest: Manifest = MANIFEST) -> list[dict[str, Any]]:
    """Convert a row to V2 input tensors."""
    kinds = {name: column.kind for name, column in manifest.table.columns.items()}
    return [
        {"name": name, "shape": [1], "datatype": DATATYPES[kinds[name]][0], "data": [value]}
        for name, value in row.items()
    ]


@pytest.fixture(params=TARGETS)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Return a manifest of each task."""
    return manifest_of(table_of(request.param))


HOSTILE = ["a/b~c", "</script>", '"quoted"', "größe", "", "x" * 300, "with space", "#/$ref", "constructor"]


@pytest.mark.parametrize(
    "manifest",
    [
        *(pytest.param(manifest_of(table_of(task)), id=task) for task in TARGETS),
        pytest.param(manifest_of(table_of(extra="drop")), id="other columns are dropped"),
        pytest.param(
            manifest_of(table_of(columns=dict.fromkeys(HOSTILE, COLUMNS["area"])), dict.fromkeys(HOSTILE, 1.0)),
            id="names that are not allowed in component names",
        ),
        pytest.param(
            manifest_of(table_of(columns={f"c{n}": COLUMNS["age"] for n in range(300)}), {}), id="300 columns"
        ),
    ],
)
@pytest.mark.parametrize("name", ["flats", "flats of {Berlin}/Mitte"])
def test_document_satisfies_openapi_and_its_examples_validate(manifest: Manifest, name: str) -> None:
    # When
    built = build_document(manifest, name=name)
    # Then it satisfies the OpenAPI specification, and all its references resolve
    Draft202012Validator(OPENAPI_31).validate(built)
    assert json.loads(json.dumps(built)) == built
    assert built["info"]["version"] == "1.2.3"
    for path in (path for path in built["paths"] if "post" in built["paths"][path]):
        body = built["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        if manifest.example:
            Draft202012Validator(body["schema"] | {"components": built["components"]}).validate(body["example"])
        Draft202012Validator.check_schema(body["schema"] | {"components": built["components"]})


def test_paths_contain_the_model_name_and_error_responses_use_the_error_schema(manifest: Manifest) -> None:
    built = build_document(manifest, name="flats")
    responses = built["paths"][PREDICT]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "404", "408", "413", "415", "429", "503"}
    assert set(responses["200"]["headers"]) == {"x-model-version", "x-model-semver", "x-request-id"}
    assert built["paths"][INFER]["post"]["responses"].keys() == responses.keys()
    for response in built["components"]["responses"].values():
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        assert response["headers"] == {"x-request-id": {"$ref": "#/components/headers/x-request-id"}}
    operations = [get_or_post["operationId"] for path in built["paths"].values() for get_or_post in path.values()]
    assert len(operations) == len(set(operations)) == 12


def test_v1_requests_and_responses_of_a_trained_bundle_validate(
    bundles: dict[str, Bundle], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    # Given a bundle that was trained and exported
    manifest = bundles[task].manifest
    parameters = {"parameters": {"interval": 0.9}} if task == "regression" else {}
    for body in ({"instances": rows}, {"instances": [[*row.values()] for row in rows]} | parameters):
        # When a request is answered
        response = infer_v1(planes[task], body)
        # Then request and response validate
        validator(manifest, "PredictRequest").validate(body)
        validator(manifest, "PredictResponse").validate(response)
        assert not validator(manifest, "PredictResponse").is_valid({"predictions": ["unknown label"]})


def test_v2_requests_and_responses_of_a_trained_bundle_validate(
    bundles: dict[str, Bundle], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    manifest = bundles[task].manifest
    body = {"inputs": tensors(rows[0], manifest)}
    validator(manifest, "InferRequest").validate(body)
    validator(manifest, "InferResponse").validate(infer_v2(planes[task], body))


REFUSED = [
    pytest.param({"area": "wide"}, id="a text for a number"),
    pytest.param({"area": "61.5"}, id="a quoted number"),
    pytest.param({"area": True}, id="a boolean for a number"),
    pytest.param({"area": [61.5]}, id="a list for a number"),
    pytest.param({"area": None}, id="null for a number that may not be missing"),
    pytest.param({"area": 501}, id="above the bound"),
    pytest.param({"area": -1}, id="below the bound"),
    pytest.param({"age": 1e300}, id="beyond float32"),
    pytest.param({"district": "west"}, id="an unseen category that is refused"),
    pytest.param({"district": 4}, id="a number that is no category"),
    pytest.param({"district": False}, id="a boolean that is no category"),
    pytest.param({"street": ["Elm"]}, id="a list for a category"),
    pytest.param({"street": None}, id="null for a category that may not be missing"),
    pytest.param({"is_new": "yes"}, id="a text for a boolean"),
    pytest.param({"is_new": 2}, id="2 for a boolean"),
    pytest.param({"is_new": None}, id="null for a boolean that may not be missing"),
    pytest.param({"sold": "soon"}, id="a text for a datetime"),
    pytest.param({"sold": "2025-13-01"}, id="a month that does not exist"),
    pytest.param({"sold": "2025-12-01T25:00"}, id="an hour that does not exist"),
    pytest.param({"sold": 20250307}, id="a number for a datetime"),
    pytest.param({"sold": None}, id="null for a datetime that may not be missing"),
    pytest.param({"price": 1.0}, id="the target"),
    pytest.param({"rent": 1.0}, id="an unknown column"),
]


@pytest.mark.parametrize("change", REFUSED)
def test_rejected_row_does_not_validate(change: Row) -> None:
    row = EXAMPLE | change
    with pytest.raises(DataError):
        PLANE.predict_rows([row])
    assert not validator(MANIFEST, "PredictRequest").is_valid({"instances": [row]})


@pytest.mark.parametrize("change", [case for case in REFUSED if not {"price", "rent"} & case.values[0].keys()])
def test_tensor_with_a_rejected_value_does_not_validate(change: Row) -> None:
    assert validator(MANIFEST, "InferRequest").is_valid({"inputs": tensors(EXAMPLE)})
    assert not validator(MANIFEST, "InferRequest").is_valid({"inputs": tensors(EXAMPLE | change)})


@pytest.mark.parametrize("name", EXAMPLE)
def test_row_without_an_input_does_not_validate(name: str) -> None:
    row = {other: value for other, value in EXAMPLE.items() if other != name}
    with pytest.raises(DataError, match=f"{name}: column is missing"):
        PLANE.predict_rows([row])
    for rows in ([row], [[*row.values()]], []):
        assert not validator(MANIFEST, "PredictRequest").is_valid({"instances": rows})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"rooms": 1e6}, id="a number that is clipped"),
        pytest.param({"district": ""}, id="the empty text as a category"),
        pytest.param({"district": 3}, id="a number that is equivalent to a category"),
        pytest.param({"district": True}, id="a boolean that is equivalent to a category"),
        pytest.param({"heating": "coal"}, id="a category that counts as missing"),
        pytest.param({"is_new": 0}, id="a boolean as a number"),
        pytest.param({"sold": "2025-03-07"}, id="a day"),
        pytest.param({"sold": "2025-03-07T09:30:15.123456+01:00"}, id="a moment with an offset"),
        pytest.param({"remark": {"a": 1}, "agent": None}, id="ignored columns"),
    ],
)
def test_accepted_row_validates(change: Row) -> None:
    row = EXAMPLE | change
    assert len(PLANE.predict_rows([row]).prediction) == 1
    validator(MANIFEST, "PredictRequest").validate({"instances": [row]})


def test_extra_columns_validate_if_they_are_dropped_except_the_target() -> None:
    manifest = manifest_of(table_of(extra="drop"))
    for change, is_valid in (({"rent": 1}, True), ({"price": 1}, False)):
        assert validator(manifest, "PredictRequest").is_valid({"instances": [EXAMPLE | change]}) == is_valid
        other = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in change.items()]
        assert validator(manifest, "InferRequest").is_valid({"inputs": tensors(EXAMPLE) + other}) == is_valid


@pytest.mark.parametrize(
    ("task", "level", "is_valid"),
    [
        pytest.param("regression", 0.9, True, id="a level"),
        pytest.param("regression", None, True, id="none"),
        pytest.param("regression", 0.5, False, id="a level without intervals"),
        pytest.param("binary", 0.9, False, id="a classification"),
    ],
)
def test_interval_level_validates_if_the_model_has_it(task: str, level: float | None, is_valid: bool) -> None:
    manifest = manifest_of(table_of(task))
    body = {"instances": [EXAMPLE], "parameters": {"interval": level}}
    assert validator(manifest, "PredictRequest").is_valid(body) == is_valid
    body = {"inputs": tensors(EXAMPLE), "parameters": {"interval": level}}
    assert validator(manifest, "InferRequest").is_valid(body) == is_valid


def test_rules_are_part_of_the_row_description() -> None:
    table = table_of(rules=[{"holds": "rooms <= area"}])
    assert (
        "It must hold: rooms <= area."
        in build_document(manifest_of(table), name="flats")["components"]["schemas"]["Row"]["description"]
    )


def test_sensitive_values_are_not_published() -> None:
    # Given a table with sensitive columns only, and a bundle with a real example and real categories
    columns = {name: raw | {"sensitive": True} for name, raw in COLUMNS.items() if "values" not in raw}
    example_row = {"area": 61.25, "age": 77.125, "rooms": 5.0, "street": "Elm", "is_let": True, "is_new": True}
    manifest = manifest_of(table_of(columns=columns), example_row | {"sold": "1999-09-09T09:09:09", "seen": None})
    # When
    built = build_document(manifest, name="flats")
    # Then none of them is published, and the published example is accepted
    text = json.dumps(built)
    assert [secret for secret in ("61.25", "77.125", "Elm", "1999-09-09") if secret in text] == []
    rows = built["paths"][PREDICT]["post"]["requestBody"]["content"]["application/json"]["example"]["instances"]
    assert len(plane_of(manifest).predict_rows(rows).prediction) == 1


SCALARS = [*filter(None, EXAMPLE.values()), 0, 1, 3, 3.0, -0.0, 500, 500.0000001, 3.5e38, 1e308, "", "true", "0"]
DATETIMES = r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-5][0-9](:[0-6][0-9])?)?(Z|[+-][0-2][0-9]:[0-9]{2})?\Z"
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(SCALARS),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.from_regex(DATETIMES),
    st.lists(st.none(), max_size=1),
)
INEXPRESSIBLE_DAYS = ("-02-29", "-02-30", "-02-31", "-04-31", "-06-31", "-09-31", "-11-31", "0001-01-01", "9999-12-31")
"""Days that do not exist, and days whose offset may lead beyond the range: JSON Schema cannot express them."""
ROW = validator(MANIFEST, "Row")


@given(st.fixed_dictionaries(dict.fromkeys(EXAMPLE, ANYTHING)), st.sets(st.sampled_from([*EXAMPLE]), max_size=2))
@example(EXAMPLE, set())
def test_validating_row_is_accepted(values: Row, changed: set[str]) -> None:
    # Given a row with some arbitrary values
    row = EXAMPLE | {name: values[name] for name in changed}
    assume(ROW.is_valid(row))
    assume(not any(day in str(value) for value in row.values() for day in INEXPRESSIBLE_DAYS))
    # When it validates, then it is accepted as an object and as an array
    assert len(PLANE.predict_rows([row, list(row.values())]).prediction) == 2
