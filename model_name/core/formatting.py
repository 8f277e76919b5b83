"""Figures for people."""

ROUNDING_ERROR = 1e-12  # and below: what rounding left


def format_number(value: float | None) -> str:
    """A figure for people: four digits that count."""
    if value is None:
        return "–"
    value = 0.0 if abs(value) < ROUNDING_ERROR else value
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def format_range(low: float, high: float) -> str:
    """An interval for people: three digits, for its ends are estimates themselves."""
    return " to ".join(f"{end:,.0f}" if abs(end) >= 1e3 else f"{end:.3g}" for end in (low, high))


def format_percent(share: float) -> str:
    """A share in per cent; what is not nothing is not shown as nothing."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def format_bytes(count: int) -> str:
    """Bytes in a unit that keeps them short."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count /= 1024  # type: ignore[assignment]
    return f"{count:,.3g} GiB"
