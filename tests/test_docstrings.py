import textwrap
from pathlib import Path

import pytest

from tests.support.docstrings import findings, modules

ROOT = Path(__file__).parents[1]
PACKAGES = ("model_name", "components", "pipelines", "benchmarks", "local_kafka", "data", "demo.py", "tests")


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_follow_the_style(package: str) -> None:
    result = [line for path in modules([ROOT / package]) for line in findings(path)]
    assert result == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param('"""What answers a path."""', "fragment", id="question word"),
        pytest.param('def f():\n    """As of `Base`."""', "fragment", id="reference instead of @override"),
        pytest.param('def f():\n    """The rows."""', "imperative", id="noun phrase for a function"),
        pytest.param('def f():\n    """Returns the rows."""', "imperative", id="third person"),
        pytest.param(
            'class C:\n    """Hold rows.\n\n    Attributes:\n        name: Of the model.\n    """',
            "noun",
            id="attribute",
        ),
        pytest.param(
            'def f():\n    """Check a body.\n\n    Raises:\n        ValueError: It is.\n    """',
            "condition",
            id="raises",
        ),
    ],
)
def test_violations_of_the_style_are_listed(source: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(source, encoding="utf-8")
    (result,) = findings(file)
    assert reason in result


def test_docstrings_in_the_style_have_no_findings(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        textwrap.dedent(
            '''
            class Check:
                """Check requests.

                Attributes:
                    max_bytes: Largest body, in bytes.
                """

                @property
                def queued(self):
                    """Number of queued requests."""

                def check(self, body):
                    """Check the size of a body.

                    Args:
                        body: Body of the request.

                    Raises:
                        ValueError: The body is larger than `max_bytes`.
                    """
            '''
        ),
        encoding="utf-8",
    )
    assert list(findings(file)) == []
