"""Command line of a server: options of KServe's server and of this one."""

from __future__ import annotations

import json
import logging
import logging.config
import socket
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_name.errors import ConfigError
from model_name.serving.arguments import (
    LOG_OPTIONS,
    UNUSED_OPTIONS,
    ListenAddress,
    boolean,
    build_parser,
    check_ports_free,
    warn_of_unused_options,
)
from model_name.serving.limits import Limits
from model_name.serving.runtime.log_config import load_log_config

OTHER_DEFAULTS = {
    "model_name": None,  # the bundle has a name
    "enable_latency_logging": False,
    "grpc_max_receive_message_length": Limits().body_bytes,
    "grpc_max_send_message_length": Limits().body_bytes,
}
"""Defaults that differ from those of KServe's server."""


def test_a_taken_port_is_reported() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--http_port {port}: "):
            check_ports_free(ListenAddress("", port, None))
    check_ports_free(ListenAddress("", port, None))


def test_every_option_of_kserve_is_accepted_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["server"])  # KServe parses it when it is imported
    from kserve.model_server import parser as kserve_parser

    ours = vars(build_parser("server", None).parse_args([]))
    defaults = {action.dest: action.default for action in kserve_parser._actions if action.default != SUPPRESS}
    assert {name: ours[name] for name in defaults} == defaults | OTHER_DEFAULTS
    flags = {flag for action in build_parser("server", None)._actions for flag in action.option_strings}
    assert {flag for action in kserve_parser._actions for flag in action.option_strings} <= flags


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max_threads", "8"),
        ("--max_asyncio_workers", "8"),
        ("--enable_latency_logging", "true"),
        ("--access_log_format", "%(message)s"),
        ("--predictor_host", "example.com"),
        ("--protocol", "v2"),
        ("--predictor_protocol", "grpc-v2"),
        ("--predictor_use_ssl", "true"),
        ("--predictor_request_timeout_seconds", "1"),
        ("--predictor_request_retries", "1"),
        ("--enable_predictor_health_check", None),
    ],
)
def test_an_option_without_effect_causes_a_warning(
    option: str, value: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    args = build_parser("server", None).parse_args([option] if value is None else [option, value])
    assert getattr(args, option.removeprefix("--")) not in (None, False)
    warn_of_unused_options(args)
    assert caplog.messages == [f"{option} has no effect: {UNUSED_OPTIONS[option][0]}"]


def test_the_options_of_the_log_cause_a_warning_on_a_server_without_one(caplog: pytest.LogCaptureFixture) -> None:
    options = [
        "--prediction_log",
        "folder",
        "--log_sampling",
        "0.5",
        "--log_text_ids",
        "true",
        "--log_flush_seconds",
        "1",
    ]
    warn_of_unused_options(build_parser("server", None, has_log=False).parse_args(options))
    assert caplog.messages == [f"{option} has no effect: explanations are not logged" for option in LOG_OPTIONS]
    caplog.clear()
    warn_of_unused_options(build_parser("server", None).parse_args(options))
    assert caplog.messages == []


def test_options_that_are_not_given_cause_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_options(build_parser("server", None).parse_args([]))
    assert caplog.messages == []


def test_a_warning_for_every_option_without_effect_is_tested() -> None:
    (mark,) = test_an_option_without_effect_causes_a_warning.pytestmark  # type: ignore[attr-defined]  # pytest's
    assert [option for option, _ in mark.args[1]] == [*UNUSED_OPTIONS]


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("T", True), ("1", True), ("off", False), ("N", False), ("0", False)]
)
def test_truth_values_are_those_of_kserve(text: str, value: bool) -> None:
    assert boolean(text) is value


def test_an_invalid_truth_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser("server", None).parse_args(["--enable_grpc", "maybe"])
    assert "argument --enable_grpc: invalid boolean value: 'maybe'" in capsys.readouterr().err


def test_the_certificate_of_kserves_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSERVE_TLS_CERT_FILE", "/tls/tls.crt")
    monkeypatch.setenv("KSERVE_TLS_KEY_FILE", "/tls/tls.key")
    args = build_parser("server", None).parse_args([])
    assert (args.ssl_certfile, args.ssl_keyfile) == ("/tls/tls.crt", "/tls/tls.key")


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml", ".ini"])
def test_a_logging_configuration_is_loaded_by_its_format(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(logging.config, "dictConfig", loaded.append)
    monkeypatch.setattr(logging.config, "fileConfig", lambda path, **_: loaded.append(path))
    path = tmp_path / f"logging{suffix}"
    config = {"version": 1, "loggers": {"a": {"level": "INFO"}}}
    path.write_text(json.dumps(config) if suffix == ".json" else yaml.safe_dump(config), encoding="utf-8")
    load_log_config(str(path))
    assert loaded == [str(path) if suffix == ".ini" else config]
