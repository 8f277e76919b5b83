"""Formatting of numbers for people."""

ROUNDING_ERROR = 1e-12  # absolute values below it are shown as 0


def format_number(value: float | None) -> str:
    """Format a number with four significant digits; None as a dash."""
    if value is None:
        return "–"
    value = 0.0 if abs(value) < ROUNDING_ERROR else value
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def format_range(low: float, high: float) -> str:
    """Format an interval with three significant digits, because its ends are estimates themselves."""
    return " to ".join(f"{end:,.0f}" if abs(end) >= 1e3 else f"{end:.3g}" for end in (low, high))


def format_percent(share: float) -> str:
    """Format a share in per cent; a small share above zero is shown as `< 0.1 %`."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def format_bytes(count: int) -> str:
    """Format a number of bytes in bytes, KiB, MiB or GiB."""
    if count < 1024:
        return f"{count} bytes"
    size = float(count)
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:,.3g} {unit}"
    return f"{size / 1024:,.3g} GiB"
