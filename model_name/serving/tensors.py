"""What a tensor of the Open Inference Protocol may hold; needs nothing of KServe."""

from collections.abc import Sequence

from model_name.core.columns import Kind
from model_name.core.schemas import Label

INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
NUMBERS = ("FP64", "FP32", "FP16", *INTEGERS)
DATATYPES: dict[Kind, tuple[str, ...]] = {
    "numeric": NUMBERS,
    "boolean": ("BOOL", *NUMBERS),
    "category": ("BYTES", "BOOL", *INTEGERS),
    "datetime": ("BYTES",),
    "text-id": ("BYTES", *INTEGERS),
}
"""What a tensor of each kind may hold. The first is what the metadata asks for."""


def label_datatype(classes: Sequence[Label]) -> str:
    """The datatype of the predictions: labels keep theirs if all are of one."""
    if not classes:
        return "FP64"
    types = {type(label) for label in classes}
    return "BOOL" if types == {bool} else "INT64" if types == {int} else "BYTES"
