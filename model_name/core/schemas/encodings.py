"""How a column becomes features: what a schema says about it. Needs pydantic alone, because servers import it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from model_name.core.schemas.strict_models import Frozen, Many

Part = Literal["hour", "weekday", "day", "yearday", "month", "elapsed"]

BELONGS: dict[str, tuple[str, ...]] = {
    "numeric": ("scale", "impute"),
    "boolean": ("impute",),
    "category": ("code", "rare"),
    "datetime": ("parts", "cyclic", "holidays"),
    "text-id": (),
}
"""The keys of an encoding that a kind of column takes."""


def _require_text(raw: Any) -> Any:
    if raw is False:
        raise ValueError('YAML takes NO for false; write "NO" for Norway, or leave it out for none')
    return raw


Place = Annotated[str, BeforeValidator(_require_text), Field(pattern=r"^([A-Z]{2,3}(-\S.*)?)?$")]
"""A country, or country and part of it: `US`, `DE-BY`."""


class Encoding(Frozen):
    """How a column becomes features; what is not said has a default that every kind of model can work with.

    Attributes:
        scale: Of a number: as it is, standardised, by its rank to a normal distribution (`quantile`), or its
            logarithm, `sign(x) log(1 + |x|)`. Trees do not mind; linear models and networks may.
        impute: What a missing number becomes. Where the training part has gaps, a feature `NAME.is_missing` tells of
            them. By default it stays missing, and each kind of model deals with it in its own way.
        code: Of a category: its position (`ordinal`), a feature of its own (`one-hot`), or the mean of the target
            where it occurs (`target`), shrunk towards that of all rows.
        rare: Categories with fewer rows in the training part become one, `other`.
        parts: Of a datetime: what is looked at, where it varies; by default hour, weekday and month. `elapsed` are the
            days since the training part began, `yearday` and `day` count the days of the year and of the month.
        cyclic: Whether each part that comes round is also given as sine and cosine, so that 23 h is next to 0 h.
        holidays: A country, or country and part of it, whose public holidays are marked: `US`, `DE-BY`.
    """

    scale: Literal["none", "standard", "quantile", "log"] = "none"
    impute: Literal["none", "mean", "median", "zero"] = "none"
    code: Literal["ordinal", "one-hot", "target"] = "ordinal"
    rare: int = Field(0, ge=0)
    parts: Many[Part] | None = None
    cyclic: bool = False
    holidays: Place = ""

    @model_validator(mode="after")
    def _has_no_part_twice(self) -> Self:
        if self.parts is not None and len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice")
        return self

    def foreign_to(self, kind: str) -> list[str]:
        """The keys that say something but do not belong to a kind of column."""
        return [name for name in self.model_dump(exclude_defaults=True) if name not in BELONGS[kind]]
