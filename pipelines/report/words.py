"""Numbers and names as people read them."""

import math
from collections.abc import Mapping
from datetime import datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from jinja2 import Undefined


def _is_known(value: "float | Undefined | None") -> TypeGuard[float]:
    """Whether there is a number: a template's undefined value is none."""
    return isinstance(value, Real)


def percent(share: "float | Undefined | None") -> str:
    """A share with three digits, in percent."""
    return f"{digits(100 * share)} %" if _is_known(share) else "–"


def digits(value: float) -> str:
    """Three digits, zeros included, so that numbers below each other are equally exact."""
    return f"{value:#.3g}".rstrip(".") if value else "0"


def error_text(value: "float | Undefined | None", metric: str) -> str:
    """An error as its field writes it: relative ones in percent, VRMSE as it is; null where it is not finite."""
    if value is None or (_is_known(value) and not math.isfinite(value)):
        return "not finite"
    return quantity(value) if metric == "vrmse" else percent(value)


def quantity(value: "float | int | Undefined | None") -> str:
    """A number as one reads it: whole ones whole, others with three digits."""
    if _is_known(value):
        return f"{value:,.0f}" if float(value).is_integer() else digits(value)
    return "–"


def number_of_bytes(count: int) -> str:
    """A number of bytes in the unit that suits it, by powers of 1000."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = next((power for power in range(len(units)) if count < 999.5 * 1000**power), len(units) - 1)
    value = count / 1000**power
    return f"{f'{value:,.0f}' if power == 0 or value >= 999.5 else digits(value)} {units[power]}"


def duration(seconds: "float | Undefined | None") -> str:
    """A time span in the unit that suits it."""
    return _duration(seconds) if _is_known(seconds) else "–"


def _duration(seconds: float) -> str:
    if 0.0 < seconds < 0.9995:
        return f"{digits(1000 * seconds)} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 100 * 24 * 60:
        return f"{minutes // (24 * 60):,} days"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def spec_text(value: Any) -> str:
    """`kind (key value, ...)` of a spec's plain values."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    rest = [f"{key} {_plain(item)}" for key, item in value.items() if key != "kind" and _plain(item)]
    return str(value.get("kind", "")) + (f" ({', '.join(rest)})" if rest else "")


def _plain(value: Any) -> str:
    """A number, a word, or some of them; nothing of what holds more."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, int | float | str) for item in value):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if isinstance(value, int | float | str) else ""


def when_text(text: str | None) -> str:
    """A moment in ISO format as one reads it; what is none of that as it is."""
    try:
        return datetime.fromisoformat(text or "").strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except ValueError:
        return text or "unknown"


def count_of(number: int, what: str) -> str:
    """How many of what: `1 sample`, `2 samples`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
