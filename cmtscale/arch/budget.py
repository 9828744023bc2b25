"""How budgets and limits are written: `4G`, `4.0G`, `4e9`, `600M`, `8ms`, `1h30m`.

G is 10⁹ multiply-adds (MACs).
"""

import math
import re

from cmtscale.arch.errors import BudgetError

UNIT_FORGOTTEN = 1e3  # a number below that has no unit: no network costs so little
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"US": 1e-6, "MS": 1e-3, "S": 1.0}
_LONG_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_macs(text: str, name: str = "budget") -> int:
    """MACs of `4G`, `4.0G`, `4e9` or `600M`; raises `BudgetError`, which calls it `name`."""
    value, unit = _number_and_unit(text)
    if unit == "" and 0 < value < UNIT_FORGOTTEN:
        raise BudgetError(
            f"{name} {text!r} is a number of single multiply-adds; did you mean {text.strip()}G?"
        )
    value *= _UNITS.get(unit, math.nan)
    if not 1 <= value < 1e15:
        raise BudgetError(f"{name} {text!r} is not a number of MACs; write 4.0G, 600M or 4e9")
    return round(value)


def parse_budgets(text: str) -> tuple[int, ...]:
    """The MACs of `0.6G,1.5G,4.0G`, or of one budget; raises `BudgetError` for anything else."""
    return tuple(parse_macs(part) for part in text.split(","))


def parse_count(text: str, name: str) -> int:
    """The count of `5M`, `12.5M` or `5e6`; raises `BudgetError`, which calls it `name`."""
    value, unit = _number_and_unit(text)
    if unit == "" and 0 < value < UNIT_FORGOTTEN:
        raise BudgetError(f"{name} {text!r} has no unit; did you mean {text.strip()}M?")
    value *= _UNITS.get(unit, math.nan)
    if not 1 <= value < 1e15:
        raise BudgetError(f"{name} {text!r} is not a count; write 5M, 12.5M or 5e6")
    return round(value)


def parse_seconds(text: str, name: str) -> float:
    """The seconds of `8ms` or `0.5s`; raises `BudgetError`, which calls it `name`."""
    value, unit = _number_and_unit(text)
    if unit == "" and value > 0:
        raise BudgetError(f"{name} {text!r} has no unit; did you mean {text.strip()}ms?")
    seconds = value * _SECONDS.get(unit, math.nan)
    if not 0 < seconds < math.inf:
        raise BudgetError(f"{name} {text!r} is not a time; write 8ms or 0.5s")
    return seconds


def parse_duration(text: str, name: str) -> int:
    """The whole seconds of `2h`, `90m` or `1h30m`; raises `BudgetError`, which calls it `name`."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)\s*([hms])\s*", text, flags=re.IGNORECASE)
    is_whole = re.fullmatch(r"\s*(?:[0-9]*\.?[0-9]+\s*[hms]\s*)+", text, flags=re.IGNORECASE)
    seconds = sum(float(number) * _LONG_SECONDS[unit.lower()] for number, unit in parts)
    if not is_whole or not 1 <= seconds < 1e9:
        raise BudgetError(f"{name} {text!r} is not a time; write 2h, 1h30m or 90s")
    return round(seconds)


def format_macs(macs: float) -> str:
    """`4G`, `600M`, `12.5M`: three significant digits, as `parse_macs` reads them."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= 0.9995 * unit:
            return f"{_three_digits(macs / unit)}{name}"
    return f"{macs:.0f}"


def format_seconds(seconds: float) -> str:
    """`8.37ms`, `1.2s`: three significant digits, as `parse_seconds` reads them."""
    return f"{_three_digits(1e3 * seconds)}ms" if seconds < 0.9995 else f"{_three_digits(seconds)}s"


def format_duration(seconds: int) -> str:
    """`2h`, `1h30m`, `45s`, as `parse_duration` reads them."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if n)


def rounded_up(value: float, digits: int = 3) -> float:
    """The least number of so many significant digits that is not below a positive `value`."""
    step = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return math.ceil(round(value / step, 6)) * step


def _number_and_unit(text: str) -> tuple[float, str]:
    """The number that `text` begins with and its unit in capitals; NaN where there is none."""
    match = re.fullmatch(
        r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", text, flags=re.IGNORECASE
    )
    return (float(match[1]), match[2].upper()) if match else (math.nan, "")


def _three_digits(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(float(f"{value:.3g}"))))
    text = f"{float(f'{value:.3g}'):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
