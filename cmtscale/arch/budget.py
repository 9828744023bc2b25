"""How budgets are written: `4G`, `4.0G`, `4e9`, `600M`; G is 10⁹ multiply-adds (MACs)."""

import math
import re

from cmtscale.arch.errors import BudgetError

UNIT_FORGOTTEN = 1e3  # a number below that has no unit: no network costs so little
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_macs(text: str) -> int:
    """MACs of `4G`, `4.0G`, `4e9` or `600M`; raises `BudgetError` for anything else."""
    match = re.fullmatch(
        r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([KMGT]?)\s*", text, flags=re.IGNORECASE
    )
    value = float(match[1]) * _UNITS[match[2].upper()] if match else math.nan
    if match and not match[2] and 0 < value < UNIT_FORGOTTEN:
        raise BudgetError(
            f"budget {text!r} is a number of single multiply-adds; did you mean {match[1]}G?"
        )
    if not 1 <= value < 1e15:
        raise BudgetError(f"budget {text!r} is not a number of MACs; write 4.0G, 600M or 4e9")
    return round(value)


def format_macs(macs: float) -> str:
    """`4G`, `600M`, `12.5M`: three significant digits, as `parse_macs` reads them."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= 0.9995 * unit:
            return f"{_three_digits(macs / unit)}{name}"
    return f"{macs:.0f}"


def _three_digits(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(float(f"{value:.3g}"))))
    text = f"{float(f'{value:.3g}'):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
