"""The model card in a browser: the form sends its values, and the response is shown beside its fields."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from model_name.core.decisions.decision import Decision
from model_name.errors import DataError
from model_name.serving.assembly import TOKEN_ENV
from model_name.serving.bundle import Bundle, Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.model_card.card import content_security_policy, render_card
from model_name.serving.rest.messages import SECURITY_HEADERS
from tests.support import browser
from tests.support.browser import Browser
from tests.support.in_process_requests import infer_v1
from tests.support.manifests import COLUMNS, EXAMPLE, FIXED_SCORES, manifest_of, plane_of, table_of
from tests.support.server_processes import Server, StartServer

HttpResponse = tuple[int, bytes, dict[str, str]]

NONCE = "bm9uY2U"
TOKEN = "s3cret"
EVIL = "</script><script>window.hit=1</script>"


class Site:
    """Server of one card under a prefix, with predictions from a data plane.

    Attributes:
        requests: Prediction requests received: path, headers, body.
        fixed_response: Response to send instead of a prediction.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.fixed_response: HttpResponse | None = None
        self.page = b""
        self.plane: DataPlane
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = [content_security_policy(NONCE), *SECURITY_HEADERS]
                policy = {name.decode(): value.decode() for name, value in headers}
                self.respond((200, site.page, {"content-type": "text/html; charset=utf-8"} | policy))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.respond(site.fixed_response or site.predict(body))

            def respond(self, response: HttpResponse) -> None:
                status, body, headers = response
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def predict(self, body: Any) -> HttpResponse:
        try:
            return 200, json.dumps(infer_v1(self.plane, body)).encode(), {"x-model-semver": "1.2.3"}
        except DataError as err:
            return 400, json.dumps({"error": err.message}).encode(), {}

    def serve(self, plane: DataPlane, *, name: str = "flats", needs_token: bool = False) -> str:
        """Serve a card and return its URL."""
        self.requests, self.fixed_response, self.plane = [], None, plane
        manifest = plane.bundle.manifest
        self.page = render_card(manifest, name=name, slot="green", nonce=NONCE, needs_token=needs_token).encode()
        return self.url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start one instance for all tests."""
    with browser.start_browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Start one instance for all tests."""
    started = Site()
    threading.Thread(target=started.server.serve_forever, daemon=True).start()
    yield started
    started.server.shutdown()


def manifest(task: str = "regression", **changes: Any) -> Manifest:
    return manifest_of(table_of(task), **changes)


def control(name: str) -> str:
    """Return the CSS selector of an input of the example."""
    return f"#f{list(EXAMPLE).index(name)}"


def error_at(chromium: Browser, name: str) -> str | None:
    """Return the error message shown at an input, if it is marked invalid."""
    is_marked = chromium.run(f"document.querySelector('{control(name)}').getAttribute('aria-invalid')") == "true"
    assert is_marked != chromium.run(f"document.querySelector('{control(name)}-error').hidden")
    return chromium.text(f"{control(name)}-error") if is_marked else None


def predict(chromium: Browser) -> str:
    """Click the button and return the text of the output."""
    chromium.run("output.replaceChildren()")
    chromium.click("button[type=submit]")
    chromium.wait("output.childElementCount > 0 && !isBusy")
    return chromium.text("#output")


def test_example_is_sent_unchanged_and_its_prediction_is_shown(
    chromium: Browser, site: Site, planes: dict[str, DataPlane], bundles: dict[str, Bundle], task: str
) -> None:
    # Given the page of a trained bundle
    chromium.open(site.serve(planes[task], name=task))
    # When its example is predicted
    text = predict(chromium)
    # Then that row was sent, and the prediction of the data plane is shown
    ((path, _, body),) = site.requests
    assert path == f"/v1/models/{task}:predict"
    assert body["instances"] == [bundles[task].manifest.example]
    outputs = planes[task].warm_up()
    if task == "regression":
        assert f"{outputs.prediction[0]:.6g}" in text.replace(",", "")
    else:
        assert str(outputs.prediction[0]).lower() in text.lower().splitlines()
        assert [f"{100 * share:.1f} %" in text for share in outputs.probabilities[0]] == [True] * len(outputs.classes)
    assert chromium.logged_errors == []


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        pytest.param("binary", ["true", "75.0 %", "25.0 %"], id="two classes"),
        pytest.param("multiclass", ["fair", "70.0 %", "20.0 %", "10.0 %"], id="three classes"),
    ],
)
def test_probabilities_are_shown_as_bars_in_descending_order(
    chromium: Browser, site: Site, task: str, expected: list[str]
) -> None:
    chromium.open(site.serve(plane_of(manifest(task, decision=Decision()))))
    label, *shares = expected
    lines = predict(chromium).splitlines()
    assert [line for line in lines if "%" in line] == shares
    assert lines.count(label) == 2  # the prediction, and its bar
    widths = chromium.run("[...document.querySelectorAll('.fill')].map(fill => fill.getBoundingClientRect().width)")
    scores = sorted(FIXED_SCORES[task], reverse=True)
    assert [width / widths[0] for width in widths] == pytest.approx([score / scores[0] for score in scores], abs=0.02)


