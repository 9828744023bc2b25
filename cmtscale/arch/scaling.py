"""Compound scaling: the constraint surface, log shares, and `scale` with plain rounding.

depth α^φ, dimension β^φ, resolution γ^φ with α·β^1.5·γ² ≈ 2.5 and α, β, γ ≥ 1
(paper, "Scaling strategy").
"""

import math
from dataclasses import astuple, dataclass, replace

from cmtscale.arch import paper
from cmtscale.arch.errors import ScalingError
from cmtscale.arch.variant import Variant, nearest_multiple

# Relative tolerance on the product. The paper's own constants give 2.352, 5.9 % under 2.5.
TOLERANCE = 0.06
PHI_LIMIT = 40.0  # 2.5^40 times the cost: beyond that numbers overflow before they mean anything


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How a growth in cost is shared: the logarithms of α, β^1.5 and γ² in base 2.5.

    They sum to 1 on the constraint surface; the corners are the one-dimensional strategies.
    """

    depth: float
    width: float
    resolution: float

    @property
    def alpha(self) -> float:
        """Depth growth per step of φ."""
        return float(paper.PHI_BASE**self.depth)

    @property
    def beta(self) -> float:
        """Dimension growth per step of φ."""
        return float(paper.PHI_BASE ** (self.width / paper.WIDTH_EXPONENT))

    @property
    def gamma(self) -> float:
        """Resolution growth per step of φ."""
        return float(paper.PHI_BASE ** (self.resolution / paper.RESOLUTION_EXPONENT))

    @property
    def total(self) -> float:
        """The sum; 1 on the constraint surface."""
        return self.depth + self.width + self.resolution

    def scaled(self, factor: float) -> "Shares":
        """All three times `factor`."""
        return Shares(
            depth=self.depth * factor,
            width=self.width * factor,
            resolution=self.resolution * factor,
        )

    def normalised(self) -> "Shares":
        """The same proportions on the constraint surface, negative shares set to 0."""
        depth, width, resolution = (max(0.0, share) for share in astuple(self))
        clipped = Shares(depth=depth, width=width, resolution=resolution)
        return clipped.scaled(1 / (clipped.total or 1.0))


def shares_of_factors(alpha: float, beta: float, gamma: float) -> Shares:
    """Log shares of growth factors of depth, dimension and resolution, as they are."""
    return Shares(
        depth=math.log(alpha, paper.PHI_BASE),
        width=paper.WIDTH_EXPONENT * math.log(beta, paper.PHI_BASE),
        resolution=paper.RESOLUTION_EXPONENT * math.log(gamma, paper.PHI_BASE),
    )


@dataclass(frozen=True)
class Scaling:
    """One compound scaling step count φ (any sign, fractions too) with its constants.

    Positional order is the paper's. Raises `ScalingError` off the surface
    α·β^1.5·γ² ≈ 2.5, α, β, γ ≥ 1 (paper, "Scaling strategy"); the tolerance admits
    the paper's 2.352.
    """

    phi: float
    alpha: float = paper.ALPHA
    beta: float = paper.BETA
    gamma: float = paper.GAMMA

    def __post_init__(self) -> None:
        for name in ("phi", "alpha", "beta", "gamma"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ScalingError(f"{name} {value!r} is not a number; use a number such as 1.2")
            if not math.isfinite(value):
                raise ScalingError(f"{name} {value} is not finite; use a number such as 1.2")
            if name != "phi" and value > 100:
                raise ScalingError(f"{name} {value:g} is far off the surface; use 1 to 2.5")
        if abs(self.phi) > PHI_LIMIT:
            raise ScalingError(
                f"phi {self.phi:g} is out of range; use {-PHI_LIMIT:g} to {PHI_LIMIT:g}"
            )
        if not (
            min(self.alpha, self.beta, self.gamma) >= 1
            and abs(self.product / paper.PHI_BASE - 1) <= TOLERANCE
        ):
            raise ScalingError(self._refusal())

    @property
    def product(self) -> float:
        """α·β^1.5·γ²; about 2.5."""
        return float(
            self.alpha * self.beta**paper.WIDTH_EXPONENT * self.gamma**paper.RESOLUTION_EXPONENT
        )

    @property
    def shares(self) -> Shares:
        """Log shares of these constants, as they are: their sum is log₂.₅ of the product."""
        return shares_of_factors(self.alpha, self.beta, self.gamma)

    def _refusal(self) -> str:
        given = f"alpha {self.alpha:g}, beta {self.beta:g}, gamma {self.gamma:g}"
        if min(self.alpha, self.beta, self.gamma) < 1:
            rule = f"{given}: each must be at least 1"
        else:
            low, high = (paper.PHI_BASE * (1 + sign * TOLERANCE) for sign in (-1, 1))
            rule = (
                f"{given} give alpha·beta^1.5·gamma^2 = {self.product:.3f}; "
                f"it must be {paper.PHI_BASE} ({low:.2f} to {high:.2f})"
            )
        clipped = [max(1.0, value) for value in (self.alpha, self.beta, self.gamma)]
        if max(clipped) == 1.0:
            clipped = [paper.ALPHA, paper.BETA, paper.GAMMA]
        near = shares_of_factors(*clipped).normalised()
        return f"{rule}; nearest legal: {near.alpha:.3f}, {near.beta:.3f}, {near.gamma:.3f}"


def scaling_from_shares(phi: float, shares: Shares) -> Scaling:
    """The `Scaling` with these log shares; raises `ScalingError` off the surface."""
    return Scaling(phi, shares.alpha, shares.beta, shares.gamma)


def scale(base: Variant, scaling: Scaling) -> Variant:
    """Scale `base` by φ steps with plain rounding; φ = 0 gives `base` back.

    Dim of stage 1 to the nearest 2 (the others keep their ratio to it, the stem the nearest even
    number), depth half up, resolution to the nearest 32; expansion, reduction, heads kept.
    """
    if scaling.phi == 0:
        return base
    depth, width, resolution = (
        factor**scaling.phi for factor in (scaling.alpha, scaling.beta, scaling.gamma)
    )
    depths = tuple(max(1, math.floor(d * depth + 0.5)) for d in base.depths)
    return resize(
        base,
        name=f"{base.name}-phi{scaling.phi:+g}",
        dim1=nearest_multiple(base.dims[0] * width, dim_step(base.stages[0].heads, 2)),
        depths=depths,
        resolution_px=nearest_multiple(base.resolution_px * resolution, paper.STAGE_STRIDES[-1]),
    )


def resize(
    base: Variant,
    *,
    name: str,
    dim1: int,
    depths: tuple[int, ...],
    resolution_px: int,
    step: int = 2,
) -> Variant:
    """`base` with another first dim, depths and resolution; stem and dims keep their ratios."""
    dims = [
        dim1
        if number == 0
        else nearest_multiple(dim1 * stage.dim / base.dims[0], dim_step(stage.heads, step))
        for number, stage in enumerate(base.stages)
    ]
    stages = [
        replace(stage, dim=dim, depth=depth)
        for stage, dim, depth in zip(base.stages, dims, depths, strict=True)
    ]
    first, second, third, fourth = stages
    return replace(
        base,
        name=name,
        resolution_px=resolution_px,
        stem_channels=nearest_multiple(base.stem_channels * dim1 / base.dims[0], 2),
        stages=(first, second, third, fourth),
    )


def dim_step(heads: int, step: int) -> int:
    """The spacing of legal dims: multiples of `step` that the heads divide."""
    return math.lcm(heads, step)


def implied(base: Variant, variant: Variant) -> tuple[float, Shares]:
    """(φ, shares) that the integers of `variant` really stand for, seen from `base`.

    Depth is the total number of blocks, width the first dim. Shares sum to 1; rounding can make
    one slightly negative. Both zero where the two do not differ.
    """
    depth = math.log(sum(variant.depths) / sum(base.depths))
    width = paper.WIDTH_EXPONENT * math.log(variant.dims[0] / base.dims[0])
    resolution = paper.RESOLUTION_EXPONENT * math.log(variant.resolution_px / base.resolution_px)
    growth = depth + width + resolution
    if growth == 0:
        return 0.0, Shares(depth=0.0, width=0.0, resolution=0.0)
    shares = Shares(depth=depth, width=width, resolution=resolution).scaled(1 / growth)
    return growth / math.log(paper.PHI_BASE), shares
