"""What counts as good on a card, and why: fixed before the first run.

A failed criterion is a result too; each names the decision that depends on it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from card.cells import Network, Outcome, Outcomes, Plan, Precision, Setting, search_of, steps_of

RUN_IMAGES = 25_600  # what a search's training sees by default
# The project adds a second implementation of a part only if it is a third faster; the same holds
# for a second way to execute a step and for more runs on a card.
PAYS = 1.33


class UnmeasuredError(Exception):
    """A criterion cannot be judged; the message is the cause."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All outcomes, with the queries that the criteria use."""

    plan: Plan
    outcomes: Outcomes
    seconds: float

    def outcome(self, setting: Setting) -> Outcome:
        outcome = self.outcomes[setting]
        if outcome.cause:
            raise UnmeasuredError(outcome.cause)
        return outcome

    def rate(self, network: Network, **changes: object) -> float:
        """Images per second of training steps."""
        return _number(self.outcome(steps_of(network, **changes)).images_per_second)

    def gain(self, network: Network, **changes: object) -> float:
        """How many times as fast as eager bf16 the steps are."""
        return self.rate(network, **changes) / self.rate(network)

    def measured(self, settings: Iterable[Setting], field: str) -> list[float]:
        """The numbers of those cells that have one; raises the first cause if none has."""
        numbers, causes = [], []
        for setting in settings:
            try:
                numbers.append(_number(getattr(self.outcome(setting), field)))
            except UnmeasuredError as error:
                causes.append(error)
        if not numbers:
            raise causes[0]
        return numbers


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What counts as good, fixed before anything was measured."""

    name: str
    value: Callable[[Results], float]
    bound: Literal["at least", "at most"]
    limit: float
    says: str  # what the value is
    reason: str
    decides: str

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.bound == "at least" else value <= self.limit


def _worst_parity(results: Results, precision: Precision) -> float:
    shares = []
    for setting in results.outcomes:
        if setting.section == "parity" and setting.precision == precision:
            outcome = results.outcome(setting)
            shares.append(_number(outcome.error) / _number(outcome.tolerance))
    return max(shares)


def _flagship_share(results: Results) -> float:
    flagship, _ = results.plan.flagship
    cells = [s for s in results.outcomes if s.section == "steps" and s.network == flagship]
    return max(results.measured([s for s in cells if s.precision == "bf16"], "peak_share"))


def _slowest_twin(results: Results) -> float:
    batch = results.plan.twin_batches[0]
    ways = [{}, {"cuda_graph": True}]
    cells = [[steps_of((twin, batch), **way) for way in ways] for twin in results.plan.twins]
    return min(max(results.measured(of_twin, "images_per_second")) for of_twin in cells)


def _bf16_gain(results: Results) -> float:
    return min(1 / results.gain(network, precision="fp32") for network in results.plan.compared)


def _attention_gain(results: Results) -> float:
    return min(
        1 / max(results.gain(network, attention=other) for other in ("explicit", "sdpa"))
        for network in results.plan.compared
    )


def _graph_gain(results: Results) -> float:
    return min(results.gain(network, cuda_graph=True) for network in results.plan.compared_twins)


def _autotuning_gain(results: Results) -> float:
    return min(results.gain(network, autotuned=True) for network in results.plan.compared)


def _compiling_gain(results: Results) -> float:
    return results.gain(results.plan.flagship, compiled=True)


def _compiling_gain_in_a_search(results: Results) -> float:
    network = results.plan.compiled[0]
    compiled = results.outcome(steps_of(network, compiled=True))
    seconds = _number(compiled.prepare_seconds)
    seconds += RUN_IMAGES / _number(compiled.images_per_second)
    return RUN_IMAGES / results.rate(network) / seconds


def _gain_of_many_runs(results: Results) -> float:
    plan = results.plan
    network = (plan.twin, plan.twin_batches[0])

    def best(counts: Sequence[int]) -> float:
        cells = [
            steps_of(network, "runs", cuda_graph=graph, processes=count)
            for graph in (False, True)
            for count in counts
        ]
        return max(results.measured(cells, "images_per_second"))

    return best(plan.processes[1:]) / best(plan.processes[:1])


def _shortest_search(results: Results) -> float:
    cells = [search_of(results.plan, workers) for workers in results.plan.workers]
    return min(results.measured(cells, "seconds"))


CRITERIA = (
    Criterion(
        name="fp32 agrees with the CPU",
        value=lambda results: _worst_parity(results, "fp32"),
        bound="at most",
        limit=1.0,
        says="the largest error over its tolerance, of logits, loss, gradient and AdamW update",
        reason="tolerances and their reasons stand in card/parity.py",
        decides="whether anything else here counts",
    ),
    Criterion(
        name="bf16 agrees with the CPU",
        value=lambda results: _worst_parity(results, "bf16"),
        bound="at most",
        limit=1.0,
        says="as above",
        reason="as above",
        decides="bf16 as the default on CUDA",
    ),
    Criterion(
        name="CMT-S uses the card",
        value=_flagship_share,
        bound="at least",
        limit=0.08,
        says="achieved FLOP/s over the dense bf16 peak, its best training cell",
        reason="ConvNeXt-T, 4.5 G MACs, trained at 819 images/s on an RTX 3090 in timm's table of "
        "torch 1.12; networks of this kind are bound by memory, and an H100 has 3.6 times that "
        "card's bandwidth: 2,900 images/s are 8 % of its peak",
        decides="whether kernels are looked at next",
    ),
    Criterion(
        name="twins train fast",
        value=_slowest_twin,
        bound="at least",
        limit=5000,
        says="images/s of the slowest of three twins of 14 MMACs at the recipe's batch of 32, "
        "eager or as a CUDA graph",
        reason="two laptop cores reach 160 to 520: ten times that",
        decides="whether a search on one card is worth recommending over a laptop",
    ),
    Criterion(
        name="bf16 is the faster precision",
        value=_bf16_gain,
        bound="at least",
        limit=1.0,
        says="bf16 over fp32 (TF32 off), the least of the compared networks",
        reason="less accurate must not be slower; small networks pay for the casts",
        decides="the default precision on CUDA",
    ),
    Criterion(
        name="auto takes the faster attention",
        value=_attention_gain,
        bound="at least",
        limit=0.95,
        says='"auto" over the better of explicit and SDPA, the least of the compared networks',
        reason="5 % are noise between two cells of one implementation",
        decides='the rule behind attention "auto" on CUDA',
    ),
    Criterion(
        name="CUDA graphs pay",
        value=_graph_gain,
        bound="at least",
        limit=PAYS,
        says="steps as CUDA graphs over eager ones, the least of the compared twins at batch 32",
        reason="a second way to execute a step stays out unless it is a third faster",
        decides="whether trainings on CUDA capture their steps",
    ),
    Criterion(
        name="compiling pays in a long training",
        value=_compiling_gain,
        bound="at least",
        limit=PAYS,
        says="compiled CMT-S over eager, time to compile left out",
        reason="as for CUDA graphs",
        decides="whether `train` compiles",
    ),
    Criterion(
        name="compiling pays in a search",
        value=_compiling_gain_in_a_search,
        bound="at least",
        limit=PAYS,
        says=f"a twin's eager run of {RUN_IMAGES:,} images over a compiled one, compiling counted",
        reason="as for CUDA graphs",
        decides="whether a search compiles",
    ),
    Criterion(
        name="cuDNN autotuning pays",
        value=_autotuning_gain,
        bound="at least",
        limit=1.05,
        says="steps with cuDNN's choice by timing over those without, the least of the compared",
        reason="it is one line, so it need only be beyond the noise",
        decides="torch.backends.cudnn.benchmark on CUDA",
    ),
    Criterion(
        name="several runs at a time pay",
        value=_gain_of_many_runs,
        bound="at least",
        limit=PAYS,
        says="images/s of the best number of processes over the best single one, eager or graph",
        reason="processes take turns on a card: they gain only what a single one leaves idle",
        decides="the default number of workers on one card",
    ),
    Criterion(
        name="a small search is short",
        value=_shortest_search,
        bound="at most",
        limit=60,
        says="seconds of a whole search from the command line, 6 candidates, 3 x 1,024 images",
        reason="the tour takes a laptop three minutes",
        decides="whether start-up and bookkeeping are looked at next",
    ),
    Criterion(
        name="the benchmark is short",
        value=lambda results: results.seconds,
        bound="at most",
        limit=600,
        says="seconds in all",
        reason="a card is rented by the minute",
        decides="nothing",
    ),
)


def _number(value: float | None) -> float:
    if value is None:  # the only number that a measured cell may lack
        raise UnmeasuredError("the card's peak is not known")
    return value
