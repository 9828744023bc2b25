"""Errors that a user can mend; each message says what, the value, the rule and what to do."""

import signal


class CmtscaleError(Exception):
    """Base of every error raised for user input; the CLI prints it as one line."""

    exit_code = 2


class VariantError(CmtscaleError, ValueError):
    """An architecture that cannot exist, or a name or file that holds none."""


class ScalingError(CmtscaleError, ValueError):
    """Scaling coefficients off the constraint surface."""


class BudgetError(CmtscaleError, ValueError):
    """A budget that no integer architecture meets."""


class DataError(CmtscaleError, ValueError):
    """Images, labels or a cache that cannot be used."""


class RequestError(CmtscaleError, ValueError):
    """A search or training request that makes no sense."""


class DoesNotFitError(RequestError):
    """A training that the memory is too small for.

    `problem` is the message without what to do: see each step's images in `parts` (None: no number
    of them is left), which is another training. `is_begun` says whether a checkpoint stands.
    """

    def __init__(self, message: str, *, problem: str, parts: int | None, is_begun: bool) -> None:
        super().__init__(message)
        self.problem, self.parts, self.is_begun = problem, parts, is_begun
        if is_begun:
            self.exit_code = 1


class WeightsError(CmtscaleError, ValueError):
    """A checkpoint that does not fit the network."""


class CountError(CmtscaleError, RuntimeError):
    """Two independent cost counts disagree, or an operator is counted by none."""


class ResultsError(CmtscaleError, ValueError):
    """A run folder that is missing, empty, in use or not readable."""


class ModelError(CmtscaleError):
    """A folder that holds no trained model, or one that is damaged."""


class ExportError(CmtscaleError, RuntimeError):
    """A trained network that a format cannot hold, or that answers otherwise in it."""

    exit_code = 1


class TrainingError(CmtscaleError, RuntimeError):
    """A training that broke off at something outside it; its checkpoint stands."""

    exit_code = 1


class NoRoomError(CmtscaleError, RuntimeError):
    """A disk that is full, or files that may not grow; all that is stored stands."""

    exit_code = 1


class StoppedError(CmtscaleError):
    """Work that was asked to stop, by a signal or by who gave it; a training has kept its state."""

    def __init__(self, signal_number: int = signal.SIGINT) -> None:
        super().__init__("stopped; the same command goes on")
        self.exit_code = 128 + signal_number  # as shells have it


def first_line(error: BaseException) -> str:
    """What a library's error says in its first line; the name of its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
