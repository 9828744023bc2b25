"""Do deep or wide twins want another learning rate? Reads learning_rate.csv; see README.md.

The loss of anchor i at x octaves from 2e-3 is a bowl that is steeper to the right,

    ln loss = level_i + scale (exp(s (x - best_i)) - s (x - best_i) - 1),
    best_i = centre + depth slope · ln(blocks / 7) + width slope · ln(dim 1 / 16),

with both slopes drawn to 0 by a normal prior (half an octave for each factor e). Levels are
integrated out, the rest on a grid.
"""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "learning_rate.csv"
Losses = dict[str, dict[int, list[float]]]  # ln losses of the seeds, by anchor and octaves
PRIOR = 0.5  # octaves for each factor e
CENTRES = np.linspace(-1.0, 1.5, 26)
DEPTH_SLOPES = np.linspace(-1.0, 1.0, 41)
WIDTH_SLOPES = np.linspace(-1.5, 1.5, 41)
SCALES = np.geomspace(0.002, 0.5, 20)
STEEPNESSES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])


def main() -> None:
    losses: Losses = defaultdict(lambda: defaultdict(list))
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            octaves = np.log2(float(row["lr"]) / 2e-3)
            losses[row["candidate"]][round(octaves)].append(np.log(float(row["val_loss"])))
    cells = [v for anchor in losses.values() for x, v in anchor.items() if x < 2]
    variance = float(np.mean([np.var(values, ddof=1) for values in cells]))
    print(f"noise of a run, in ln loss: {variance**0.5:.3f} ({len(cells)} degrees of freedom)")
    for most, text in ((1, "1e-3 to 4e-3"), (2, "8e-3 as well, where training nearly diverges")):
        print(f"\nfrom {text}")
        kept = {
            name: {x: values for x, values in rates.items() if x <= most}
            for name, rates in losses.items()
        }
        _fit(kept, variance)


def _fit(losses: Losses, variance: float) -> None:
    centre, depth, width, scale, steepness = np.meshgrid(
        CENTRES, DEPTH_SLOPES, WIDTH_SLOPES, SCALES, STEEPNESSES, indexing="ij", sparse=True
    )
    log_posterior = -(centre**2 + (depth / PRIOR) ** 2 + (width / PRIOR) ** 2) / 2
    best = {}
    for name, rates in losses.items():
        blocks, dim = _sizes(name)
        best[name] = centre + depth * np.log(blocks / 7) + width * np.log(dim / 16)
        residuals, weights = [], []
        for x, values in rates.items():
            away = steepness * (x - best[name])
            residuals.append(np.mean(values) - scale * (np.exp(away) - away - 1))
            # near divergence runs of one rate differ by more than elsewhere
            weights.append(len(values) / max(variance, float(np.var(values, ddof=1))))
        total = sum(weights)
        mean = sum(w * r for w, r in zip(weights, residuals, strict=True)) / total
        misfit = sum(w * (r - mean) ** 2 for w, r in zip(weights, residuals, strict=True))
        log_posterior = log_posterior - misfit / 2
    posterior = np.exp(log_posterior - log_posterior.max())
    posterior /= posterior.sum()

    def show(text: str, value: np.ndarray) -> None:
        mean = float((posterior * value).sum())
        sd = float((posterior * value**2).sum() - mean**2) ** 0.5
        print(f"  {text}: {mean:+.2f} ± {sd:.2f} octaves")

    show("depth slope, for each factor e", depth)
    show("width slope, for each factor e", width)
    for name, value in best.items():
        show(f"best of {name}, from 2e-3", value)


def _sizes(name: str) -> tuple[int, int]:
    """(blocks, dim 1) of a network's name, such as d1.1.4.1-w22-r64."""
    match = re.fullmatch(r"d([\d.]+)-w(\d+)-r\d+", name)
    assert match is not None
    return sum(map(int, match[1].split("."))), int(match[2])


if __name__ == "__main__":
    main()
