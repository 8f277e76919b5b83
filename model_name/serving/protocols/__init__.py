"""Codecs of the protocols: V1 and V2 over REST, V2 over gRPC, and CloudEvents; with their tensors and their JSON.

Fast paths
----------
Most requests are regular: rows with exactly the inputs, values of the right types, no parameters. A fast path handles
those in a fraction of the time of its full counterpart. All fast paths follow the same rules:

- It is tried first, on every input of its format, whatever its size. No caller decides when a fast path applies.
- It returns None for everything that it does not handle, and never raises. The full counterpart then starts over.
- What it accepts, its counterpart accepts with an equal result. A property test compares the two.
- It reports no errors, so that each message is written once, in the full counterpart.

Decoders have one signature: `try_decode_*(body, plane, limits, ...) -> DecodedRequest | None`.

| fast path | full counterpart | property test below tests/serving |
|---|---|---|
| `protocols.fast_json.try_decode_v1` | `protocols.v1.V1Request` | `protocols/test_fast_decoders.py` |
| `protocols.fast_json.try_decode_v2` | `protocols.v2.V2Request` | `protocols/test_fast_decoders.py` |
| `protocols.fast_json.try_decode_row` (Kafka) | `protocols.v1.parse_instances` | `protocols/test_fast_decoders.py` |
| `protocols.fast_protobuf.try_decode_grpc` | `protocols.v2_grpc.GrpcRequest` | `protocols/test_fast_decoders.py` |
| `protocols.strict_json.may_have_duplicate_keys` | `protocols.strict_json.loads` | `protocols/test_strict_json.py` |
| `dataplane.try_transpose` | `dataplane.rows_to_columns` | `test_dataplane.py` |
| `dataplane.DataPlane.try_encode_rows` | `dataplane.DataPlane.matrix` | `test_dataplane.py` |

Below the protocols, `core.schemas.fast_validation.FastValidator` is the fast path of `TableSchema.check_request`
(`protocols/test_agreement.py`), and `core.schemas.row_validation.RowValidator` that of `FastValidator` for a few rows
(`tests/core/schemas/test_row_validation.py`). `tests/serving/protocols/test_fast_decoders.py` checks that this table is
complete and true.
"""
