import re

import fsspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError
from model_name.io import configs

SCHEMA = """
name: t
target: {name: y, task: regression}
columns:
  x: {kind: numeric}
"""


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 1", {"a": 1}, id="a mapping"),
        pytest.param("[1, 2]", [1, 2], id="a list"),
        pytest.param('{"a": {"b": null}}', {"a": {"b": None}}, id="JSON"),
        pytest.param("", {}, id="nothing"),
        pytest.param("# words", {}, id="a comment"),
        pytest.param(
            "a: 1e-3\nb: 2E5\nc: 1.5e+2\nd: .5",
            {"a": 0.001, "b": 2e5, "c": 150.0, "d": 0.5},
            id="numbers with exponents",
        ),
        pytest.param("a: '1e-3'", {"a": "1e-3"}, id="a number in quotes stays text"),
        pytest.param(
            "a: 2024-01-01\nb: 2024-01-01T02:03:04",
            {"a": "2024-01-01", "b": "2024-01-01T02:03:04"},
            id="dates stay texts",
        ),
        pytest.param(
            "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}",
            {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}},
            id="anchors",
        ),
        pytest.param("a: 1\nb: ${a}", {"a": 1, "b": 1}, id="an interpolation"),
        pytest.param(
            "a: {b: [1, 2]}\nc: x${a.b[1]}", {"a": {"b": [1, 2]}, "c": "x2"}, id="an interpolation into a text"
        ),
    ],
)
def test_yaml_is_parsed(text, expected):
    assert configs.to_object(configs.parse_string(text)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("a: [1", "conf: is not a mapping in YAML", id="malformed YAML"),
        pytest.param("a: 1\n\tb: 2", "conf: is not a mapping in YAML", id="tabs"),
        pytest.param("a: 1\nb: {c: 1, c: 2}", "c stands twice", id="a duplicate key"),
        pytest.param("a: ${", "conf: is not a mapping in YAML", id="half an interpolation"),
        pytest.param("words", "conf: is neither a mapping nor a list", id="a text"),
        pytest.param("0", "conf: is neither a mapping nor a list", id="a number"),
        pytest.param("a: !!python/object/apply:os.getcwd []", "conf: is not a mapping in YAML", id="code"),
    ],
)
def test_a_text_that_is_no_config_is_refused(text, reason):
    with pytest.raises(ConfigError) as caught:
        configs.parse_string(text, origin="conf")
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("a: ${nope}", "nope", id="a missing key"),
        pytest.param("a: ${oc.env:MODEL_NAME_NOT_SET}", "MODEL_NAME_NOT_SET", id="a variable that is not set"),
        pytest.param("a: ???", "Missing mandatory value", id="a value that must be given"),
    ],
)
def test_an_unresolvable_interpolation_is_refused(workplace, text, reason):
    with pytest.raises(ConfigError, match=r"the config cannot be resolved: ") as caught:
        configs.to_object(configs.parse_string(text))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("nope.yaml", "nope.yaml: cannot be read", id="a missing file"),
        pytest.param("nope.toml", "nope.toml: a config is a .yaml, .yml or .json file", id="another format"),
        pytest.param("folder.yaml", "folder.yaml: cannot be read", id="a folder"),
        pytest.param("latin.yaml", "latin.yaml: cannot be read", id="not UTF-8"),
        pytest.param("nope://host/a.yaml", "cannot be read: Protocol not known: nope", id="an unknown protocol"),
        pytest.param("memory://nope/a.yaml", "memory://nope/a.yaml: cannot be read", id="a missing URL"),
        pytest.param("bad.yaml", "bad.yaml: is not a mapping in YAML", id="malformed"),
        pytest.param("list.yaml", "list.yaml: a list where a mapping with `job:` belongs", id="a list"),
    ],
)
def test_an_unusable_file_is_named(workplace, path, reason):
    write(workplace, bad="a: [", list="[1]")
    (workplace / "folder.yaml").mkdir()
    (workplace / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        configs.load([path], environment={})
    assert reason in caught.value.message


def test_later_sources_take_precedence(workplace):
    # given two files, overrides and environment variables that set the same keys
    write(workplace, one="job: {a: 1, b: 1, c: 1, d: 1}", two="job: {b: 2, c: 2, d: 2}")
    # when they are merged
    config = configs.load(
        ["one.yaml", "two.yaml"],
        sets=["job.c=3", "job.d=3", "job.e.f=[1, x]"],
        environment={
            "MODEL_NAME__JOB__D": "4",
            "MODEL_NAME__JOB__G": "2024-01-01",
            "MODEL_NAME_ACTOR": "me",
            "HOME": "x",
        },
    )
    # then the environment takes precedence over overrides, overrides over files, later files over earlier ones
    assert config == {"job": {"a": 1, "b": 2, "c": 3, "d": 4, "e": {"f": [1, "x"]}, "g": "2024-01-01"}}


def test_the_process_environment_is_the_default(workplace, monkeypatch):
    write(workplace, one="job: {seed: 1, model: {KIND: BoostedTrees}}")
    monkeypatch.setenv("MODEL_NAME__JOB__SEED", "7")
    monkeypatch.setenv("MODEL_NAME__JOB__MODEL__KIND", "RandomForest")
    assert configs.load(["one.yaml"]) == {"job": {"seed": 7, "model": {"KIND": "RandomForest"}}}


@pytest.mark.parametrize(
    "root", [pytest.param("", id="a local path"), pytest.param("memory://confs/", id="behind a URL")]
)
def test_the_project_file_is_merged_before_the_files_beside_it(workplace, root):
    for name, text in (
        ("project.yaml", "job: {a: 1, b: 1}"),
        ("train.yaml", "job: {b: 2}"),
        ("more.yaml", "job: {a: 3}"),
    ):
        with fsspec.open(f"{root}{name}", "wt") as file:
            file.write(text)
    assert configs.with_shared_files([f"{root}train.yaml"]) == [f"{root}project.yaml", f"{root}train.yaml"]
    assert configs.load([f"{root}train.yaml"], environment={}) == {"job": {"a": 1, "b": 2}}
    # only once, even if several files are in the folder or it is named itself
    assert configs.load([f"{root}more.yaml", f"{root}train.yaml"], environment={}) == {"job": {"a": 3, "b": 2}}
    assert configs.with_shared_files([f"{root}project.yaml", f"{root}train.yaml"]) == [
        f"{root}project.yaml",
        f"{root}train.yaml",
    ]


@pytest.mark.parametrize("pair", ["job.seed", "=1", " =1", "a=[", "a=${"])
def test_an_invalid_override_is_refused(pair):
    with pytest.raises(ConfigError) as caught:
        configs.parse_override(pair)
    assert caught.value.message.startswith(f"--set {pair}")


def test_the_value_of_an_override_may_hold_equal_signs_or_be_empty():
    assert configs.parse_override("a.b=x=y") == {"a": {"b": "x=y"}}
    assert configs.parse_override("a=") == {"a": None}


def test_a_variable_that_is_not_yaml_is_named():
    with pytest.raises(ConfigError, match=r"^MODEL_NAME__JOB__SEED: the value is not YAML"):
        configs.environment_overrides({"MODEL_NAME__JOB__SEED": "[1"})


def test_no_config_and_mixed_types_do_not_merge():
    with pytest.raises(ConfigError, match="there is no config to merge"):
        configs.merge_configs([])
    with pytest.raises(ConfigError, match="the configs do not merge"):
        configs.merge_configs([configs.parse_string("a: 1"), configs.parse_string("[1]")])


def test_the_schema_file_of_a_job_is_inserted(workplace):
    write(workplace, schema=SCHEMA, job="job: {schema: schema.yaml}")
    config = configs.load(["job.yaml"], environment={})
    assert TableSchema.model_validate(config["job"]["schema"]) == TableSchema.model_validate(yaml.safe_load(SCHEMA))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        pytest.param(
            SCHEMA.replace("kind", "knd"),
            "schema.yaml: columns.x: knd is not a key of Column; did you mean kind?",
            id="a key that does not exist",
        ),
        pytest.param(
            SCHEMA.replace("numeric", "number"),
            "schema.yaml: columns.x.kind: Input should be 'numeric', 'category', 'boolean', "
            "'datetime' or 'text-id', not 'number'",
            id="a value that does not exist",
        ),
        pytest.param(SCHEMA.replace("name: t", ""), "schema.yaml: name: Field required", id="a key that is missing"),
        pytest.param(
            SCHEMA + "key: [z]",
            "schema.yaml: config: key: z is not a column of the schema",
            id="an inconsistent schema",
        ),
    ],
)
def test_an_invalid_schema_is_explained_by_file_path_and_value(workplace, schema, reason):
    write(workplace, schema=schema, job="job: {schema: schema.yaml}")
    with pytest.raises(ConfigError) as caught:
        configs.load(["job.yaml"], environment={})
    assert caught.value.message == reason


