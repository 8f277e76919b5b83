"""What became of records, against a model that keeps everything."""

from collections import defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.kafka.records import Source
from model_name.kafka.tools.delivery_audit import EXAMPLES, Accounts, Verdict
from model_name.kafka.tools.topic_reader import Span


class Reply(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    source: Source | None


def judge(
    records: dict[int, set[int]],
    replies: list[Reply],
    *,
    spans: dict[int, Span] | None = None,
    committed: dict[int, int] | None = None,
    old: frozenset[tuple[int, int]] = frozenset(),
) -> Verdict:
    spans = spans or {one: Span(0, max(offsets, default=-1) + 1) for one, offsets in records.items()}
    accounts = Accounts("in", spans, committed or {one: span.end for one, span in spans.items()})
    for reply in replies:
        accounts.reply(reply, reply.source, is_result=reply.topic == "out")  # type: ignore[arg-type]
    for partition, offsets in records.items():
        accounts.records(partition, sorted(offsets), [(partition, one) in old for one in sorted(offsets)])
    return accounts.verdict()


def counts(verdict: Verdict) -> dict[str, int]:
    return {name: found["count"] for name, found in verdict.model_dump().items() if isinstance(found, dict)}


def results(*offsets: int, key: bytes | None = None, partition: int = 0, topic: str = "out") -> list[Reply]:
    return [Reply(topic, partition, at, key, Source("in", 0, offset)) for at, offset in enumerate(offsets)]


NOTHING = dict.fromkeys(("lost", "doubled", "reordered", "unknown", "foreign", "waiting", "expired"), 0)


@pytest.mark.parametrize(
    ("replies", "name", "examples"),
    [
        pytest.param(results(0, 1, 2, 3), "", (), id="all is well"),
        pytest.param(results(0, 1, 3), "lost", ("in[0]@2",), id="one is lost"),
        pytest.param(results(0, 1, 1, 2, 3), "doubled", ("in[0]@1 -> out[0]@1, out[0]@2",), id="one is doubled"),
        pytest.param(results(0, 2, 1, 3), "reordered", ("in[0]@1 -> out[0]@2",), id="two are swapped"),
        pytest.param(results(0, 1, 2, 3, 0, 1)[:5], "doubled", ("in[0]@0 -> out[0]@0, out[0]@4",), id="one again"),
        pytest.param([*results(0, 1, 2), *results(3, topic="dead")], "", (), id="a dead letter is an answer"),
        pytest.param(
            [*results(0, 1, 2, 3), *results(3, topic="dead")],
            "doubled",
            ("in[0]@3 -> out[0]@3, dead[0]@0",),
            id="a result and a dead letter are one too many",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"k", partition=1)],
            "reordered",
            ("in[0]@3 -> out[1]@0",),
            id="a key in two partitions has no order",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"k", partition=1, topic="dead")],
            "",
            (),
            id="a key has its results in one topic and its dead letters in another",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"j", partition=1)], "", (), id="two keys in two partitions"
        ),
        pytest.param(
            [*results(0, 2), *results(1, 3, partition=1)], "", (), id="without a key, partitions have no order"
        ),
        pytest.param([*results(0, 1, 2, 3), Reply("out", 0, 9, None, None)], "foreign", ("out[0]@9",), id="no source"),
        pytest.param(
            [*results(0, 1, 2, 3), Reply("out", 0, 9, None, Source("other", 0, 1))],
            "foreign",
            ("out[0]@9",),
            id="of another topic",
        ),
        pytest.param(
            [*results(0, 1, 2, 3), Reply("out", 0, 9, None, Source("in", 7, 1))],
            "unknown",
            ("in[7]@1 -> out[0]@9",),
            id="of a partition that is none",
        ),
        pytest.param([*results(0, 1, 2, 3, 4, 99)], "", (), id="of records that came meanwhile"),
    ],
)
def test_four_records_and_what_became_of_them(replies: list[Reply], name: str, examples: tuple[str, ...]) -> None:
    verdict = judge({0: {0, 1, 2, 3}}, replies)
    assert counts(verdict) == NOTHING | ({name: 1} if name else {})
    assert verdict.is_clean == (name not in ("lost", "doubled", "reordered"))
    if name:
        assert getattr(verdict, name).examples == examples


def test_gaps_are_no_records() -> None:
    verdict = judge({0: {0, 3, 9}}, results(0, 3, 9))
    assert verdict.records == 3
    assert counts(verdict) == NOTHING


def test_a_result_of_a_gap_is_of_nothing_known() -> None:
    verdict = judge({0: {0, 3}}, results(0, 2, 3))
    assert verdict.unknown.examples == ("in[0]@2 -> out[0]@1",)
    assert verdict.is_clean


