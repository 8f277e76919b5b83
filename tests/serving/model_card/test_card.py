"""The model card shows the bundle, escapes hostile text, and loads nothing external."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from model_name.core.decisions.decision import Costs, Decision, Isotonic
from model_name.serving.bundle import Bundle, CompressionReport, Manifest
from model_name.serving.model_card import card as card_module
from model_name.serving.model_card.card import content_security_policy, render_card, render_token_page
from model_name.serving.openapi import document as document_module
from model_name.serving.rest.messages import SECURITY_HEADERS
from tests.support.html_pages import Page
from tests.support.manifests import COLUMNS, EXAMPLE, TARGETS, manifest_of, table_of

NONCE = "bm9uY2U"
EVIL = "</script><script>window.hit = 1</script><img src=x onerror=\"window.hit=1\"> & 'it'"


class Controls(HTMLParser):
    """Parser of the controls of a page, with their labels and descriptions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.controls: list[dict[str, str | None]] = []
        self.labelled: list[str | None] = []
        self.scripts: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        if tag in ("input", "select"):
            self.controls.append(attributes)
        if tag == "label":
            self.labelled.append(attributes["for"])
        if tag in ("script", "style"):
            self.scripts.append(attributes)


def card_of(manifest: Manifest, **more: Any) -> str:
    return render_card(manifest, **({"name": "flats", "slot": "blue", "nonce": NONCE} | more))


def visible_text(text: str) -> str:
    """Return the visible text of a page, without line breaks."""
    return " ".join("".join(Page(text).text).split())


