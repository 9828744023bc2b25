"""Ways to spend a budget on a world, and to say which architecture is best at 9T."""

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from cmtscale.search.curves import FloatArray, Trained, log_likelihood
from cmtscale.search.forecast import Forecast
from cmtscale.search.importance import sample
from cmtscale.search.policy import near_best, next_runs
from cmtscale.search.scales import NUMBER_OF_SCALES, Scales, normal_of
from oracle.worlds import COSTS, TARGET, TIMES, Run, World

SHARE = 0.3  # of the cost of all candidates at 9T with three seeds
DEGREES = 10  # of freedom that the noise of the first rung is measured with
GENERATION = 4
TOLERANCE = 0.01  # of the loss, within which a candidate is near the best
DRAWS = 4096
ENOUGH = 0.95  # where `cmtscale search` stops
SETS_OF_SCALES = 128
BENDS_AND_SEEDS = ("curvature", "common_noise")
NOTHING = -12.0  # prior standard deviations: such a scale is less than a thousandth of its median

Fit = Callable[[Trained], Forecast]


def budget(world: World) -> float:
    """In units of T images."""
    return SHARE * len(world.points) * 3 * COSTS[-1]


def spent(runs: Sequence[Run]) -> float:
    return sum(COSTS[rung] for _, rung in runs)


def fixed_runs(world: World, *, anchored: Sequence[int] = (1, 2)) -> list[Run]:
    """Every candidate at the first rung, the anchors again there, and once at `anchored` rungs."""
    replicates = [world.anchors[number % len(world.anchors)] for number in range(DEGREES)]
    runs = [(arm, 0) for arm in [*range(len(world.points)), *replicates]]
    return runs + [(arm, rung) for rung in anchored for arm in world.anchors]


def forecast_search(
    world: World, fit: Fit, seed: int, *, anchored: Sequence[int] = (1, 2)
) -> tuple[list[Run], int]:
    """The fixed runs, then generations of what the policy names until the budget is spent.

    Also after how many runs a candidate was first near the best with the probability ENOUGH.
    """
    candidates = len(world.points)
    everyone = np.ones(candidates, dtype=bool)
    runs = fixed_runs(world, anchored=anchored)
    sure_after = None
    while (left := budget(world) - spent(runs)) >= 1:
        known = fit(world.trained(runs))
        draws = known.draws(TARGET, count=DRAWS, seed=seed)
        if sure_after is None and near_best(draws, everyone, TOLERANCE).max() >= ENOUGH:
            sure_after = len(runs)
        named = next_runs(
            known,
            target=TARGET,
            times=TIMES,
            eligible=everyone,
            seconds=np.where(np.array(COSTS) <= left, COSTS, np.inf) * np.ones((candidates, 1)),
            size=GENERATION,
            seed=seed + len(runs),
        )
        for run in named:
            if spent(runs) + COSTS[run[1]] <= budget(world):
                runs.append(run)
    return runs, sure_after or len(runs)


