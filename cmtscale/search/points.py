"""The triangle of shares as the unit square that samplers draw from.

Log shares (1 - √u, √u·(1 - v), √u·v) are uniform on the simplex for uniform u, v in [0, 1] and
satisfy the constraint exactly.
"""

import math

from cmtscale.arch.scaling import Shares


def shares_of(u: float, v: float) -> Shares:
    """Log shares of a point of the unit square; they sum to 1."""
    root = math.sqrt(u)
    return Shares(depth=1 - root, width=root * (1 - v), resolution=root * v)


def point_of(shares: Shares) -> dict[str, float]:
    """The point of the unit square of these shares; none for the base, which has no shares."""
    if shares.total == 0:
        return {}
    root = min(1.0, max(0.0, 1 - shares.depth))
    rest = shares.width + shares.resolution
    v = shares.resolution / rest if rest > 0 else 0.5
    return {"u": root**2, "v": min(1.0, max(0.0, v))}