@pytest.mark.parametrize(
    ("level", "sent", "ends"),
    [
        pytest.param("0.8", {"interval": 0.8}, "11.5 to 13.5 in 80 % of cases", id="a level"),
        pytest.param("", None, None, id="none"),
    ],
)
def test_prediction_interval_is_requested_and_shown(
    chromium: Browser, site: Site, level: str, sent: dict[str, float] | None, ends: str | None
) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    chromium.fill("#interval", level)
    text = predict(chromium)
    assert site.requests[0][2].get("parameters") == sent
    assert "12.5" in text.splitlines()
    assert (ends in text) if ends else ("of cases" not in text)


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        pytest.param({"area": "12"}, {"area": 12}, id="a number"),
        pytest.param({"age": "1e-3"}, {"age": 0.001}, id="a number in scientific notation"),
        pytest.param({"age": ""}, {"age": None}, id="an empty number is missing"),
        pytest.param({"district": '""'}, {"district": ""}, id="the empty text as a category"),
        pytest.param({"heating": "null"}, {"heating": None}, id="a missing category"),
        pytest.param({"is_let": "false", "is_new": "false"}, {"is_let": False, "is_new": False}, id="booleans"),
        pytest.param({"is_let": "null"}, {"is_let": None}, id="a missing boolean"),
        pytest.param({"sold": "2024-02-29T23:59:58"}, {"sold": "2024-02-29T23:59:58"}, id="a datetime to the second"),
        pytest.param({"sold": "2024-02-29T23:59"}, {"sold": "2024-02-29T23:59:00"}, id="a datetime to the minute"),
        pytest.param({"seen": ""}, {"seen": None}, id="a missing datetime"),
    ],
)
def test_form_values_are_sent(chromium: Browser, site: Site, filled: dict[str, str], expected: dict[str, Any]) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    for name, value in filled.items():
        chromium.fill(control(name), value)
    text = predict(chromium)
    assert site.requests[0][2]["instances"] == [EXAMPLE | expected]
    assert "12.5" in text


def test_error_is_shown_at_its_field_until_the_value_changes(chromium: Browser, site: Site) -> None:
    # Given a row with two invalid values
    chromium.open(site.serve(plane_of(manifest())), width=400)
    chromium.fill(control("area"), "900")
    chromium.fill(control("sold"), "")
    # When it is sent
    text = predict(chromium)
    # Then both errors are shown at their fields, and the first field has the focus
    assert "The server rejects this row (400)" in text
    assert (error_at(chromium, "area"), error_at(chromium, "sold")) == ("900.0 is above 500.0", "is missing")
    assert error_at(chromium, "rooms") is None
    assert chromium.run("'#' + document.activeElement.id") == control("area")
    # When one value is corrected, then its error disappears
    chromium.fill(control("area"), "90")
    assert (error_at(chromium, "area"), error_at(chromium, "sold")) == (None, "is missing")
    # When the example is restored, then it is predicted
    chromium.click("button[type=reset]")
    assert "12.5" in predict(chromium)
    assert error_at(chromium, "sold") is None


def test_incomplete_number_is_not_sent(chromium: Browser, site: Site) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    chromium.type(control("age"), "1e")
    assert "Not sent" in predict(chromium)
    assert error_at(chromium, "age") == "not a number"
    assert site.requests == []


MESSAGES = [
    pytest.param("area: is missing", [["area", "is missing"]], "", id="one field"),
    pytest.param("area, row 0: not a number", [["area", "not a number"]], "", id="with a row number"),
    pytest.param("area: a; age: b", [["area", "a"], ["age", "b"]], "", id="two fields"),
    pytest.param("area: a; and 3 more", [["area", "a"]], "and 3 more", id="and more errors"),
    pytest.param(
        "area: 'x; y' is no: z; age: b", [["area", "'x; y' is no: z"], ["age", "b"]], "", id="separators in the reason"
    ),
    pytest.param("the server sleeps", [], "the server sleeps", id="without a column"),
    pytest.param("zone: a; area: b", [["area", "b"]], "zone: a", id="a column without a field"),
    pytest.param(
        "a: b: of the longer; a: of the shorter",
        [["a: b", "of the longer"], ["a", "of the shorter"]],
        "",
        id="names that contain each other",
    ),
    pytest.param("c; d: e", [["c; d", "e"]], "", id="a name with a semicolon"),
    pytest.param("", [], "", id="empty"),
]


