"""What a search asks Slurm for: the resources of a job, and how many there are at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import RequestError
from cmtscale.record.files import read_toml
from cmtscale.search.executors.slurm_queue import JOB_NAME
from cmtscale.train.recipe import require_count

AT_A_TIME = 8  # Slurm jobs, unless --workers says otherwise
DEFAULT_MINUTES = 60
NOT_OURS = re.compile(
    r"array|chdir|clusters|error|job-name|nodes|ntasks|output|signal|wrap"  # that we set, or need
)
COUNTS = ("gpus", "cpus")
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True, kw_only=True)
class SlurmJobs:
    """`at_a_time` Slurm jobs, each of `minutes` on `gpus` of one node (0: on cores).

    `share` jobs of ours share a GPU or a core. `options` are sbatch's own, by name; `setup` are
    shell lines that run before ours, such as `module load cuda`. Where `gres` is among the options
    it asks for the GPUs.
    """

    gpus: int = 1
    cpus: int | None = None
    minutes: int = DEFAULT_MINUTES
    share: int = 1
    at_a_time: int = AT_A_TIME
    setup: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, options: Mapping[str, Any], *, device: str, workers: int | None, share: int
    ) -> "SlurmJobs":
        """Those of the options of a request, for `workers` jobs of ours at a time.

        Raises `RequestError` for what is no option, or does not go together.
        """
        options = dict(options)
        gpus = _count(options, "gpus", 0 if device == "cpu" else 1, least=0)
        if device not in ("auto", "cpu", "cuda"):
            raise RequestError(
                f"device {device!r} is of this machine; with the engine slurm use auto, cpu or cuda"
            )
        if (device == "cpu") != (gpus == 0) and device != "auto":
            raise RequestError(
                f"device {device} and gpus={gpus} of --slurm contradict each other; drop one"
            )
        cpus = _count(options, "cpus", None, least=1)
        minutes = _minutes(options.pop("time", DEFAULT_MINUTES))
        setup = options.pop("setup", ())
        if isinstance(setup, str) or not all(isinstance(line, str) for line in setup):
            raise RequestError(f"setup {setup!r} of --slurm is not a list of shell lines")
        for name in options:
            if NOT_OURS.fullmatch(name) or not re.fullmatch(r"[a-z][a-z-]*", name):
                raise RequestError(
                    f"{name} of --slurm cannot be set; use sbatch's long options such as "
                    f"partition, account, qos, mem or constraint"
                )
        size = share * (gpus or cpus or 1)
        if workers is not None and workers % size:
            raise RequestError(
                f"workers {workers} is not a multiple of the {size} runs that share a Slurm job; "
                f"use {-(-workers // size) * size}, or other gpus, cpus or --workers-per-device"
            )
        return cls(
            gpus=gpus,
            cpus=cpus,
            minutes=minutes,
            share=share,
            at_a_time=AT_A_TIME if workers is None else workers // size,
            setup=tuple(setup),
            options=options,
        )

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each job of ours, inside a Slurm job."""
        if self.gpus:
            return tuple(f"cuda:{number}" for number in range(self.gpus)) * self.share
        return ("cpu",) * (self.share * (self.cpus or 1))

    @property
    def size(self) -> int:
        """How many jobs of ours a Slurm job carries out."""
        return len(self.devices)

    @property
    def slots(self) -> tuple[str, ...]:
        """The device of each job of ours, of all Slurm jobs: GPUs are counted through."""
        if not self.gpus:
            return self.devices * self.at_a_time
        gpus = range(self.gpus * self.at_a_time)
        return tuple(f"cuda:{number}" for number in gpus for _ in range(self.share))

    def parameters(self) -> dict[str, Any]:
        """The parameters of submitit's executor."""
        parameters: dict[str, Any] = {
            "name": JOB_NAME,
            "timeout_min": self.minutes,
            "nodes": 1,
            "tasks_per_node": 1,
            "gpus_per_node": None if "gres" in self.options else self.gpus or None,
            "cpus_per_task": self.cpus,
            "slurm_setup": list(self.setup) or None,
            "slurm_array_parallelism": self.at_a_time,
            "slurm_additional_parameters": dict(self.options) or None,
        }
        return {name: value for name, value in parameters.items() if value is not None}


def read_slurm(text: str) -> dict[str, Any]:
    """The options in `partition=gpu,gpus=1,time=2:00:00`, or in a TOML file.

    Raises `RequestError` for text that is neither.
    """
    if text.endswith(".toml"):
        try:
            return read_toml(Path(text))
        except FileNotFoundError:
            raise RequestError(
                f"--slurm {text} does not exist; give a TOML file, or a=b,c=d"
            ) from None
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not (name and equals and value):
            raise RequestError(
                f"--slurm {text!r}: {part!r} is not an option with a value; write "
                f"partition=gpu,gpus=1,time=2:00:00, or give a TOML file"
            )
        is_count = name in COUNTS and value.isdecimal()
        options[name] = int(value) if is_count else value  # account=0042 stays what it is
    return options


def _count(options: dict[str, Any], name: str, default: Any, *, least: int) -> Any:
    value = options.pop(name, default)
    if value is not None and (value or least):
        require_count(f"{name} of --slurm", value)
    return value


def _minutes(value: object) -> int:
    """Whole minutes of a time as Slurm writes it: 90, 2:00:00, 1-12."""
    match = TIME.fullmatch(str(value))
    if match is None:
        raise RequestError(
            f"time {value!r} of --slurm is no time of Slurm's; write minutes, H:MM:SS or D-HH"
        )
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"]:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = (0, *parts, 0)[:3]
    total = int(match["days"] or 0) * 1440 + hours * 60 + minutes + -(-seconds // 60)
    if total < 1:
        raise RequestError(f"time {value!r} of --slurm is under a minute; give a job some minutes")
    return total