def test_an_error_names_the_last_file_that_sets_the_key(workplace):
    # given two files that set the same key, the later one to an invalid value
    write(workplace, one=SCHEMA, two="columns: {x: {kind: number}}")
    raw = configs.load(["one.yaml", "two.yaml"], environment={})
    with pytest.raises(ValidationError) as wrong:
        TableSchema.model_validate(raw)
    # then the later file is named, or the earlier one for a key that only it sets
    assert configs.explain(wrong.value, raw, ["one.yaml", "two.yaml"]).message.startswith("two.yaml: columns.x.kind: ")
    assert configs.find_origin(["target", "task"], ["one.yaml", "two.yaml"]) == "one.yaml"
    assert configs.find_origin(["nowhere"], ["one.yaml", "two.yaml"]) == "one.yaml, two.yaml"


def test_keys_with_dots_and_interpolations_are_attributed_to_their_file(workplace):
    write(workplace, one="a: {b.c: {'d[': 1}}\nv: ${nowhere}\nn: null\nl: [{k: 1}]", two="z: 1")
    files = ["one.yaml", "two.yaml"]
    for path in (["a", "b.c", "d["], ["v"], ["n"], ["l", "0", "k"], ["l", "9"]):
        assert configs.find_origin(path, files) == "one.yaml"


