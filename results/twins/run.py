"""Checks the twins of a search on Fashion-MNIST, whose runs `results/horizons` has; see README.md.

python results/twins/run.py [flags of `cmtscale check`]
"""

import shutil
import subprocess
import sys
from pathlib import Path

from cmtscale.record.folder import ENVIRONMENT, REQUEST, TRIALS, VAL_LOSSES
from cmtscale.search.environment import save_environment
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.prepare import prepare
from cmtscale.search.request import SearchRequest
from cmtscale.train.devices import device_slots

TABLE = Path(__file__).parents[1] / "horizons" / "table"
SEARCH = Path(__file__).parent / "search"


def main() -> None:
    if not SEARCH.exists():
        request = SearchRequest(budget_macs=4_000_000_000, data="fashion-mnist", device="cpu")
        with LocalExecutor(device_slots("cpu")) as executor:
            settings, dataset = prepare(request, executor, print)
        SEARCH.mkdir()
        devices = executor.devices
        save_environment(
            SEARCH / ENVIRONMENT, dataset, source=request.data, split_seed=0, devices=devices
        )
        settings.save(SEARCH / REQUEST)
        for name in (TRIALS, VAL_LOSSES):
            shutil.copy(TABLE / name, SEARCH / name)
    command = ["cmtscale", "check", str(SEARCH), "--twin", "--device", "cpu", *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
