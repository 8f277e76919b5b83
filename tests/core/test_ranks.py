"""Rank and world size in the environments of torchrun and of a cluster."""

import pytest

from model_name.core import ranks


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, (1, 0, True, 1), id="a single process"),
        pytest.param(
            {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "4"}, (1, 0, True, 1), id="a pod without torchrun"
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            (1, 0, True, 1),
            id="torchrun with one process",
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            (4, 0, True, 2),
            id="first process of torchrun",
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2"},
            (4, 3, False, 2),
            id="last process of torchrun",
        ),
    ],
)
def test_world_size_and_rank_come_from_torchrun_only(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (ranks.world_size(), ranks.rank(), ranks.is_main_process(), ranks.local_world_size()) == expected
