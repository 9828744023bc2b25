"""What a benchmark measured: how fast networks are, how, and on what."""

import statistics
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network with one batch size: the `seconds` of each timed forward pass of a batch.

    `macs` of one image. `peak_bytes` is what `Conditions.memory` says; None where it was not
    measured. `accuracy` is the fraction of the images `accuracy_of` that it classifies right; None
    where nobody has said so for this network at this resolution.
    """

    name: str
    resolution_px: int
    macs: int
    params: int
    batch: int
    seconds: tuple[float, ...]
    peak_bytes: int | None
    accuracy: float | None
    accuracy_of: str

    @property
    def median_seconds(self) -> float:
        """Of a batch."""
        return statistics.median(self.seconds)

    @property
    def p95_seconds(self) -> float:
        """Of a batch: 95 % of the passes were as fast, interpolated."""
        return statistics.quantiles(self.seconds, n=20, method="inclusive")[-1]

    @property
    def images_per_second(self) -> float:
        """At the median."""
        return self.batch / self.median_seconds

    @property
    def macs_per_second(self) -> float:
        """Multiply-adds of the architecture, not what the kernels really compute."""
        return self.macs * self.images_per_second


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A network that was not measured with this batch size, and why."""

    name: str
    batch: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How and on what all were measured.

    `tf32`: fp32 convolutions are computed in TF32, as torch does by default on a GPU.
    `load_average` is that of the machine over the minute before; None where there is none.
    `memory` says what `peak_bytes` is, or why there is none.
    """

    backend: str
    dtype: str
    tf32: bool
    device: str
    hardware: str
    threads: int
    compiled: bool
    rounds: int
    passes_per_round: int
    load_average: float | None
    memory: str
    versions: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measurements that were taken in turn, in one run."""

    conditions: Conditions
    measurements: tuple[Measurement, ...]
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it with what follows from it; seconds to the microsecond."""
        return {
            "conditions": asdict(self.conditions),
            "measurements": [_as_json(measured) for measured in self.measurements],
            "left_out": [asdict(entry) for entry in self.left_out],
        }


def _as_json(measured: Measurement) -> dict[str, Any]:
    seconds = [round(value, 6) for value in measured.seconds]
    return {
        **asdict(measured),
        "median_seconds": round(measured.median_seconds, 6),
        "p95_seconds": round(measured.p95_seconds, 6),
        "images_per_second": round(measured.images_per_second, 3),
        "macs_per_second": round(measured.macs_per_second),
        "seconds": seconds,
    }
