"""ZIPs of photos: what is taken, and the many ways in which an archive could do harm."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from skinclip.data.readers import read_cases
from skinclip.study import photo_archive
from skinclip.study.errors import StudyRequestError
from skinclip.study.photo_archive import check_within, unpack_photos
from tests.study import tiny

PHOTO = b"\xff\xd8\xff\xe0 a photo"
TABLE = b"image,diagnosis\na.jpg,nv\n"


def zipped(path: Path, files: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def unpacked(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_photos_and_table_lie_at_the_top(tmp_path: Path) -> None:
    files = {
        "study/manifest.csv": TABLE,
        "study/a.jpg": PHOTO,
        "study/more/b.PNG": PHOTO,
        "__MACOSX/study/._a.jpg": b"",
    }
    got = unpack_photos(zipped(tmp_path / "a.zip", files), tmp_path / "photos")
    assert got.files == 3 and got.left_out == ()
    assert unpacked(got.folder) == ["a.jpg", "manifest.csv", "more/b.PNG"]


def test_a_second_archive_takes_the_place_of_the_first(tmp_path: Path) -> None:
    unpack_photos(zipped(tmp_path / "a.zip", {"a.jpg": PHOTO}), tmp_path / "photos")
    unpack_photos(zipped(tmp_path / "b.zip", {"b.jpg": PHOTO}), tmp_path / "photos")
    assert unpacked(tmp_path / "photos") == ["b.jpg"]
    broken = tmp_path / "c.zip"
    broken.write_bytes(b"no archive")
    with pytest.raises(StudyRequestError, match="no ZIP archive"):
        unpack_photos(broken, tmp_path / "photos")
    assert unpacked(tmp_path / "photos") == ["b.jpg"], "what was there stays where the new one is refused"
    assert [path.name for path in tmp_path.glob(".photos*")] == []


@pytest.mark.parametrize(
    "name",
    ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "..\\out.jpg", "C:\\out.jpg", "a\x01.jpg", "x" * 300 + ".jpg",
     "run.sh", "page.html", "inner.zip"],
)  # fmt: skip
def test_names_that_lead_elsewhere_and_other_files_are_left_out_by_name(tmp_path: Path, name: str) -> None:
    got = unpack_photos(zipped(tmp_path / "a.zip", {"a.jpg": PHOTO, name: PHOTO}), tmp_path / "in" / "photos")
    assert unpacked(tmp_path / "in") == ["photos/a.jpg"] and len(got.left_out) == 1
    assert not (tmp_path / "out.jpg").exists() and "\x01" not in got.left_out[0]


def test_links_passwords_doubles_and_odd_packings_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", PHOTO)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("A.jpg", PHOTO)
        archive.writestr("odd.jpg", PHOTO, zipfile.ZIP_LZMA)
        archive.writestr("secret.jpg", PHOTO)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"secret.jpg"))
    data[at + 8] |= 1
    path.write_bytes(data)
    got = unpack_photos(path, tmp_path / "photos")
    assert unpacked(got.folder) == ["a.jpg"]
    assert [line.partition(":")[0] for line in got.left_out] == ["link.jpg", "A.jpg", "odd.jpg", "secret.jpg"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_archive, "MAX_UNPACKED_BYTES", 50_000_000)
    bomb = zipped(tmp_path / "a.zip", {f"{i}.jpg": bytes(15_000_000) for i in range(4)})
    assert bomb.stat().st_size < 100_000
    with pytest.raises(StudyRequestError, match="too large"):
        unpack_photos(bomb, tmp_path / "photos")
    assert not (tmp_path / "photos").exists()
    one = unpack_photos(zipped(tmp_path / "b.zip", {"a.jpg": PHOTO, "b.jpg": bytes(21_000_000)}), tmp_path / "photos")
    assert one.left_out == ("b.jpg: is larger than 20 MB",)


def test_a_size_that_is_not_as_declared_is_no_way_around(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.jpg": bytes(15_000_000)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 100)
    path.write_bytes(data)
    with pytest.raises(StudyRequestError, match="no ZIP archive, or a damaged one"):
        unpack_photos(path, tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_too_many_files_are_refused_by_the_end_of_the_archive_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_archive, "MAX_FILES", 10)
    many = zipped(tmp_path / "a.zip", {f"{i}.jpg": b"" for i in range(30)})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(StudyRequestError, match="too large"):
        unpack_photos(many, tmp_path / "photos")


def test_a_list_of_files_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", {"a.jpg": PHOTO}).read_bytes()
    at = whole.rindex(b"PK\x05\x06")
    large = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
    (tmp_path / "b.zip").write_bytes(whole[:at] + large + locator + whole[at:])
    with pytest.raises(StudyRequestError, match="too large"):
        unpack_photos(tmp_path / "b.zip", tmp_path / "photos")


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06", PHOTO])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(StudyRequestError, match="no ZIP archive"):
        unpack_photos(tmp_path / "a.zip", tmp_path / "photos")


def test_nothing_of_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyRequestError, match="neither photos nor a table"):
        unpack_photos(zipped(tmp_path / "a.zip", {"readme.md": b"x"}), tmp_path / "photos")


def test_a_table_cannot_fetch_photos_of_the_server(tmp_path: Path) -> None:
    tiny.write_photos(tmp_path / "private")
    name = next((tmp_path / "private").glob("*.jpg"))
    stream = io.StringIO(f"image,diagnosis\n../private/{name.name},nv\n")
    got = unpack_photos(
        zipped(tmp_path / "a.zip", {"manifest.csv": stream.read().encode(), "b.jpg": PHOTO}), tmp_path / "photos"
    )
    with pytest.raises(StudyRequestError, match="not in the archive"):
        check_within(read_cases(got.folder), got.folder)
