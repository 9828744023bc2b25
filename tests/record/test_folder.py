"""One process at a time works in a folder; one that wrote nothing leaves no new folder."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from cmtscale.record.folder import LOCK, free_bytes, held, holds_anything, require_folder
from cmtscale.record.holder import HOLDER, Holder, read_holder

HOLD = """
import sys
from pathlib import Path
from cmtscale.record.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_while_the_first_holds_the_folder(tmp_path, refused):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        who = f"process {other.pid} on {socket.gethostname()}, since 20"
        with refused("another process is at work in", tmp_path, who), held(tmp_path):
            pass
        other.communicate()
    with held(tmp_path):
        assert other.returncode == 0


def test_a_killed_holder_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        other.kill()
    assert read_holder(tmp_path).pid == other.pid
    with held(tmp_path):
        assert read_holder(tmp_path).pid == os.getpid()
    assert read_holder(tmp_path) is None


def test_a_holder_on_another_host_is_believed_until_its_file_is_removed(tmp_path, refused):
    theirs = {"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / HOLDER).write_text(json.dumps(theirs))
    who = "process 7 on elsewhere, since 2026-01-01T00:00:00+00:00"
    with refused(who, "if that process has ended, remove", tmp_path / HOLDER), held(tmp_path):
        pass
    assert read_holder(tmp_path) == Holder(**theirs)  # nobody else's file was touched
    (tmp_path / HOLDER).unlink()
    with held(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"host": 5}'])
def test_a_torn_note_of_a_holder_stops_nobody(content, tmp_path):
    (tmp_path / HOLDER).write_bytes(content)
    with held(tmp_path):
        assert read_holder(tmp_path).pid == os.getpid()


def test_a_full_disk_does_not_leave_the_folder_locked(tmp_path, full_disk):
    with full_disk(), pytest.raises(OSError, match="No space left"), held(tmp_path):
        pass
    with held(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path, refused):
    with held(tmp_path), refused("another process is at work in", tmp_path), held(tmp_path):
        pass


def test_a_refused_second_holder_leaves_the_first_its_folder(tmp_path, refused):
    folder = tmp_path / "new"
    with held(folder):
        with refused(folder), held(folder):
            pass
        assert (folder / LOCK).exists()
        with refused(folder), held(folder):
            pass


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_new_folder_that_got_no_file_is_removed_again(error, tmp_path):
    folder = tmp_path / "new"
    try:
        with held(folder):
            assert folder.is_dir()
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert not folder.exists()


def test_a_new_folder_that_got_a_file_stays(tmp_path):
    folder = tmp_path / "a" / "new"
    with held(folder):
        (folder / "a").write_text("kept")
    assert (folder / "a").read_text() == "kept"


def test_a_folder_that_was_there_stays_with_all_it_holds(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "theirs").write_bytes(b"\x00theirs")
    for folder in (empty, full):
        with held(folder):
            pass
    assert empty.is_dir()
    assert (full / "theirs").read_bytes() == b"\x00theirs"
    assert {path.name for path in full.iterdir()} <= {"theirs", LOCK}


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path, refused):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with refused(folder, "cannot be written", "use another --out"), held(folder):
            pass
    with refused(tmp_path / "file", "is a file, not a folder"):
        require_folder(tmp_path / "file")
    require_folder(tmp_path)
    require_folder(tmp_path / "missing")


def test_a_folder_without_permission_is_refused_in_one_line(tmp_path, refused, monkeypatch):
    def acquire(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cmtscale.record.folder.FileLock.acquire", acquire)
    with refused(tmp_path, "cannot be written (Permission denied)"), held(tmp_path):
        pass


def test_hidden_files_alone_are_not_anything(tmp_path):
    assert not holds_anything(tmp_path / "missing")
    (tmp_path / LOCK).touch()
    assert not holds_anything(tmp_path)
    (tmp_path / "a").touch()
    assert holds_anything(tmp_path)
    assert not holds_anything(tmp_path / "a")


WITHOUT_FLOCK = """
import errno, fcntl, warnings
def flock(*_):
    raise OSError(errno.ENOSYS, "no flock here")
fcntl.flock = flock
warnings.simplefilter("ignore")
"""


def test_without_flock_a_file_holds_the_folder_until_its_process_ends(tmp_path):
    command = [sys.executable, "-c", WITHOUT_FLOCK + HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert "ResultsError: another process is at work in" in second.stderr
        other.kill()
    after = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (after.stdout, after.returncode) == ("held\n", 0)
    assert not (tmp_path / LOCK).exists()


def test_what_is_free_is_known_before_a_folder_is_made(tmp_path):
    free = free_bytes(tmp_path / "not" / "yet" / "made")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, abs=1e9)  # others write, too
    assert list(tmp_path.iterdir()) == []
