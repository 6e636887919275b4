import io
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from rheos.core import DataError
from rheos.data import archive, open_images


def png(draw, number):
    buffer = io.BytesIO()
    Image.fromarray(draw(number)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def make(tmp_path, draw):
    """A zip of three good images, and what a test puts beside them."""

    def build(**members):
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(3):
                file.writestr(f"{number}.png", png(draw, number))
            for name, data in members.items():
                file.writestr(name, data)
        return path

    return build


def test_the_plain_archive_is_read(make):
    assert len(open_images(make())) == 3


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../evil.png", "leaves the archive"),
        ("a/../../evil.png", "leaves the archive"),
        ("a\\..\\..\\evil.png", "leaves the archive"),
        ("/etc/evil.png", "absolute path"),
        ("C:\\evil.png", "absolute path"),
    ],
)
def test_names_that_escape(make, draw, name, fault):
    with pytest.raises(DataError, match=fault):
        open_images(make(**{name: png(draw, 9)}))


def test_symbolic_links(make, tmp_path):
    path = make()
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'link\.png' is a symbolic link"):
        open_images(path)


def test_zip_bomb_by_ratio(make):
    with pytest.raises(DataError, match="zip bomb"):
        open_images(make(**{"zeros.bin": bytes(archive.HARMLESS + 1)}))


def test_blank_bitmaps_are_no_bomb(make):
    buffer = io.BytesIO()
    Image.new("RGB", (512, 512)).save(buffer, "BMP")
    assert len(open_images(make(**{"blank.bmp": buffer.getvalue()}), size=8)) == 4


def test_members_and_totals_beyond_the_limits(make, monkeypatch):
    path = make(**{"long.bin": np.random.default_rng(0).bytes(5000)})
    monkeypatch.setattr(archive, "TOTAL_LIMIT", 5000)
    with pytest.raises(DataError, match="would unpack to"):
        archive.inspect(path)
    with pytest.raises(DataError, match=r"'long\.bin' would unpack to 5000 bytes, more than 4999"):
        archive.inspect(path, member_limit=4999)


def test_encrypted_members(make):
    path = make()
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        open_images(path)


def test_damaged_archives(make):
    path = make()
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"not a zip"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a readable zip"):
            open_images(path)


def test_a_flipped_bit_in_a_member_is_found(make):
    path = make()
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read.*0\.png"):
        open_images(path)