@pytest.mark.parametrize(("message", "expected", "rest"), MESSAGES)
def test_error_message_is_split_by_field(
    chromium: Browser, site: Site, message: str, expected: list[list[str]], rest: str
) -> None:
    names = ["area", "age", "a", "a: b", "c; d"]
    table = table_of(columns=dict.fromkeys(names, COLUMNS["age"]))
    chromium.open(site.serve(plane_of(manifest_of(table, dict.fromkeys(names)))))
    named = "([wrong, rest]) => [wrong.map(([field, reason]) => [field.name, reason]), rest]"
    assert chromium.run(f"({named})(splitByField({json.dumps(message)}))") == [expected, rest]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(401, b'{"error": "who are you"}', ["requires a valid token", "who are you"], id="no token"),
        pytest.param(404, b'{"error": "no model"}', ["does not exist", "no model"], id="no model"),
        pytest.param(429, b'{"error": "too many"}', ["overloaded", "too many"], id="too many requests"),
        pytest.param(503, b'{"error": "draining"}', ["not ready", "draining"], id="not ready"),
        pytest.param(502, b"<h1>Bad Gateway</h1>", ["has failed (502)", "<h1>Bad Gateway</h1>"], id="a proxy's page"),
        pytest.param(200, b"<h1>Welcome</h1>", ["not a prediction", "<h1>Welcome</h1>"], id="another server"),
    ],
)
def test_error_status_is_described(
    chromium: Browser, site: Site, status: int, body: bytes, expected: list[str]
) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    site.fixed_response = status, body, {}
    text = predict(chromium)
    assert [word for word in expected if word not in text] == []


def test_unreachable_server_is_reported(chromium: Browser, site: Site) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    chromium.call("Network.enable")
    chromium.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    try:
        assert "No response" in predict(chromium)
    finally:
        chromium.call("Network.disable")


def test_response_of_another_version_is_reported(chromium: Browser, site: Site) -> None:
    chromium.open(site.serve(plane_of(manifest())))
    site.fixed_response = 200, b'{"predictions": [1.0]}', {"x-model-semver": "2.0.0"}
    assert "The response is from version 2.0.0, this page is of 1.2.3." in predict(chromium)


@pytest.mark.parametrize("path", ["models/flats", "models/flats/"])
def test_page_works_behind_a_path_prefix(chromium: Browser, site: Site, path: str) -> None:
    chromium.open(site.serve(plane_of(manifest())) + path)
    predict(chromium)
    assert site.requests[0][0] == "/models/flats/v1/models/flats:predict"
    assert chromium.run("document.querySelector('a[data-path]').href") == f"{site.url}models/flats/openapi.json"
    assert f"curl -s {site.url}models/flats/v1/models/flats:predict" in chromium.text("figure")


@pytest.mark.parametrize("needs_token", [True, False])
def test_token_is_sent_if_the_server_requires_one(chromium: Browser, site: Site, needs_token: bool) -> None:
    chromium.open(site.serve(plane_of(manifest()), needs_token=needs_token))
    if needs_token:
        chromium.fill("#token", "s3cret")
    predict(chromium)
    assert site.requests[0][1].get("authorization") == ("Bearer s3cret" if needs_token else None)


