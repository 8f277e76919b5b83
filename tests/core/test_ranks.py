"""Which process this is, as torchrun says."""

import pytest

from model_name.core import ranks


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, (1, 0, True, 1), id="alone"),
        pytest.param(
            {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "4"}, (1, 0, True, 1), id="a pod of a cluster"
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            (1, 0, True, 1),
            id="torchrun with one process",
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            (4, 0, True, 2),
            id="the first of torchrun's processes",
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2"},
            (4, 3, False, 2),
            id="the last of them",
        ),
    ],
)
def test_only_torchrun_is_believed(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (ranks.world_size(), ranks.rank(), ranks.is_main_process(), ranks.local_world_size()) == expected
