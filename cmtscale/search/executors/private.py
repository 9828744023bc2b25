"""A folder of what is unpickled: nobody else may write to it, or put another in its place."""

import os
import stat
from pathlib import Path

from cmtscale.arch.errors import RequestError
from cmtscale.data.cache import own_folder


def private_folder(folder: Path) -> Path:
    """Make a folder that nobody else can write to, or replace: what lies there is unpickled.

    Raises `RequestError` for one that others can write to or own, or that lies in a folder in which
    they can put another in its place.
    """
    if not folder.exists():
        own_folder(folder).chmod(0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise RequestError(
            f"{folder} is not yours alone, and what lies there is carried out; "
            "use a --cache-dir of your own"
        )
    for parent in folder.resolve().parents:
        if _may_be_changed_by_others(parent.stat()):
            raise RequestError(
                f"others can write to {parent}, and so replace {folder}, from where files are "
                f"carried out; use a --cache-dir that is yours alone, or chmod go-w {parent}"
            )
    return folder


def _may_be_changed_by_others(status: os.stat_result) -> bool:
    """Whether others can rename what lies in a folder; a user's own group has no others."""
    is_own_group = status.st_gid == os.getgid() and _is_named_after_user(status.st_gid)
    writable = status.st_mode & (0o002 if is_own_group else 0o022)
    return bool(writable) and not status.st_mode & stat.S_ISVTX


def _is_named_after_user(group: int) -> bool:
    import grp
    import pwd

    try:
        return grp.getgrgid(group).gr_name == pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # numbers without names, as in a container
        return False