@pytest.fixture(scope="module")
def token_server(bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]) -> Server:
    """Start a server that requires a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, TOKEN)
        return start_server(bundles["regression"].directory, "regression").wait()


def open_without_token(chromium: Browser, server: Server, **options: Any) -> None:
    """Open the page of a server in a tab that has no token of it."""
    chromium.open(f"{server.url}/", **options)
    chromium.run("sessionStorage.clear()")
    chromium.open(f"{server.url}/", **options)
    chromium.wait("!gate.hidden")


def enter_token(chromium: Browser, token: str) -> None:
    """Enter a token in the page that takes it."""
    chromium.fill("#token", token)
    chromium.click("#gate button")


@pytest.mark.parametrize(("width", "dark"), [pytest.param(1400, False, id="wide"), pytest.param(360, True, id="phone")])
def test_page_takes_a_token_and_keeps_it_for_the_tab(
    chromium: Browser, token_server: Server, width: int, dark: bool
) -> None:
    # Given the page of a server with a token, which shows nothing of the model
    open_without_token(chromium, token_server, width=width, dark=dark)
    assert "district" not in chromium.run("document.documentElement.outerHTML")
    assert chromium.run("document.documentElement.scrollWidth") == width
    # When a wrong token is entered, and a text that no header can have, then the page says so
    for token, problem in [("wrong", "The server does not accept this token (401)"), ("\N{SNOWMAN}", "No response")]:
        enter_token(chromium, token)
        chromium.wait("!document.getElementById('token-error').hidden && !gate.querySelector('button').disabled")
        assert problem in chromium.text("#token-error")
    # When the token is entered, then the card is shown and predicts
    chromium.logged_errors.clear()
    enter_token(chromium, TOKEN)
    chromium.wait("document.getElementById('card') !== null")
    assert "423." in predict(chromium) or "price" in chromium.text("#output")
    assert chromium.run("document.documentElement.scrollWidth") == width
    # When a protected document is opened, then it is shown
    chromium.click("a[data-path='openapi.json']")
    chromium.wait("document.querySelector('dialog')?.open")
    assert '"openapi": "3.1.0"' in chromium.text("dialog pre")
    chromium.click("dialog button")
    # When the page is opened again in the tab, then it needs no token, and the example keeps it
    chromium.open(f"{token_server.url}/?again", width=width, dark=dark)
    chromium.wait("document.getElementById('card') !== null")
    chromium.click("button[type=reset]")
    chromium.wait(f"document.getElementById('token').value === '{TOKEN}'")
    assert chromium.logged_errors == []


def test_token_can_be_changed_and_forgotten(chromium: Browser, token_server: Server) -> None:
    # Given an opened card
    open_without_token(chromium, token_server)
    enter_token(chromium, TOKEN)
    chromium.wait("document.getElementById('card') !== null")
    # When the token becomes invalid, then its field says so
    chromium.fill("#token", "old")
    assert "The server requires a valid token (401)" in predict(chromium)
    assert chromium.text("#token-error") == "the server does not accept this token"
    assert chromium.run("document.activeElement.id") == "token"
    # When the page is opened with it, then it asks for another one
    chromium.open(f"{token_server.url}/?old")
    chromium.wait("!gate.hidden")
    assert chromium.text("#token-error") == "The token is no longer valid (401); enter the current one"
    # When the valid one is entered and forgotten, then the page has none
    enter_token(chromium, TOKEN)
    chromium.wait("document.getElementById('card') !== null")
    assert "price" in predict(chromium)
    chromium.click("#forget")
    chromium.wait("document.getElementById('gate')?.hidden === false", navigates=True)
    assert chromium.run("sessionStorage.length") == 0


def test_hostile_names_are_sent_unchanged_and_not_executed(chromium: Browser, site: Site) -> None:
    # Given names and categories that are markup or JavaScript properties
    names = [EVIL, "__proto__", "constructor", "größe 🚀", 'a "b"', "x" * 300]
    columns = {name: {"kind": "category", "values": [name, "it's"], "unseen": "refuse"} for name in names}
    row = {name: name for name in names}
    chromium.open(site.serve(plane_of(manifest_of(table_of(columns=columns), row)), name=EVIL), width=400)
    # When the row is predicted
    text = predict(chromium)
    # Then it arrives unchanged, no script has run, and nothing overflows the page
    assert "12.5" in text
    assert [json.dumps(body["instances"]) for _, _, body in site.requests] == [json.dumps([row])]
    assert chromium.run("window.hit") is None
    assert chromium.run("document.documentElement.scrollWidth") == 400
    assert chromium.logged_errors == []


@pytest.mark.parametrize("width", [320, 400, 768, 1400])
def test_nothing_overflows_the_page(chromium: Browser, site: Site, width: int) -> None:
    chromium.open(site.serve(plane_of(manifest())), width=width)
    predict(chromium)
    assert chromium.run("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [pytest.param(False, id="light"), pytest.param(True, id="dark")])
def test_colours_have_sufficient_contrast(chromium: Browser, site: Site, dark: bool) -> None:
    # WCAG 2 asks for a contrast of 4.5 of text, and of 3 of what surrounds a control
    chromium.open(site.serve(plane_of(manifest())), dark=dark)
    colours = chromium.run(
        "Object.fromEntries(['ink', 'soft', 'bad', 'good', 'a', 'on-a', 'edge', 'page', 'card'].map(name =>"
        " [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"
    )
    for ink in ("ink", "soft", "bad", "good", "a"):
        assert min(contrast(colours[ink], colours[ground]) for ground in ("page", "card")) >= 4.5, ink
    assert contrast(colours["on-a"], colours["a"]) >= 4.5
    assert contrast(colours["edge"], colours["card"]) >= 3


def contrast(first: str, second: str) -> float:
    """Compute the contrast of two colours by WCAG 2."""
    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Compute the luminance of `#rgb` or `#rrggbb` by WCAG 2."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_page_without_javascript_shows_the_card(chromium: Browser, site: Site) -> None:
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(site.serve(plane_of(manifest())))
        text = chromium.text("body")
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "The form needs JavaScript" in text
    assert "In square metres." in text
    assert "Example" not in text.splitlines()