def script_data(text: str) -> Any:
    """Return the data that is embedded for the script."""
    (data,) = re.findall(r'<script type="application/json" id="card">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(data)


@pytest.fixture(params=TARGETS)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Return a manifest of each task."""
    return manifest_of(table_of(request.param, description="Flats that were sold."))


def test_card_shows_the_bundle(manifest: Manifest) -> None:
    # When
    text = visible_text(card_of(manifest))
    # Then
    facts = [
        "flats 1.2.3 blue",
        f"Predicts price ({manifest.table.target.task})",
        "Flats that were sold.",
        "BoostedTrees · version 7 in MLflow, run 0123456789abcdef0123456789abcdef · created 2026-11-21 13:41:26 UTC",
        "rmse 2.493",
        "In square metres.",
        "0 to 500",
        "1 to 9, else clipped",
        "(empty text), east, north, 3, true; others are refused",
        "gas, wood; others count as missing; may be missing",
        "true or false; may be missing",
        "25.0 %",
        "0 … 25 … 100",
        "ignored",
        "one of 2 categories",
        "hour of the day",
        "model.onnx sha256 " + "ab" * 32,
        manifest.table.fingerprint,
    ]
    assert [fact for fact in facts if fact not in text] == []
    assert [name for name in COLUMNS if name not in text] == []


def test_every_control_has_a_label_and_an_error_element(manifest: Manifest) -> None:
    text = card_of(manifest, needs_token=True)
    parsed, controls = Page(text), Controls(text)
    ids = [control["id"] for control in controls.controls]
    assert sorted(ids) == sorted(controls.labelled)
    assert len(parsed.ids) == len(set(parsed.ids))
    described = " ".join(filter(None, (control.get("aria-describedby") for control in controls.controls))).split()
    assert {*described} <= {*parsed.ids}
    assert [field["id"] for field in script_data(text)["fields"]] == [f"f{number}" for number in range(len(EXAMPLE))]
    assert {f"f{number}-error" for number in range(len(EXAMPLE))} <= {*parsed.ids}


@pytest.mark.parametrize(
    ("changes", "expected", "absent"),
    [
        pytest.param({}, ["level 0.8 is ±1", "level 0.9 is ±2", "on 100 rows"], ["calibrated"], id="intervals"),
        pytest.param(
            {"decision": Decision()}, ["There are no prediction intervals."], ["Prediction interval"], id="none"
        ),
        pytest.param(
            {"table": table_of("binary")},
            ["Probabilities are not calibrated.", "The most probable class is predicted."],
            ["rediction interval"],
            id="a classification without calibration",
        ),
        pytest.param(
            {
                "table": table_of("binary"),
                "decision": Decision(
                    calibrator=Isotonic(given=(0.0, 1.0), calibrated=(0.0, 1.0)),
                    threshold=0.43,
                    costs=Costs(false_negative=5),
                ),
            },
            ["isotonic regression", "true is predicted from a probability of 0.43.", "1, a false negative 5"],
            ["most probable"],
            id="a threshold",
        ),
    ],
)
def test_decision_is_described(changes: dict[str, Any], expected: list[str], absent: list[str]) -> None:
    changes = {"decision": Decision()} | changes if "table" in changes else changes
    text = visible_text(card_of(manifest_of(**{"table": table_of()} | changes)))
    assert [sentence for sentence in expected if sentence not in text] == []
    assert [sentence for sentence in absent if sentence in text] == []


@pytest.mark.parametrize(
    ("history", "description"),
    [
        pytest.param({"of": "price", "lag": "24h"}, "price, 24h before.", id="a lag"),
        pytest.param(
            {"of": "area", "by": ["agent"], "lag": "1d", "repeats": 7},
            "Mean of area at 7 times, each 1d before the next, of the same agent.",
            id="several lags",
        ),
        pytest.param(
            {"of": "price", "lag": "1h", "window": "7d"},
            "Mean of price over the 7d that ended 1h before.",
            id="a window",
        ),
    ],
)
def test_lag_is_described(history: dict[str, Any], description: str) -> None:
    columns = COLUMNS | {"before": {"kind": "numeric", "nullable": True, "history": history}}
    assert description in visible_text(
        card_of(manifest_of(table_of(columns=columns, time="sold"), EXAMPLE | {"before": None}))
    )


def test_compression_and_rules_are_shown() -> None:
    shrunk = CompressionReport(
        how="pruned",
        bytes_before=4096,
        bytes_after=1024,
        metrics_before={"rmse": 1.5},
        metrics_after={"rmse": 1.625},
    )
    manifest = manifest_of(table_of(rules=[{"holds": "rooms <= area"}]), shrunk=(shrunk,))
    text = visible_text(card_of(manifest, name="homes"))
    assert "Pruned4 KiB1 KiB1.51.625––" in text
    assert "Rulesrooms <= area" in text
    assert "served as homes" in text


def test_sensitive_column_is_listed_without_its_values() -> None:
    columns = {"age": {"kind": "numeric", "sensitive": True}, "name": {"kind": "category", "sensitive": True}}
    text = card_of(manifest_of(table_of(columns=columns), {"age": 77.125, "name": "Elm"}))
    assert visible_text(text).count("sensitive, its values are not shown") == 2
    assert [secret for secret in ("77.125", "Elm", "Oak") if secret in text] == []


def test_markup_in_names_is_escaped() -> None:
    # Given a bundle in which every name and description contains markup
    columns = {
        EVIL: {"kind": "category", "values": [EVIL, "b"], "description": EVIL},
        f"{EVIL}2": {"kind": "numeric", "nullable": True},
    }
    table = table_of(
        columns=columns,
        name=EVIL,
        description=EVIL,
        target={"name": f"{EVIL}3", "task": "binary", "classes": [EVIL, "b"], "description": EVIL},
    )
    manifest = manifest_of(table, {EVIL: EVIL, f"{EVIL}2": None}, kind=EVIL, name=EVIL, metrics={EVIL: 1.0})
    # When
    text = render_card(manifest, name=EVIL, slot=EVIL, nonce=NONCE, needs_token=True)
    # Then no tag of it is parsed, and all of it is visible text
    assert (Page(text).tags.count("script"), Page(text).tags.count("img")) == (2, 0)
    assert EVIL not in text
    assert script_data(text)["fields"][0]["name"] == EVIL
    assert EVIL in "".join(Page(text).text)


@pytest.mark.parametrize("slot", ["", "blue", "green", "canary"])
def test_page_loads_nothing_external(manifest: Manifest, slot: str) -> None:
    text = card_of(manifest, slot=slot)
    links = [link for link in Page(text).links if not link.startswith("#")]
    assert links == ["data:,", "openapi.json", "v2/models/flats", "metrics"]
    assert {*re.findall(r"https?://[^/\s\"'<&]+", text)} == {"http://localhost:8080"}  # of the snippets
    assert not re.search(r"@import|url\(", text)
    assert {script.get("nonce") for script in Controls(text).scripts if script.get("type") != "application/json"} == {
        NONCE
    }


def test_response_headers_forbid_external_content() -> None:
    name, value = content_security_policy(NONCE)
    assert name == b"content-security-policy"
    policy = dict(part.split(" ", 1) for part in value.decode().split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'nonce-{NONCE}'",
        "style-src": f"'nonce-{NONCE}'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert dict(SECURITY_HEADERS)[b"cache-control"] == b"no-store"


def test_token_page_says_nothing_of_the_model_but_its_name() -> None:
    text = render_token_page(name=EVIL, nonce=NONCE)
    assert EVIL not in text
    assert EVIL in "".join(Page(text).text)
    assert {*COLUMNS, "BoostedTrees", "1.2.3"}.isdisjoint(visible_text(text).split())
    assert {script.get("nonce") for script in Controls(text).scripts} == {NONCE}


def test_page_of_a_wide_table_is_limited_in_size() -> None:
    columns = {f"column {number} " + "x" * 60: COLUMNS["heating"] for number in range(300)}
    text = card_of(manifest_of(table_of(columns=columns), dict.fromkeys(columns, "gas")))
    assert len(Controls(text).controls) == 301  # and the interval
    assert len(text) < 1_500_000


def test_trained_bundle_has_a_card(bundles: dict[str, Bundle], task: str) -> None:
    text = card_of(bundles[task].manifest)
    assert [name for name in bundles[task].manifest.table.columns if name not in visible_text(text)] == []
    assert {"select", "rect"} <= {*Page(text).tags}


def test_templates_are_loaded_lazily_from_the_package() -> None:
    imports = "import sys, model_name.serving.model_card.card, model_name.serving.openapi.document"
    script = f"{imports}; print('jinja2' in sys.modules, 'yaml' in sys.modules, 'kserve' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["False", "False", "False"]
    assert {path.name for path in card_module.TEMPLATES.iterdir()} == {
        "card.html",
        "card.css",
        "card.js",
        "token.html",
        "token.js",
    }
    assert Path(card_module.__file__).parent in card_module.TEMPLATES.parents
    assert document_module.TEMPLATE.is_file()
