"""The trainings of run.sh as one table; python collect.py WORK writes runs.csv and prints means."""

import csv
import json
import statistics
import sys
from pathlib import Path

ARMS, RATES, DRAWS = ("scratch", "tuned", "frozen"), ("5e-4", "2e-3", "6e-3"), (0, 1, 2)
FIELDS = ("val_loss", "val_accuracy", "test_accuracy", "train_loss", "temperature", "seconds")


def main(work: Path) -> None:
    rows = []
    for arm in ARMS:
        for rate in RATES:
            for draw in DRAWS:
                result = json.loads((work / f"{arm}-{rate}-{draw}.json").read_text())
                found = {name: round(result[name], 4) for name in FIELDS}
                rows.append({"arm": arm, "lr": rate, "draw": draw, **found})
            last = rows[-len(DRAWS) :]
            print(arm, rate, *(mean(last, name) for name in ("val_accuracy", "val_loss")), end=" ")
            print(mean(last, "test_accuracy"), [row["test_accuracy"] for row in last])
    with (Path(__file__).parent / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def mean(rows: list[dict[str, float]], name: str) -> float:
    return round(statistics.fmean(row[name] for row in rows), 4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
