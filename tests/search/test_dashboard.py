"""optuna-dashboard opens `study.db` as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmtscale.record.row import Row
from cmtscale.search.store import DATABASE, Index


def test_the_dashboard_lists_the_studies_of_a_folder(
    tmp_path: Path, make_row: Callable[..., Row]
) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    from optuna.storages import RDBStorage

    index = Index(tmp_path)
    for seed in range(3):
        index.add(make_row(seed=seed))
    app = dashboard.wsgi(RDBStorage(f"sqlite:///{tmp_path / DATABASE}"))

    def get(path: str) -> Any:
        answers: list[str] = []
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": ""}
        request |= {"SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        body = b"".join(app(request, lambda status, _: answers.append(status)))
        assert answers == ["200 OK"]
        return json.loads(body)

    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == "2x1000"
    trials = get(f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete"] * 3
