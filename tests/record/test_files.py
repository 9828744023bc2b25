"""Files are written whole or left untouched, and damaged files are named."""

import os

import pytest

from cmtscale.record.files import (
    read_json,
    read_toml,
    seconds_untouched,
    write_atomically,
    write_json,
    write_text_atomically,
)


def test_what_is_written_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text_atomically(path, "één\r\n")
    write_text_atomically(path, "zwei\r\n")
    assert path.read_bytes() == b"zwei\r\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_content_and_no_temporary_file(tmp_path, full_disk):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with full_disk(), pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_json_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "“ü”"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": "“ü”"}


def test_a_file_name_that_is_no_text_is_written_escaped(tmp_path):
    write_text_atomically(tmp_path / "a", "no image: \udcff.png")
    assert (tmp_path / "a").read_text() == "no image: \\udcff.png"


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_text_atomically(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}}', b"[1]", b"null", b"\xff\xfe\x00"])
def test_damaged_json_is_refused_in_one_line_with_its_path(content, tmp_path, refused):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with refused(path, "is damaged"):
        read_json(path)


@pytest.mark.parametrize(
    "content", [b"a =", b"[a\n", b"a = 1\na = 2", b"\xff\xfe\x00", b'a = "\n"']
)
def test_damaged_toml_is_refused_in_one_line_with_its_path(content, tmp_path, refused):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with refused(path, "is damaged"):
        read_toml(path)


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_a_missing_file_is_missing_and_a_folder_is_no_file(read, tmp_path, refused):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "a")
    with refused(tmp_path, "cannot be read: Is a directory"):
        read(tmp_path)


def test_how_long_a_file_was_left_alone_is_said_by_its_disk(tmp_path):
    path = tmp_path / "a"
    path.touch()
    assert seconds_untouched(path) < 10
    os.utime(path, (0, path.stat().st_mtime - 1000))
    assert 1000 <= seconds_untouched(path) < 1010
    os.utime(path, (0, path.stat().st_mtime + 5000))  # by another clock
    assert seconds_untouched(path) == 0
    assert list(tmp_path.iterdir()) == [path]
