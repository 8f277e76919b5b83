"""Request bodies of any size whose shape is chosen to make a decoder slow, by protocol and name of the shape.

A shape is a function of a size in bytes; the body that it returns is about as long. Most bodies are invalid.
"""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DTYPES

Shape = Callable[[int], bytes]
"""Returns a body of about the given number of bytes."""
Row = Mapping[str, Any]


def repeated(part: bytes, start: bytes = b"", end: bytes = b"") -> Shape:
    """Create a shape that repeats a part."""
    return lambda size: start + part * (size // len(part)) + end


def numbered(pattern: str, start: bytes = b"", end: bytes = b"", separator: bytes = b",") -> Shape:
    """Create a shape that repeats a pattern with a number in it, so that no two parts are equal."""

    def shape(size: int) -> bytes:
        length = len(pattern % 100_000) + len(separator)
        return start + separator.join([(pattern % number).encode() for number in range(size // length)]) + end

    return shape


def nested(opening: bytes, closing: bytes) -> Shape:
    """Create a shape that nests, and closes again."""
    return lambda size: opening * (size // len(opening + closing)) + closing * (size // len(opening + closing))


def last_key_twice(size: int) -> bytes:
    """Create an object of many keys, of which only the last one comes twice."""
    members = [f'"k{number}":1' for number in range(size // 10)]
    return ("{" + ",".join([*members, members[-1]]) + "}").encode()


JSON_VALUES: dict[str, Shape] = {
    "a long text": repeated(b"a", b'"', b'"'),
    "a text without an end": repeated(b"a", b'"'),
    "escaped quotes": repeated(rb"\"", b'"', b'"'),
    "escaped quotes without an end": repeated(rb"\"", b'"'),
    "backslashes": repeated(rb"\\", b'"', b'"'),
    "an odd number of backslashes": repeated(rb"\\", b'"\\', b'"'),
    "escaped letters": repeated(rb"\u00e9", b'"', b'"'),
    "halves of surrogate pairs": repeated(rb"\ud800", b'"', b'"'),
    "surrogate pairs": repeated(rb"\ud83d\ude00", b'"', b'"'),
    "surrogate pairs in the wrong order": repeated(rb"\ude00\ud83d", b'"', b'"'),
    "an unfinished escape": repeated(rb"\u00e", b'"', b'"'),
    "UTF-8 of four bytes": repeated("\U0001f600".encode(), b'"', b'"'),
    "UTF-8 that breaks off": repeated("\u4e2d".encode(), b'"', b'\xe4"'),
    "bytes that are not UTF-8": repeated(b"\xff", b'"', b'"'),
    "NUL bytes": repeated(b"\0", b'"', b'"'),
    "ends of keys in a text": repeated(rb"\":", b'"', b'"'),
    "colons in a text": repeated(b":", b'"', b'"'),
    "brackets in a text": repeated(b"[{", b'"', b'"'),
    "short texts": repeated(b'"a",', b"[", b'"a"]'),
    "empty texts": repeated(b'"",', b"[", b'""]'),
    "NaN": repeated(b"NaN,", b"[", b"NaN]"),
    "Infinity": repeated(b"-Infinity,", b"[", b"Infinity]"),
    "NaN, then a text without an end": repeated(rb"\"", b'[NaN, "'),
    "NaN, then halves of surrogate pairs": repeated(rb"\ud800", b'[NaN, "', b'"]'),
    "NaN, then a list without an end": repeated(b"1,", b"[NaN,"),
    "NaN, then a long number": repeated(b"1", b"[NaN,", b"]"),
    "NaN, then deep lists": repeated(b"[", b"[NaN,"),
    "NaN, then many keys": numbered('"k%d":1', b"[NaN,{", b"}]"),
    "constants cut off": repeated(b"Na", b"[", b"]"),
    "a long integer": repeated(b"1"),
    "a long fraction": repeated(b"1", b"0."),
    "a long exponent": repeated(b"9", b"1e"),
    "a number without an end": repeated(b"1", b"-"),
    "integers of 4300 digits": repeated(b"1" * 4300 + b",", b"[", b"1]"),
    "integers of 30 digits": repeated(b"1" * 30 + b",", b"[", b"1]"),
    "numbers that overflow": repeated(b"1e999,", b"[", b"1]"),
    "numbers that underflow": repeated(b"2.2250738585072011e-308,", b"[", b"1]"),
    "numbers halfway between two floats": repeated(b"9007199254740993.0000000000000000000001,", b"[", b"1]"),
    "numbers of 800 digits": repeated(b"1." + b"7" * 800 + b",", b"[", b"1]"),
    "minus signs": repeated(b"-", b"[", b"1]"),
    "zeros": repeated(b"0,", b"[", b"0]"),
    "nulls": repeated(b"null,", b"[", b"null]"),
    "commas": repeated(b",", b"[", b"]"),
    "white space": repeated(b" \n\t\r", b"[", b"1]"),
    "white space before colons": repeated(b'"a" :1,', b"{", b'"a":1}'),
    "deep lists": nested(b"[", b"]"),
    "deep lists without an end": repeated(b"["),
    "deep objects": nested(b'{"a":', b"}"),
    "deep objects without an end": repeated(b'{"a":'),
    "lists nested to a depth of 900": repeated(b"[" * 900 + b"]" * 900 + b",", b"[", b"1]"),
    "empty lists": repeated(b"[],", b"[", b"[]]"),
    "empty objects": repeated(b"{},", b"[", b"{}]"),
    "many keys": numbered('"k%d":1', b"{", b"}"),
    "many keys, the last one twice": numbered('"k%d":1', b"{", b',"k0":1}'),
    "many keys, then the last one twice": last_key_twice,
    "many keys twice": lambda size: numbered('"k%d":1', b"{")(size // 2) + numbered('"k%d":1', b",", b"}")(size // 2),
    "deep lists beside a key twice": lambda size: (
        b'{"a":' + b"[" * 960 + b"]" * 960 + b',"b":1,"b":"' + b"x" * size + b'"}'
    ),
    "one key many times": repeated(b'"area":1,', b"{", b'"area":1}'),
    "objects with one key twice": repeated(b'{"a":1,"a":2},', b"[", b"1]"),
    "keys of one object in another": numbered('{"k%d":1}', b"[", b"]"),
    "keys with escapes": numbered(r'"\u006b%d":1', b"{", b"}"),
    "long keys": repeated(b'"' + b"k" * 5000 + b'":1,', b"{", b'"k":1}'),
    "keys with equal hashes of their prefixes": numbered('"' + "k" * 50 + '%d":1', b"{", b"}"),
    "data of a tensor without an end": repeated(rb'"data":["\"', b"{"),
    "datetimes": repeated(b'"2025-03-07T09:30:00",', b"[", b"1]"),
    "words cut off": repeated(b"tru,", b"[", b"]"),
    "comments": repeated(b"/**/", b"[", b"]"),
}
"""Values in JSON, some of them without an end."""


def in_row(row: Row, name: str, before: str, after: str = "") -> Callable[[Shape], Shape]:
    """Return a function that puts a value in the place of one value of a row."""
    others = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in row.items() if key != name]
    head, tail = f"{before}{{{json.dumps(name)}:".encode(), f",{','.join(others)}}}{after}".encode()
    return lambda shape: lambda size: head + shape(size) + tail


def dumped(row: Row) -> bytes:
    """Serialize a row."""
    return json.dumps(row).encode()


def rows_shapes(row: Row, start: bytes, end: bytes) -> dict[str, Shape]:
    """Create shapes of many rows, between the start and the end of a body."""
    names = [*row]
    text = dumped(row)
    compact = json.dumps(row, separators=(",", ":")).encode()
    other_order = dumped({name: row[name] for name in reversed(names)})
    array = json.dumps([*row.values()]).encode()
    number = next(name for name, value in row.items() if isinstance(value, float))
    label = next(name for name, value in row.items() if isinstance(value, str) and not value[:1].isdigit())
    moment = next(name for name, value in row.items() if isinstance(value, str) and value[:1].isdigit())
    twice = text[:-1] + f", {json.dumps(number)}: 1.0}}".encode()

    def many(part: bytes, last: bytes = compact) -> Shape:
        return repeated(part + b",", start, last + end)

    def changed(**values: Any) -> bytes:
        return dumped({**row, **values})

    missing = dumped({name: row[name] for name in names[1:]})
    return {
        "rows": many(compact),
        "rows in two orders": many(text + b"," + other_order),
        "rows as arrays": many(array, array),
        "rows as arrays, the last one an object": many(array),
        "short arrays": many(b"[1]"),
        "rows without a column": many(missing),
        "rows, the last one without a column": many(compact, missing),
        "rows with another column": many(changed(other=1)),
        "rows with a column of their own": numbered(text[:-1].decode() + ', "k%d": 1}', start, end),
        "rows with a key twice": many(twice),
        "rows, the last one with a key twice": many(compact, twice),
        "rows with the end of a key in a text": many(changed(**{label: '":'})),
        "rows with a text where a number belongs": many(changed(**{number: "1"})),
        "rows with a list where a number belongs": many(changed(**{number: []})),
        "rows with a number too large for float64": many(dumped(row).replace(b"61.5", b"1" * 400)),
        "rows out of bounds": many(changed(**{number: -1e30})),
        "rows with unknown categories": numbered(changed(**{label: "k@d"}).decode().replace("@", "%"), start, end),
        "rows with a long text": many(changed(**{label: "x" * 9_000})),
        "rows, the last one with a text too long": many(compact, changed(**{label: "x" * 10_001})),
        "rows with datetimes that do not exist": many(changed(**{moment: "2025-02-30T00:00:00"})),
        "rows with dates": many(changed(**{moment: "2025-02-28"})),
        "rows with datetimes of a zone": many(changed(**{moment: "2025-02-28T00:00:00+05:30"})),
        "rows with line breaks in datetimes": many(changed(**{moment: "2025-02-28T00:00:00\n"})),
        "rows with long datetimes": many(changed(**{moment: "2025-02-28T00:00:00." + "0" * 9_000})),
        "rows with nulls": many(dumped(dict.fromkeys(names))),
        "rows without an end": repeated(compact + b",", start),
        "rows, then more": repeated(compact + b",", start, compact + end + b"}"),
        "white space after rows": lambda size: start + compact + b" " * size + end,
    }


def v1_shapes(row: Row) -> dict[str, Shape]:
    """Create the shapes of bodies of V1."""
    name = next(iter(row))
    start, end = b'{"instances":[', b"]}"
    around = in_row(row, name, '{"instances":[', "]}")
    instances = repeated(dumped(row) + b",", start, dumped(row))
    return {
        **{f"{key}, as a value": around(shape) for key, shape in JSON_VALUES.items()},
        **{
            f"{key}, as instances": wrapped(JSON_VALUES[key], b'{"instances":', b"}")
            for key in ("empty lists", "empty objects", "deep lists", "zeros", "many keys", "NaN", "a long text")
        },
        **{
            f"{key}, beside instances": wrapped(JSON_VALUES[key], start + dumped(row) + b'],"parameters":', b"}")
            for key in ("many keys", "one key many times", "many keys twice", "deep objects", "ends of keys in a text")
        },
        **rows_shapes(row, start, end),
        "deep lists as an interval": lambda size: (
            instances(size) + b'],"parameters":{"interval":' + b"[" * 1000 + b"]" * 1000 + b"}}"
        ),
        "parameters at the end": lambda size: instances(size) + b'],"parameters":{"interval":0.9}}',
        "an interval of many digits": wrapped(
            JSON_VALUES["a long text"], start + dumped(row) + b'],"parameters":{"interval":', b"}}"
        ),
        "only white space": repeated(b" "),
        "only a number": repeated(b"1"),
        "only NUL bytes": repeated(b"\0"),
    }


def wrapped(shape: Shape, start: bytes, end: bytes) -> Shape:
    """Put a shape between a start and an end."""
    return lambda size: start + shape(size) + end


def tensor(name: str, datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    """Create a tensor of V2 in JSON."""
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def tensors_of(row: Row, rows: int) -> list[dict[str, Any]]:
    """Create a tensor of each value of a row, which all rows share."""
    kinds = {float: "FP64", bool: "BOOL", str: "BYTES"}
    return [tensor(name, kinds[type(value)], [value] * rows) for name, value in row.items()]


def v2_shapes(row: Row) -> dict[str, Shape]:
    """Create the shapes of bodies of V2 in JSON."""
    name = next(iter(row))
    others = [*tensors_of({key: value for key, value in row.items() if key != name}, 1)]
    rest = ",".join(map(json.dumps, others))
    head = f'{{"inputs":[{{"name":"{name}","datatype":"FP64","shape":[1],"data":'.encode()
    tail = f"}},{rest}]}}".encode()
    text_name = next(key for key, value in row.items() if isinstance(value, str))
    unit = len(json.dumps(row)) - 15 * len(row)

    def columns(change: Callable[[list[dict[str, Any]], int], Any]) -> Shape:
        """Create a shape of one tensor per column, changed by a function of the tensors and the number of rows."""

        def shape(size: int) -> bytes:
            rows = max(1, size // unit)
            tensors = tensors_of(row, rows)
            change(tensors, rows)
            return json.dumps({"inputs": tensors}).encode()

        return shape

    def set_last(tensors: list[dict[str, Any]], value: Any) -> None:
        tensors[0]["data"][-1] = value

    def matrix(datatype: str, value: Any, *, is_nested: bool) -> Shape:
        def shape(size: int) -> bytes:
            rows = max(1, size // (len(row) * (len(json.dumps(value)) + 2)))
            line = [value] * len(row)
            data = [line] * rows if is_nested else line * rows
            return json.dumps({"inputs": [tensor("x", datatype, data) | {"shape": [rows, len(row)]}]}).encode()

        return shape

    small = json.dumps(tensor("k%d", "FP64", [1.0])).replace("%d", "%d")
    valid = json.dumps({"inputs": tensors_of(row, 1)}).encode()[:-1]
    return {
        **{f"{key}, as data": wrapped(shape, head, tail) for key, shape in JSON_VALUES.items()},
        **{
            f"{key}, as {part}": wrapped(JSON_VALUES[key], b'{"inputs":[{"name":"area","%b":' % part.encode(), b"}]}")
            for part in ("shape", "datatype", "parameters")
            for key in ("zeros", "a long text", "many keys", "deep lists", "integers of 30 digits")
        },
        **{
            f"{key}, as {part}": wrapped(JSON_VALUES[key], valid + b',"%b":' % part.encode(), b"}")
            for part in ("id", "parameters", "outputs")
            for key in ("a long text", "many keys", "one key many times", "empty lists", "escaped letters")
        },
        "one column": columns(lambda tensors, rows: None),
        "a null at the end": columns(lambda tensors, rows: set_last(tensors, None)),
        "a text at the end": columns(lambda tensors, rows: set_last(tensors, "1")),
        "a list at the end": columns(lambda tensors, rows: set_last(tensors, [])),
        "a number too large at the end": columns(lambda tensors, rows: set_last(tensors, 10**400)),
        "integers": columns(lambda tensors, rows: tensors[0].update(datatype="INT64", data=[1] * rows)),
        "integers that contradict their datatype": columns(
            lambda tensors, rows: tensors[0].update(datatype="INT8", data=[300] * rows)
        ),
        "an integer at the end that contradicts its datatype": columns(
            lambda tensors, rows: tensors[0].update(datatype="INT8", data=[1] * (rows - 1) + [300])
        ),
        "columns of shape [n, 1]": columns(
            lambda tensors, rows: tensors[0].update(shape=[rows, 1], data=[[1.0]] * rows)
        ),
        "lists of two in a column of shape [n, 1]": columns(
            lambda tensors, rows: tensors[0].update(shape=[rows, 1], data=[[1.0, 2.0]] * rows)
        ),
        "a column shorter than the others": columns(lambda tensors, rows: tensors[0].update(shape=[1], data=[1.0])),
        "a shape of many dimensions": columns(lambda tensors, rows: tensors[0].update(shape=[1] * rows)),
        "a shape that says more": columns(lambda tensors, rows: tensors[0].update(shape=[10**18])),
        "empty texts in a column": columns(lambda tensors, rows: tensors[3].update(data=[""] * rows)),
        "a matrix": matrix("FP64", 1.5, is_nested=False),
        "a nested matrix": matrix("FP64", 1.5, is_nested=True),
        "a matrix of texts": matrix("BYTES", "x", is_nested=False),
        "a matrix of integers that contradict their datatype": matrix("UINT8", -1, is_nested=False),
        "a matrix of lists": matrix("FP64", [], is_nested=True),
        "many tensors": numbered(small, b'{"inputs":[', b"]}"),
        "one tensor many times": repeated(
            json.dumps(tensor("area", "FP64", [1.0])).encode() + b",", b'{"inputs":[', tail
        ),
        "tensors without data": repeated(b'{"name":"area","datatype":"FP64","shape":[]},', b'{"inputs":[', b"{}]}"),
        "requested outputs": repeated(b'{"name":"prediction"},', valid + b',"outputs":[', b'{"name":"prediction"}]}'),
        "requested outputs that do not exist": numbered('{"name":"k%d"}', valid + b',"outputs":[', b"]}"),
        "parameters of a tensor": lambda size: json.dumps(
            {
                "inputs": [
                    tensor(text_name, "BYTES", ["x"], parameters={f"k{number}": 1 for number in range(size // 12)}),
                    *others,
                ]
            }
        ).encode(),
        "sizes of binary data that do not follow": numbered(
            '{"name":"k%d","datatype":"FP64","shape":[0],"parameters":{"binary_data_size":0}}', b'{"inputs":[', b"]}"
        ),
        "deep lists as a size of binary data": lambda size: (
            b'{"inputs":[{"name":"area","datatype":"FP64","shape":[1],"parameters":{"binary_data_size":'
            + b"[" * 1000
            + b"]" * 1000
            + b'}}],"id":"'
            + b"x" * size
            + b'"}'
        ),
        "only white space": repeated(b" "),
    }


def event_shapes(row: Row) -> dict[str, Shape]:
    """Create the shapes of CloudEvents in structured mode."""
    name = next(iter(row))
    start = b'{"specversion":"1.0","id":"1","source":"/a","type":"t",'
    data = b'"data":{"instances":[' + dumped(row) + b"]}"
    around = in_row(row, name, f'{start.decode()}"data":{{"instances":[', "]}}")
    rows_start = start + b'"data":{"instances":['
    as_text = b'"data":"{\\"instances\\":['
    return {
        **{f"{key}, as a value": around(shape) for key, shape in JSON_VALUES.items()},
        **{
            f"{key}, as {part}": wrapped(JSON_VALUES[key], start + b'"%b":' % part.encode(), b"}")
            for part in ("data", "data_base64", "extension")
            for key in ("a long text", "many keys", "empty lists", "escaped quotes", "deep objects", "a long integer")
        },
        **{f"{key}, in data": shape for key, shape in rows_shapes(row, rows_start, b"]}}").items()},
        "attributes": numbered('"k%d":"v"', start, b"," + data + b"}"),
        "one attribute many times": repeated(b'"k":"v",', start, data + b"}"),
        "a long id": lambda size: start.replace(b'"1"', b'"' + b"1" * size + b'"') + data + b"}",
        "a long name of an attribute": lambda size: start + b'"' + b"k" * size + b'":1,' + data + b"}",
        "JSON in JSON": lambda size: (
            start
            + as_text
            + b",".join([dumped(row).replace(b'"', b'\\"')] * (size // (len(dumped(row)) + 30)))
            + b']}"}'
        ),
        "JSON in JSON without an end": repeated(dumped(row).replace(b'"', b'\\"'), start + as_text, b'"}'),
        "NaN in JSON in JSON": repeated(b"NaN,", start + as_text, b'NaN]}"}'),
        "Base64 with an invalid end": repeated(b"QUJD", start + b'"data_base64":"', b'="}'),
        "white space in Base64": repeated(b" ", start + b'"data_base64":"', b'"}'),
    }


def record_shapes(row: Row) -> dict[str, Shape]:
    """Create the shapes of values of Kafka records."""
    name = next(iter(row))
    around = in_row(row, name, "")
    return {
        **{f"{key}, as a value": around(shape) for key, shape in JSON_VALUES.items()},
        **{f"{key}, as a record": shape for key, shape in JSON_VALUES.items()},
        **rows_shapes(row, b"[", b"]"),
        "JSON in JSON": lambda size: json.dumps(json.dumps([dict(row)] * (size // (len(dumped(row)) + 30)))).encode(),
        "texts in texts": nested_text,
    }


def nested_text(size: int) -> bytes:
    """Serialize a text as JSON again and again, until it is as long as the size: each time it gets longer."""
    text = '""'
    while len(text) < size // 2:
        text = json.dumps(text)
    return text.encode()


def binary_document(tensors: list[dict[str, Any]], tail: bytes) -> tuple[bytes, int]:
    """Serialize tensors whose bytes follow the JSON; return the body and the length of the JSON."""
    text = json.dumps({"inputs": tensors}).encode()
    return text + tail, len(text)


def binary_tensor(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    """Create a tensor of V2 in JSON whose bytes follow."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def binary_shapes(row: Row) -> dict[str, Callable[[int], tuple[bytes, int]]]:
    """Create the shapes of bodies of V2 with binary tensors: a body and the length of its JSON."""
    number = next(name for name, value in row.items() if isinstance(value, float))
    label = next(name for name, value in row.items() if isinstance(value, str))

    def of_texts(text: bytes, end: bytes = b"", extra: int = 0) -> Callable[[int], tuple[bytes, int]]:
        part = struct.pack("<I", len(text)) + text

        def shape(size: int) -> tuple[bytes, int]:
            count_ = size // len(part)
            tail = part * count_ + end
            return binary_document([binary_tensor(label, "BYTES", [count_ + extra], len(tail))], tail)

        return shape

    def of_numbers(datatype: str, fill: bytes, shape_of: Callable[[int], list[int]]) -> Any:
        width = DTYPES[datatype].itemsize

        def shape(size: int) -> tuple[bytes, int]:
            tail = (fill * (size // len(fill)))[: size // width * width]
            return binary_document([binary_tensor(number, datatype, shape_of(size // width), len(tail))], tail)

        return shape

    def many_tensors(size: int) -> tuple[bytes, int]:
        tensors = [binary_tensor(f"k{place}", "FP64", [1], 8) for place in range(size // 110)]
        return binary_document(tensors, b"\0" * 8 * len(tensors))

    def many_columns(value: bytes) -> Any:
        def shape(size: int) -> tuple[bytes, int]:
            rows = max(1, size // 60)
            text = struct.pack("<I", len(value)) + value
            tensors, parts = [], []
            for name, example in row.items():
                datatype = {float: "FP64", bool: "BOOL"}.get(type(example), "BYTES")
                parts.append(text * rows if datatype == "BYTES" else b"\0" * (DTYPES[datatype].itemsize * rows))
                tensors.append(binary_tensor(name, datatype, [rows], len(parts[-1])))
            return binary_document(tensors, b"".join(parts))

        return shape

    return {
        "empty texts": of_texts(b""),
        "texts of one byte": of_texts(b"x"),
        "texts of 9000 bytes": of_texts(b"x" * 9_000),
        "texts that are not UTF-8 at the end": of_texts(b"x", struct.pack("<I", 1) + b"\xff", 1),
        "texts, the last one cut off": of_texts(b"x", b"\xff\xff\xff\xff", 1),
        "texts, the last length cut off": of_texts(b"x", b"\x01", 1),
        "more texts than the shape says": of_texts(b"x", struct.pack("<I", 1) + b"y"),
        "one text": lambda size: binary_document(
            [binary_tensor(label, "BYTES", [1], size + 4)], struct.pack("<I", size) + b"x" * size
        ),
        "numbers": of_numbers("FP64", b"\0\0\0\0\0\0\0@", lambda values: [values]),
        "NaN": of_numbers("FP32", b"\0\0\xc0\x7f", lambda values: [values]),
        "bytes": of_numbers("INT8", b"\x01", lambda values: [values]),
        "booleans": of_numbers("BOOL", b"\x02", lambda values: [values, 1]),
        "halves": of_numbers("FP16", b"\x00\x7c", lambda values: [values]),
        "a shape that says more": of_numbers("FP64", b"\0" * 8, lambda values: [10**18]),
        "a shape of many dimensions": of_numbers("INT8", b"\1", lambda values: [1] * (values // 4)),
        "many tensors": many_tensors,
        "columns": many_columns(b"east"),
        "columns of long texts": many_columns(b"x" * 50),
        "columns of datetimes": many_columns(b"2025-03-07T09:30:00"),
        "a JSON of white space": lambda size: (b" " * size, size),
        "a JSON without an end": lambda size: (b'{"inputs":[' + b"[" * size, size),
        "data that belongs to no tensor": lambda size: (b'{"inputs":[]}' + b"\0" * size, 13),
    }


def message_shapes(row: Row, model_name: str) -> dict[str, Shape]:
    """Create the shapes of messages of V2 over gRPC."""
    number = next(name for name, value in row.items() if isinstance(value, float))
    label = next(name for name, value in row.items() if isinstance(value, str))

    def message(**fields: Any) -> Any:
        return pb.ModelInferRequest(model_name=model_name, **fields)

    def of_values(name: str, datatype: str, value: Any, cost: int, last: Any = None) -> Shape:
        def shape(size: int) -> bytes:
            values = [value] * (size // cost)
            if last is not None:
                values[-1:] = [last]
            request = message()
            item = request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
            getattr(item.contents, CONTENTS_FIELDS[datatype]).extend(values)
            return request.SerializeToString()  # type: ignore[no-any-return]

        return shape

    def of_raw(name: str, datatype: str, part: bytes) -> Shape:
        def shape(size: int) -> bytes:
            request = message()
            request.inputs.add(name=name, datatype=datatype, shape=[size // len(part)])
            request.raw_input_contents.append(part * (size // len(part)))
            return request.SerializeToString()  # type: ignore[no-any-return]

        return shape

    def serialized(part: Any, start: bytes = b"") -> Shape:
        """Repeat a serialized message: protobuf concatenates the repeated fields of both, and merges the others."""
        text = part.SerializeToString()
        return repeated(text, start + message().SerializeToString())

    def columns(rows_of: Callable[[int], int], *, is_raw: bool) -> Shape:
        def shape(size: int) -> bytes:
            rows, request = max(1, rows_of(size)), message()
            for name, value in row.items():
                datatype = {float: "FP64", bool: "BOOL"}.get(type(value), "BYTES")
                raw = b"" if value is None else str(value).encode()
                item = request.inputs.add(name=name, datatype=datatype, shape=[rows])
                if is_raw:
                    part = (
                        struct.pack("<I", len(raw)) + raw if datatype == "BYTES" else b"\0" * DTYPES[datatype].itemsize
                    )
                    request.raw_input_contents.append(part * rows)
                else:
                    values = [raw if datatype == "BYTES" else value] * rows
                    getattr(item.contents, CONTENTS_FIELDS[datatype]).extend(values)
            return request.SerializeToString()  # type: ignore[no-any-return]

        return shape

    one_tensor = message(inputs=[pb.ModelInferRequest.InferInputTensor(name=number, datatype="FP64", shape=[1])])
    one_tensor.ClearField("model_name")
    group = bytes([0x9B, 0x06])  # starts a group of an unknown field, number 99
    start = message().SerializeToString()
    rows_unit = 90
    return {
        "columns": columns(lambda size: size // rows_unit, is_raw=False),
        "columns of raw bytes": columns(lambda size: size // rows_unit, is_raw=True),
        "numbers": of_values(number, "FP64", 1.5, 8),
        "NaN": of_values(number, "FP32", float("nan"), 4),
        "integers": of_values(number, "INT64", 1, 1),
        "long integers": of_values(number, "INT64", -1, 10),
        "unsigned integers": of_values(number, "UINT64", 2**64 - 1, 10),
        "integers that contradict their datatype": of_values(number, "INT8", 300, 2),
        "an integer at the end that contradicts its datatype": of_values(number, "INT8", 1, 1, 300),
        "booleans": of_values("is_let", "BOOL", 1, 1),
        "empty texts": of_values(label, "BYTES", b"", 2),
        "texts of one byte": of_values(label, "BYTES", b"x", 3),
        "long texts": of_values(label, "BYTES", b"x" * 9_000, 9_003),
        "one text": lambda size: of_values(label, "BYTES", b"x" * size, size)(size),
        "texts that are not UTF-8": of_values(label, "BYTES", b"\xff", 3),
        "texts, the last one not UTF-8": of_values(label, "BYTES", b"x", 3, b"\xff"),
        "texts like a tensor": of_values(label, "BYTES", b"\x1a\x01\x01*", 6),
        "raw numbers": of_raw(number, "FP64", b"\0" * 8),
        "raw numbers of one byte": of_raw(number, "INT8", b"\1"),
        "raw booleans": of_raw("is_let", "BOOL", b"\2"),
        "raw texts": of_raw(label, "BYTES", struct.pack("<I", 1) + b"x"),
        "raw empty texts": of_raw(label, "BYTES", b"\0" * 4),
        "raw texts cut off": of_raw(label, "BYTES", b"\xff" * 4),
        "raw contents without inputs": lambda size: message(raw_input_contents=[b""] * (size // 2)).SerializeToString(),
        "one tensor many times": serialized(one_tensor),
        "many tensors": lambda size: message(
            inputs=[
                pb.ModelInferRequest.InferInputTensor(name=f"k{place}", datatype="FP64", shape=[1])
                for place in range(size // 18)
            ]
        ).SerializeToString(),
        "empty tensors": repeated(b"*\x00", start),
        "near misses of a row": repeated(b"*\x12\n\x04area\x12\x04FP64\x1a\x01\x01*\x0b", start),
        "shapes of a row": repeated(b"\x1a\x01\x01*", start),
        "dimensions": lambda size: message(
            inputs=[pb.ModelInferRequest.InferInputTensor(name=number, datatype="FP64", shape=[1] * size)]
        ).SerializeToString(),
        "a long id": lambda size: message(id="1" * size).SerializeToString(),
        "a long name": lambda size: pb.ModelInferRequest(model_name="f" * size).SerializeToString(),
        "a long version": lambda size: message(model_version="7" * size).SerializeToString(),
        "a long datatype": lambda size: message(
            inputs=[pb.ModelInferRequest.InferInputTensor(name=number, datatype="F" * size, shape=[1])]
        ).SerializeToString(),
        "names many times": serialized(message()),
        "parameters": lambda size: message(
            parameters={f"k{place}": pb.InferParameter(int64_param=place) for place in range(size // 16)}
        ).SerializeToString(),
        "one parameter many times": serialized(
            pb.ModelInferRequest(parameters={"interval": pb.InferParameter(string_param="0.9")})
        ),
        "a long interval": lambda size: message(
            parameters={"interval": pb.InferParameter(string_param="9" * size)}
        ).SerializeToString(),
        "unknown fields of a parameter": lambda size: (
            start
            + length_prefixed(0x22, b"\n\x08interval" + length_prefixed(0x12, (b"\x21" + b"\0" * 8) * (size // 9)))
        ),
        "requested outputs": lambda size: (
            columns(lambda _: 1, is_raw=False)(0)
            + message(
                outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="prediction")] * (size // 14)
            ).SerializeToString()
        ),
        "requested outputs that do not exist": lambda size: (
            columns(lambda _: 1, is_raw=False)(0)
            + message(
                outputs=[
                    pb.ModelInferRequest.InferRequestedOutputTensor(name=f"k{place}") for place in range(size // 9)
                ]
            ).SerializeToString()
        ),
        "unknown fields": repeated(b"\x98\x06\x01", start),
        "unknown groups": repeated(group, start),
        "unknown groups without an end": repeated(group + group, start),
        "zeros": repeated(b"\0"),
        "ones": repeated(b"\xff"),
        "a message cut off": lambda size: of_values(number, "FP64", 1.5, 8)(size)[:-1],
    }


def length_prefixed(tag: int, content: bytes) -> bytes:
    """Serialize a field of protobuf whose value is bytes: tag, length as a varint, and the bytes."""
    length, prefix = len(content), bytearray([tag])
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + content
