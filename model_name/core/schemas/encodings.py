"""Encoding of a column as features, as a schema declares it. Imports only pydantic, because servers import it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

DatetimePart = Literal["hour", "weekday", "day", "yearday", "month", "elapsed"]

KEYS_BY_KIND: dict[str, tuple[str, ...]] = {
    "numeric": ("scale", "impute"),
    "boolean": ("impute",),
    "category": ("code", "rare"),
    "datetime": ("parts", "cyclic", "holidays"),
    "text-id": (),
}
"""Keys of an encoding that each kind of column supports."""


def _check_is_text(raw: Any) -> Any:
    if raw is False:
        raise ValueError('YAML takes NO for false; write "NO" for Norway, or leave it out for none')
    return raw


Location = Annotated[str, BeforeValidator(_check_is_text), Field(pattern=r"^([A-Z]{2,3}(-\S.*)?)?$")]
"""A country, or a country and its subdivision: `US`, `DE-BY`."""


class Encoding(FrozenModel):
    """Encoding of a column as features; the defaults suit every kind of model.

    Attributes:
        scale: Scaling of a number: none, standardised, its rank mapped to a normal distribution (`quantile`), or its
            logarithm, `sign(x) log(1 + |x|)`. Trees are not affected by it; linear models and networks may be.
        impute: Replacement of a missing number. If the training part has missing values, a feature `NAME.is_missing`
            marks them. By default the value stays missing, and each kind of model handles it in its own way.
        code: Encoding of a category: its position (`ordinal`), one feature per category (`one-hot`), or the mean of
            the target in the category (`target`), shrunk towards the overall mean.
        rare: Number of training rows below which a category is merged into `(other)`.
        parts: Parts of a datetime that become features if they vary; by default hour, weekday and month. `elapsed` is
            the number of days since the training part began, `yearday` and `day` are days of the year and of the month.
        cyclic: Whether each periodic part is also encoded as sine and cosine, so that 23 h is next to 0 h.
        holidays: Country, or country and subdivision, whose public holidays become a feature: `US`, `DE-BY`.
    """

    scale: Literal["none", "standard", "quantile", "log"] = "none"
    impute: Literal["none", "mean", "median", "zero"] = "none"
    code: Literal["ordinal", "one-hot", "target"] = "ordinal"
    rare: int = Field(0, ge=0)
    parts: LaxTuple[DatetimePart] | None = None
    cyclic: bool = False
    holidays: Location = ""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.parts is not None and len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice")
        return self

    def unsupported_keys(self, kind: str) -> list[str]:
        """List the keys that are set but do not apply to a kind of column."""
        return [name for name in self.model_dump(exclude_defaults=True) if name not in KEYS_BY_KIND[kind]]
