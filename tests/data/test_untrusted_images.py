"""Image trees from anybody: bombs, links, torn files and odd names are images or one line."""

import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmtscale.arch.errors import DataError
from cmtscale.data.folders import Headers, read_folder, read_headers, scan_folder

# lines are made of what the terminal gets, by the command
NAMES = st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs", "Zl", "Zp"])


def png_header(side_px: int) -> bytes:
    """A PNG that claims a side and has next to no bytes."""
    size = struct.pack(">II", side_px, side_px)
    chunk = b"IHDR" + size + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


def test_an_image_bomb_is_refused_by_its_header(pets: Path) -> None:
    (pets / "cat" / "bomb.png").write_bytes(png_header(60_000))
    tree = scan_folder(pets)
    with pytest.raises(DataError, match=r"1 of 41 images cannot be read, first .*bomb\.png: "):
        read_headers(tree)


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog"])
def test_a_link_inside_a_tree_counts_no_image_twice(pets: Path, target: str) -> None:
    (pets / "cat" / "more").symlink_to(target, target_is_directory=True)
    with pytest.raises(DataError, match=r"is reached twice, by .*more.*; remove the link"):
        scan_folder(pets)


def test_a_link_to_images_elsewhere_is_followed(pets: Path, write_images: Any) -> None:
    write_images(pets.parent / "elsewhere", 3)
    (pets / "cat" / "more").symlink_to(pets.parent / "elsewhere", target_is_directory=True)
    assert len(scan_folder(pets).paths) == 43


def test_a_link_to_nothing_is_one_line(pets: Path) -> None:
    (pets / "cat" / "gone.png").symlink_to(pets / "nothing.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        scan_folder(pets)


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=60), cut=st.integers(0, 60), name=st.text(NAMES, max_size=6))
def test_any_bytes_and_any_name_are_an_image_or_one_line(
    content: bytes, cut: int, name: str
) -> None:
    with tempfile.TemporaryDirectory() as root:
        for label in ("a", "b"):
            folder = Path(root) / label
            folder.mkdir()
            (folder / f"x{name}.png").write_bytes(png_header(9)[:cut] + content)
        tree = scan_folder(Path(root))
        with pytest.raises(DataError) as from_headers:
            read_headers(tree)
        with pytest.raises(DataError) as from_pixels:
            list(read_folder(tree, Headers(channels=3, native_px=9), resolution_px=9).blocks)
        for caught in (from_headers, from_pixels):
            assert "\n" not in str(caught.value)
