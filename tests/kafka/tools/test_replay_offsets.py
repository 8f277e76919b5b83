"""What is left of a partition, over any number of rounds that each take some of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.kafka.tools.replay_offsets import MOST_TEXT, Mark, Remainder


def go(mark: Mark | None, offsets: list[int], wanted: set[int], *, begin: int = 0) -> tuple[list[int], Mark]:
    """One round: what it takes of the records at `offsets`, and what it commits."""
    remainder = Remainder.read(mark, begin)
    taken = []
    for offset in (one for one in offsets if one >= remainder.begin):
        is_taken = remainder.has(offset) and offset in wanted
        if is_taken:
            taken.append(offset)
        remainder.pass_by(offset, is_left=remainder.has(offset) and not is_taken)
    return taken, remainder.mark()


def test_a_round_that_takes_all_leaves_a_plain_offset() -> None:
    assert go(None, [0, 1, 4], {0, 1, 4}) == ([0, 1, 4], Mark(5, ""))


def test_a_round_that_takes_some_leaves_the_others_to_the_next_and_to_nobody_else() -> None:
    taken, mark = go(None, [0, 2, 4, 6], {2, 6})
    assert (taken, mark.offset) == ([2, 6], 0)
    assert go(mark, [0, 2, 4, 6, 8], {0, 2, 4, 6, 8}) == ([0, 4, 8], Mark(9, ""))


def test_gaps_between_records_need_no_words() -> None:
    apart, close = go(None, [*range(0, 90, 9)], {72})[1], go(None, [*range(10)], {8})[1]
    assert len(apart.text) <= len(close.text) + 4


def test_what_was_cleaned_away_is_left_no_more() -> None:
    _, mark = go(None, [0, 2, 4, 6], {4})
    assert go(mark, [4, 6], {4, 6}, begin=3) == ([6], Mark(7, ""))


def test_what_lies_too_scattered_is_refused_and_ten_thousand_turns_in_a_pattern_are_not() -> None:
    assert len(go(None, [*range(20_000)], {*range(0, 20_000, 2)})[1].text) < 200
    wild = {number for number in range(60_000) if hash((number, 7)) % 3 == 0}
    with pytest.raises(DataError, match=f"do not fit into {MOST_TEXT} bytes"):
        go(None, [*range(60_000)], wild)


@pytest.mark.parametrize("text", ["hello", "c%1E40zz", "1,2", "\u00e9"])
def test_a_text_of_somebody_else_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="of somebody else"):
        Remainder.read(Mark(3, text), 0)


@given(
    offsets=st.lists(st.integers(0, 30), unique=True).map(sorted),
    rounds=st.lists(st.tuples(st.sets(st.integers(0, 30)), st.integers(0, 30), st.integers(0, 12)), max_size=6),
)
def test_each_record_is_taken_once_by_the_first_round_that_wants_it(
    offsets: list[int], rounds: list[tuple[set[int], int, int]]
) -> None:
    mark, left = None, [*offsets]
    begin = 0
    for wanted, end, cleaned in rounds:  # each is killed at some offset, and finds some cleaned away
        begin = max(begin, cleaned)
        left = [one for one in left if one >= begin]
        expected = [one for one in left if one in wanted and one < end]
        taken, mark = go(mark, [one for one in offsets if begin <= one < end], wanted, begin=begin)
        assert taken == expected
        left = [one for one in left if one not in taken]
    assert go(mark, [one for one in offsets if one >= begin], set(offsets), begin=begin)[0] == left
