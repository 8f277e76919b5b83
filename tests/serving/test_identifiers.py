"""Identifiers and names of models, which go into headers, labels and paths."""

import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.versions import Semver
from model_name.errors import ConfigError
from model_name.jobs.base import Job
from model_name.serving.identifiers import check_identifier, check_model_name, check_option

VALID = ("0", "7", "1.2.3", "1.0.0-rc.1+build.5", "0" * 32, "2026-11-30T12:00:00", "green", "v1_2", "a" * 128)
INVALID = (
    "",
    "1\r\nX-Evil: 1",
    "1\n",
    "1\0",
    " 1",
    "1 ",
    "1 2",
    "..",
    ".",
    "../1",
    "a/b",
    "a\\b",
    "-1",
    "é",
    "١",  # noqa: RUF001  an Arabic digit
    "\ud800",
    "\x7f",
    "a" * 129,
)


@pytest.mark.parametrize("value", VALID)
def test_valid_identifiers_are_returned_unchanged(value: str) -> None:
    assert check_identifier(value) == value


@pytest.mark.parametrize("value", INVALID, ids=ascii)
def test_other_texts_are_no_identifiers(value: str) -> None:
    with pytest.raises(ValueError, match="is not an identifier: letters, digits and") as caught:
        check_identifier(value)
    assert str(caught.value).isprintable()


@given(st.text() | st.from_regex(r"[A-Za-z0-9._:+\-\r\n ]{1,140}"))
def test_identifiers_are_valid_header_values_and_names_of_folders(value: str) -> None:
    try:
        check_identifier(value)
    except ValueError:
        return
    h11.Response(status_code=200, headers=[("x-model-version", value)])  # checks the value
    assert "/" not in value
    assert value not in {".", ".."}


@given(st.builds(Semver, major=st.integers(0), minor=st.integers(0), patch=st.integers(0)))
def test_semantic_versions_are_identifiers(semver: Semver) -> None:
    if len(str(semver)) <= 128:
        check_identifier(str(semver))


@pytest.mark.parametrize("name", ["flights", "flats in Köln", "a/b", "模型", "<b>", "a" * 256])
def test_names_of_models_may_have_any_printable_characters(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\tb", "a\0", "\ud800", "\u2028", "a" * 257], ids=ascii)
def test_other_texts_are_no_names_of_models(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name of a model"):
        check_model_name(name)


@given(st.from_regex(re.compile(str(Job.model_fields["name"].metadata[0].pattern)), fullmatch=True))
def test_names_in_configs_are_names_of_models(name: str) -> None:
    if len(name) <= 256:
        check_model_name(name)


def test_an_invalid_option_is_named() -> None:
    check_option("--slot", "")
    check_option("--model_name", "", is_name=True)
    with pytest.raises(ConfigError, match=r"--slot: 'blue\\n' is not an identifier"):
        check_option("--slot", "blue\n")
    with pytest.raises(ConfigError, match=r"--model_name: 'a\\x00' is not a name of a model"):
        check_option("--model_name", "a\0", is_name=True)