def test_what_was_cleaned_away_meanwhile_is_not_unknown() -> None:
    accounts = Accounts("in", {0: Span(0, 4)}, {0: 4})
    for reply in results(0, 1, 2, 3):
        accounts.reply(reply, reply.source, is_result=True)  # type: ignore[arg-type]
    accounts.records(0, [2, 3])
    accounts.begins_at(0, 2)
    assert counts(accounts.verdict()) == NOTHING


def test_what_is_not_committed_waits() -> None:
    verdict = judge({0: {0, 1, 2, 3}}, results(0), committed={0: 2})
    assert (verdict.lost.examples, verdict.waiting.examples) == (("in[0]@1",), ("in[0]@2", "in[0]@3"))


def test_what_is_older_than_the_results_that_are_left_is_not_called_lost() -> None:
    verdict = judge({0: {5, 6, 7}}, results(6), spans={0: Span(5, 8)}, old=frozenset({(0, 5), (0, 6)}))
    assert (verdict.expired.examples, verdict.lost.examples) == (("in[0]@5",), ("in[0]@7",))


def test_of_many_only_some_are_named() -> None:
    verdict = judge({0: set(range(1000))}, results(*range(500), *range(500)))
    assert (verdict.lost.count, len(verdict.lost.examples)) == (500, EXAMPLES)
    assert (verdict.doubled.count, len(verdict.doubled.examples)) == (500, EXAMPLES)
    assert all(", " in example for example in verdict.doubled.examples)
    assert verdict.words == "500 lost, 500 doubled"


# Any sequence


def expected(
    records: dict[int, set[int]], replies: list[Reply], spans: dict[int, Span], committed: dict[int, int], old: Any
) -> dict[str, int]:
    """As the accounts, with a list for everything."""
    found: dict[str, set[Any]] = defaultdict(set)
    of: dict[Source, list[Reply]] = defaultdict(list)
    for reply in replies:
        if reply.source is None or reply.source.topic != "in":
            found["foreign"].add((reply.topic, reply.partition, reply.offset))
        elif reply.source.partition not in spans:
            found["unknown"].add((reply.topic, reply.partition, reply.offset))
        elif reply.source.offset in range(*spans[reply.source.partition]):
            of[reply.source].append(reply)
    for source, all_of in of.items():
        if source.offset not in records[source.partition]:
            found["unknown"].add(source)
        if len(all_of) > 1:
            found["doubled"].add(source)
        first = all_of[0]
        for other, (answer, *_) in of.items():
            if other.partition != source.partition:
                continue
            is_before = (answer.topic, answer.partition) == (first.topic, first.partition) and (
                replies.index(answer) < replies.index(first)
            )
            if is_before and other.offset > source.offset:
                found["reordered"].add(source)
        same = [s for s, (a, *_) in of.items() if s.partition == source.partition and a.topic == first.topic]
        same_key = [s for s in same if first.key is not None and of[s][0].key == first.key]
        if same_key and of[min(same_key)][0].partition != first.partition:
            found["reordered"].add(source)
    for partition, offsets in records.items():
        for offset in offsets:
            if of.get(Source("in", partition, offset)):
                continue
            is_due, is_old = offset < committed[partition], (partition, offset) in old
            found["waiting" if not is_due else "expired" if is_old else "lost"].add((partition, offset))
    return {name: len(found[name]) for name in NOTHING}


partitions = st.integers(0, 2)
sources = st.none() | st.builds(Source, st.sampled_from(["in", "in", "in", "other"]), partitions, st.integers(0, 9))
written = st.lists(
    st.tuples(st.sampled_from(["out", "dead"]), st.integers(0, 1), st.sampled_from([None, b"a", b"b"]), sources),
    max_size=25,
)
offsets = st.sets(st.integers(2, 7))


@given(
    records=st.fixed_dictionaries({0: offsets, 1: offsets}),
    written=written,
    committed=st.fixed_dictionaries({0: st.integers(0, 9), 1: st.integers(0, 9)}),
    old=st.frozensets(st.tuples(st.integers(0, 1), st.integers(2, 7))),
)
def test_any_sequence_is_judged_as_by_who_keeps_everything(
    records: dict[int, set[int]], written: list[Any], committed: dict[int, int], old: frozenset[tuple[int, int]]
) -> None:
    spans = {0: Span(2, 8), 1: Span(2, 8)}
    replies = [Reply(topic, number, at, key, source) for at, (topic, number, key, source) in enumerate(written)]
    verdict = judge(records, replies, spans=spans, committed=committed, old=old)
    assert counts(verdict) == expected(records, replies, spans, committed, old)
    assert verdict.records == sum(map(len, records.values()))
    assert verdict.results + verdict.dead_letters == len(replies)
