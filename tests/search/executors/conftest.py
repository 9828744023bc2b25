"""Jobs that worker processes of every engine can import, and a Ray cluster on this machine."""

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def jobs() -> Iterator[Any]:
    """The module of jobs that end in every way."""
    folder = str(Path(__file__).parent)
    paths = [folder, os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        yield importlib.import_module("contract_jobs")


@pytest.fixture(scope="module")
def cluster(jobs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:  # noqa: ARG001
    """A Ray cluster whose head has no cores and a node has two; its cache of images is empty.

    This process is connected to it: executors share its workers.
    """
    pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # the cluster is in this process's group, which a raylet may take for that of a dead worker
        patch.setenv("RAY_process_group_cleanup_enabled", "0")
        patch.setenv("CMTSCALE_CACHE", str(tmp_path_factory.mktemp("node-cache")))
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
        cluster.add_node(num_cpus=2, num_gpus=0)
        before = signal.getsignal(signal.SIGTERM)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        signal.signal(signal.SIGTERM, before)  # Ray takes it over
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts in the place of Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def add(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return add