@pytest.mark.parametrize(
    ("path", "is_there"),
    [("here.yaml", True), ("nope.yaml", False), ("memory://nope/a", False)],
)
def test_existence_is_reported_for_files_and_urls(workplace, path, is_there):
    write(workplace, here="a: 1")
    assert configs.exists(path) == is_there


KEYS = st.text("abcXYZ_-", min_size=1, max_size=3)
NUMBER = re.compile(r"[-+.0-9]+[eE][-+0-9]+")  # a text that PyYAML writes without quotes
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(
        lambda text: "${" not in text and text != "???" and "\\" not in text and not NUMBER.fullmatch(text)
    )
)
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=4)


def expected_merge(below, above):
    """Merge as expected: mappings key by key, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = expected_merge(below[key], value) if both else value
    return merged


def merges_list_with_mapping(below, above):
    """Return whether a list would be merged with a mapping."""
    pairs = [(below[key], above[key]) for key in below.keys() & above.keys()]
    return any(
        {type(each), type(other)} == {list, dict}
        or (isinstance(each, dict) and isinstance(other, dict) and merges_list_with_mapping(each, other))
        for each, other in pairs
    )


@given(MAPPINGS)
def test_dumped_yaml_is_parsed_back(tree):
    for text in (yaml.safe_dump(tree), yaml.safe_dump(tree, default_flow_style=True, explicit_start=True)):
        assert configs.to_object(configs.parse_string(text)) == tree


@given(MAPPINGS, MAPPINGS)
def test_later_configs_override_earlier_ones(below, above):
    both = [configs.OmegaConf.create(below), configs.OmegaConf.create(above)]
    if merges_list_with_mapping(below, above):
        with pytest.raises(ConfigError, match="the configs do not merge"):
            configs.merge_configs(both)
        return
    assert configs.to_object(configs.merge_configs(both)) == expected_merge(below, above)


@given(st.text())
def test_any_text_is_parsed_or_refused(text):
    refusal, config = "", None
    try:
        config = configs.to_object(configs.parse_string(text), resolve=False)
    except ConfigError as err:
        refusal = err.message
    assert refusal.startswith("the config string: ") or isinstance(config, dict | list)


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=4), LEAVES)
def test_an_override_sets_the_value_at_its_path(path, value):
    config = configs.to_object(configs.parse_override(f"{'.'.join(path)}={yaml.safe_dump(value)}"))
    for key in path:
        config = config[key]
    assert config == value
