"""Pending dead letters of a partition over several replays that each send some of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.kafka.tools.replay_offsets import MAX_METADATA_BYTES, PendingOffsets, ReplayCheckpoint


def replay_once(
    checkpoint: ReplayCheckpoint | None, offsets: list[int], selected: set[int], *, log_start: int = 0
) -> tuple[list[int], ReplayCheckpoint]:
    """Replay once: return the offsets that are sent, and the checkpoint."""
    pending = PendingOffsets.from_checkpoint(checkpoint, log_start)
    sent = []
    for offset in (one for one in offsets if one >= pending.first_pending):
        is_sent = pending.is_pending(offset) and offset in selected
        if is_sent:
            sent.append(offset)
        pending.advance(offset, is_pending=pending.is_pending(offset) and not is_sent)
    return sent, pending.to_checkpoint()


def test_a_complete_replay_commits_a_plain_offset() -> None:
    assert replay_once(None, [0, 1, 4], {0, 1, 4}) == ([0, 1, 4], ReplayCheckpoint(5, ""))


def test_a_partial_replay_leaves_the_others_pending() -> None:
    sent, checkpoint = replay_once(None, [0, 2, 4, 6], {2, 6})
    assert (sent, checkpoint.offset) == ([2, 6], 0)
    assert replay_once(checkpoint, [0, 2, 4, 6, 8], {0, 2, 4, 6, 8}) == ([0, 4, 8], ReplayCheckpoint(9, ""))


def test_gaps_between_offsets_do_not_enlarge_the_metadata() -> None:
    apart, adjacent = replay_once(None, [*range(0, 90, 9)], {72})[1], replay_once(None, [*range(10)], {8})[1]
    assert len(apart.metadata) <= len(adjacent.metadata) + 4


def test_deleted_records_are_not_pending() -> None:
    _, checkpoint = replay_once(None, [0, 2, 4, 6], {4})
    assert replay_once(checkpoint, [4, 6], {4, 6}, log_start=3) == ([6], ReplayCheckpoint(7, ""))


def test_ten_thousand_regular_ranges_fit_and_irregular_ones_are_rejected() -> None:
    assert len(replay_once(None, [*range(20_000)], {*range(0, 20_000, 2)})[1].metadata) < 200
    irregular = {number for number in range(60_000) if hash((number, 7)) % 3 == 0}
    with pytest.raises(DataError, match=f"do not fit into {MAX_METADATA_BYTES} bytes"):
        replay_once(None, [*range(60_000)], irregular)


@pytest.mark.parametrize("text", ["hello", "c%1E40zz", "1,2", "\u00e9"])
def test_foreign_metadata_is_rejected(text: str) -> None:
    with pytest.raises(DataError, match="of somebody else"):
        PendingOffsets.from_checkpoint(ReplayCheckpoint(3, text), 0)


@given(
    offsets=st.lists(st.integers(0, 30), unique=True).map(sorted),
    replays=st.lists(st.tuples(st.sets(st.integers(0, 30)), st.integers(0, 30), st.integers(0, 12)), max_size=6),
)
def test_each_record_is_sent_once_by_the_first_replay_that_selects_it(
    offsets: list[int], replays: list[tuple[set[int], int, int]]
) -> None:
    checkpoint, remaining = None, [*offsets]
    log_start = 0
    for selected, end, deleted in replays:  # each ends at some offset, and retention deletes records before it
        log_start = max(log_start, deleted)
        remaining = [one for one in remaining if one >= log_start]
        expected = [one for one in remaining if one in selected and one < end]
        sent, checkpoint = replay_once(
            checkpoint, [one for one in offsets if log_start <= one < end], selected, log_start=log_start
        )
        assert sent == expected
        remaining = [one for one in remaining if one not in sent]
    assert (
        replay_once(checkpoint, [one for one in offsets if one >= log_start], set(offsets), log_start=log_start)[0]
        == remaining
    )