def promotion(world: World) -> tuple[int, list[Run]]:
    """The best quarter by mean goes on, twice; each rung gets a third of the budget."""
    keep = list(range(len(world.points)))
    runs: list[Run] = []
    for rung, cost in enumerate(COSTS):
        share = (budget(world) - spent(runs)) / (len(COSTS) - rung)
        fresh = [(keep[number % len(keep)], rung) for number in range(int(share / cost))]
        runs += fresh
        losses = world.trained(fresh).losses
        arms = np.array(fresh)[:, 0]
        keep.sort(key=lambda arm: losses[arms == arm].mean())
        keep = keep[: max(2, -(-len(keep) // 4))]
    return keep[0], runs


def random_search(world: World, seed: int) -> tuple[int, list[Run]]:
    """Different candidates in random order, one seed each, trained at 9T alone."""
    order = np.random.default_rng(seed).permutation(len(world.points))
    runs = [(int(arm), 2) for arm in order[: int(budget(world) / COSTS[2])]]
    return runs[int(world.trained(runs).losses.argmin())][0], runs


def true_scales(world: World) -> Fit:
    """No fit: the scales that the world was drawn with."""
    normal = normal_of(world.scales)
    return lambda trained: Forecast(trained=trained, normal_scales=normal, effective_samples=1)


def single_fit(trained: Trained, *, with_prior: bool) -> Forecast:
    """The scales of highest likelihood, or of highest posterior density: the best of three."""

    def cost_and_gradient(normal: FloatArray) -> tuple[float, FloatArray]:
        step = 1e-4
        moves = np.concatenate([np.zeros((1, NUMBER_OF_SCALES)), step * np.eye(NUMBER_OF_SCALES)])
        moves = np.concatenate([moves, -moves[1:]])
        values = -log_likelihood(normal + moves, trained)
        up, down = values[1:].reshape(2, -1)
        gradient = (up - down) / (2 * step)
        if with_prior:
            return float(values[0] + normal @ normal / 2), gradient + normal
        return float(values[0]), gradient

    starts = [np.zeros(NUMBER_OF_SCALES)]
    starts += list(np.random.default_rng(0).standard_normal((2, NUMBER_OF_SCALES)))
    # without a prior some scales run away to nothing: five prior standard deviations are enough
    fits = [
        minimize(cost_and_gradient, s, jac=True, method="L-BFGS-B", bounds=[(-5, 5)] * len(s))
        for s in starts
    ]
    best = min(fits, key=lambda result: float(result.fun))
    return Forecast(trained=trained, normal_scales=best.x[None], effective_samples=1)


def bent_alike(trained: Trained) -> Forecast:
    """The forecast of lines with one curvature for all but what is their own, and seeds apart."""
    columns = [field.name for field in fields(Scales)]
    left = [number for number, name in enumerate(columns) if name not in BENDS_AND_SEEDS]

    def padded(normal: FloatArray) -> FloatArray:
        whole = np.full((len(normal), NUMBER_OF_SCALES), NOTHING)
        whole[:, left] = normal
        return whole

    normal, effective_samples = sample(
        lambda normal: log_likelihood(padded(normal), trained),
        dimensions=len(left),
        count=SETS_OF_SCALES,
        seed=0,
    )
    return Forecast(
        trained=trained, normal_scales=padded(normal), effective_samples=effective_samples
    )


def textbook_draws(
    trained: Trained, times: Sequence[float], *, count: int, seed: int
) -> list[FloatArray]:
    """(count, K) at each time, from scikit-learn's Gaussian process as it comes."""
    inputs = np.column_stack([trained.points[trained.arms], trained.times])
    kernel = ConstantKernel() * Matern([1.0] * 4, (1e-2, 1e2), nu=2.5) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed
    )
    process.fit(inputs, trained.losses)
    # predict() adds the noise of a run to the diagonal
    noise = np.exp(process.kernel_.theta[-1]) * process._y_train_std**2
    draws = []
    for time in times:
        asked = np.column_stack([trained.points, np.full(len(trained.points), time)])
        mean, covariance = process.predict(asked, return_cov=True)
        random = np.random.default_rng(seed)
        covariance -= noise * np.eye(len(mean))
        draws.append(random.multivariate_normal(mean, covariance, count, method="eigh"))
    return draws


def botorch_draws(
    trained: Trained, times: Sequence[float], *, count: int, seed: int
) -> list[FloatArray]:
    """(count, K) at each time, from BoTorch's `SingleTaskGP` as it comes."""
    # no dependency of cmtscale's: results/forecast/README.md says how to install it
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(seed)
    inputs = torch.tensor(np.column_stack([trained.points[trained.arms], trained.times]))
    losses = torch.tensor(trained.losses)[:, None]
    process = SingleTaskGP(
        inputs, losses, input_transform=Normalize(d=4), outcome_transform=Standardize(m=1)
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
    draws = []
    for time in times:
        asked = np.column_stack([trained.points, np.full(len(trained.points), time)])
        with torch.no_grad():
            sampled = process.posterior(torch.tensor(asked)).rsample(torch.Size([count]))
        draws.append(sampled[..., 0].numpy())
    return draws
