"""The delivery audit, compared with a model that stores every record."""

from collections import defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.kafka.records import RecordPosition
from model_name.kafka.tools.delivery_audit import MAX_EXAMPLES, DeliveryAudit, VerificationReport
from model_name.kafka.tools.topic_reader import OffsetRange


class Output(NamedTuple):
    """Result or dead letter, as a record of its topic and with the position of its input record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    source: RecordPosition | None


def run_audit(
    records: dict[int, set[int]],
    outputs: list[Output],
    *,
    ranges: dict[int, OffsetRange] | None = None,
    due_offsets: dict[int, int] | None = None,
    old: frozenset[tuple[int, int]] = frozenset(),
) -> VerificationReport:
    ranges = ranges or {one: OffsetRange(0, max(offsets, default=-1) + 1) for one, offsets in records.items()}
    audit = DeliveryAudit("in", ranges, due_offsets or {one: offsets.end for one, offsets in ranges.items()})
    for output in outputs:
        audit.add_output(output, output.source, is_result=output.topic == "out")  # type: ignore[arg-type]
    for partition, offsets in records.items():
        audit.add_inputs(partition, sorted(offsets), [(partition, one) in old for one in sorted(offsets)])
    return audit.report()


def count_findings(report: VerificationReport) -> dict[str, int]:
    """Count the records of each finding."""
    return {name: found["count"] for name, found in report.model_dump().items() if isinstance(found, dict)}


def results(*offsets: int, key: bytes | None = None, partition: int = 0, topic: str = "out") -> list[Output]:
    """Make results of the records at these offsets, in this order."""
    return [Output(topic, partition, at, key, RecordPosition("in", 0, offset)) for at, offset in enumerate(offsets)]


NOTHING = dict.fromkeys(("lost", "doubled", "reordered", "unknown", "foreign", "waiting", "expired"), 0)


@pytest.mark.parametrize(
    ("outputs", "name", "examples"),
    [
        pytest.param(results(0, 1, 2, 3), "", (), id="no violation"),
        pytest.param(results(0, 1, 3), "lost", ("in[0]@2",), id="a lost record"),
        pytest.param(results(0, 1, 1, 2, 3), "doubled", ("in[0]@1 -> out[0]@1, out[0]@2",), id="a doubled record"),
        pytest.param(results(0, 2, 1, 3), "reordered", ("in[0]@1 -> out[0]@2",), id="two swapped results"),
        pytest.param(results(0, 1, 2, 3, 0, 1)[:5], "doubled", ("in[0]@0 -> out[0]@0, out[0]@4",), id="a batch again"),
        pytest.param([*results(0, 1, 2), *results(3, topic="dead")], "", (), id="a dead letter instead of a result"),
        pytest.param(
            [*results(0, 1, 2, 3), *results(3, topic="dead")],
            "doubled",
            ("in[0]@3 -> out[0]@3, dead[0]@0",),
            id="a result and a dead letter",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"k", partition=1)],
            "reordered",
            ("in[0]@3 -> out[1]@0",),
            id="a key in two partitions",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"k", partition=1, topic="dead")],
            "",
            (),
            id="results and dead letters of a key in two topics",
        ),
        pytest.param(
            [*results(0, 1, 2, key=b"k"), *results(3, key=b"j", partition=1)],
            "",
            (),
            id="two keys in two partitions",
        ),
        pytest.param([*results(0, 2), *results(1, 3, partition=1)], "", (), id="no keys, two partitions"),
        pytest.param([*results(0, 1, 2, 3), Output("out", 0, 9, None, None)], "foreign", ("out[0]@9",), id="no source"),
        pytest.param(
            [*results(0, 1, 2, 3), Output("out", 0, 9, None, RecordPosition("other", 0, 1))],
            "foreign",
            ("out[0]@9",),
            id="a source in another topic",
        ),
        pytest.param(
            [*results(0, 1, 2, 3), Output("out", 0, 9, None, RecordPosition("in", 7, 1))],
            "unknown",
            ("in[7]@1 -> out[0]@9",),
            id="a source in an unknown partition",
        ),
        pytest.param([*results(0, 1, 2, 3, 4, 99)], "", (), id="records produced meanwhile"),
    ],
)
def test_findings_about_four_records(outputs: list[Output], name: str, examples: tuple[str, ...]) -> None:
    report = run_audit({0: {0, 1, 2, 3}}, outputs)
    assert count_findings(report) == NOTHING | ({name: 1} if name else {})
    assert report.is_clean == (name not in ("lost", "doubled", "reordered"))
    if name:
        assert getattr(report, name).examples == examples


def test_gaps_between_offsets_are_no_records() -> None:
    report = run_audit({0: {0, 3, 9}}, results(0, 3, 9))
    assert report.records == 3
    assert count_findings(report) == NOTHING


def test_a_result_of_a_gap_is_unknown() -> None:
    report = run_audit({0: {0, 3}}, results(0, 2, 3))
    assert report.unknown.examples == ("in[0]@2 -> out[0]@1",)
    assert report.is_clean


def test_results_of_records_deleted_meanwhile_are_not_unknown() -> None:
    audit = DeliveryAudit("in", {0: OffsetRange(0, 4)}, {0: 4})
    for output in results(0, 1, 2, 3):
        audit.add_output(output, output.source, is_result=True)  # type: ignore[arg-type]
    audit.add_inputs(0, [2, 3])
    audit.set_log_start(0, 2)
    assert count_findings(audit.report()) == NOTHING


def test_uncommitted_records_without_a_result_are_waiting() -> None:
    report = run_audit({0: {0, 1, 2, 3}}, results(0), due_offsets={0: 2})
    assert (report.lost.examples, report.waiting.examples) == (("in[0]@1",), ("in[0]@2", "in[0]@3"))


def test_records_older_than_the_retained_results_are_expired_not_lost() -> None:
    report = run_audit({0: {5, 6, 7}}, results(6), ranges={0: OffsetRange(5, 8)}, old=frozenset({(0, 5), (0, 6)}))
    assert (report.expired.examples, report.lost.examples) == (("in[0]@5",), ("in[0]@7",))


def test_examples_are_limited() -> None:
    report = run_audit({0: set(range(1000))}, results(*range(500), *range(500)))
    assert (report.lost.count, len(report.lost.examples)) == (500, MAX_EXAMPLES)
    assert (report.doubled.count, len(report.doubled.examples)) == (500, MAX_EXAMPLES)
    assert all(", " in example for example in report.doubled.examples)
    assert report.summary == "500 lost, 500 doubled"


# Any sequence


def expected(
    records: dict[int, set[int]],
    outputs: list[Output],
    ranges: dict[int, OffsetRange],
    due_offsets: dict[int, int],
    old: Any,
) -> dict[str, int]:
    """Compute the findings by brute force."""
    found: dict[str, set[Any]] = defaultdict(set)
    outputs_by_source: dict[RecordPosition, list[Output]] = defaultdict(list)
    for output in outputs:
        if output.source is None or output.source.topic != "in":
            found["foreign"].add((output.topic, output.partition, output.offset))
        elif output.source.partition not in ranges:
            found["unknown"].add((output.topic, output.partition, output.offset))
        elif output.source.offset in range(*ranges[output.source.partition]):
            outputs_by_source[output.source].append(output)
    for source, outputs_of_source in outputs_by_source.items():
        if source.offset not in records[source.partition]:
            found["unknown"].add(source)
        if len(outputs_of_source) > 1:
            found["doubled"].add(source)
        first = outputs_of_source[0]
        for other, (output, *_) in outputs_by_source.items():
            if other.partition != source.partition:
                continue
            is_before = (output.topic, output.partition) == (first.topic, first.partition) and (
                outputs.index(output) < outputs.index(first)
            )
            if is_before and other.offset > source.offset:
                found["reordered"].add(source)
        same = [
            s for s, (a, *_) in outputs_by_source.items() if s.partition == source.partition and a.topic == first.topic
        ]
        same_key = [s for s in same if first.key is not None and outputs_by_source[s][0].key == first.key]
        if same_key and outputs_by_source[min(same_key)][0].partition != first.partition:
            found["reordered"].add(source)
    for partition, offsets in records.items():
        for offset in offsets:
            if outputs_by_source.get(RecordPosition("in", partition, offset)):
                continue
            is_due, is_old = offset < due_offsets[partition], (partition, offset) in old
            found["waiting" if not is_due else "expired" if is_old else "lost"].add((partition, offset))
    return {name: len(found[name]) for name in NOTHING}


partitions = st.integers(0, 2)
sources = st.none() | st.builds(
    RecordPosition, st.sampled_from(["in", "in", "in", "other"]), partitions, st.integers(0, 9)
)
written = st.lists(
    st.tuples(st.sampled_from(["out", "dead"]), st.integers(0, 1), st.sampled_from([None, b"a", b"b"]), sources),
    max_size=25,
)
offsets = st.sets(st.integers(2, 7))


@given(
    records=st.fixed_dictionaries({0: offsets, 1: offsets}),
    written=written,
    due_offsets=st.fixed_dictionaries({0: st.integers(0, 9), 1: st.integers(0, 9)}),
    old=st.frozensets(st.tuples(st.integers(0, 1), st.integers(2, 7))),
)
def test_any_sequence_has_the_findings_of_the_model(
    records: dict[int, set[int]], written: list[Any], due_offsets: dict[int, int], old: frozenset[tuple[int, int]]
) -> None:
    ranges = {0: OffsetRange(2, 8), 1: OffsetRange(2, 8)}
    outputs = [Output(topic, number, at, key, source) for at, (topic, number, key, source) in enumerate(written)]
    report = run_audit(records, outputs, ranges=ranges, due_offsets=due_offsets, old=old)
    assert count_findings(report) == expected(records, outputs, ranges, due_offsets, old)
    assert report.records == sum(map(len, records.values()))
    assert report.results + report.dead_letters == len(outputs)
