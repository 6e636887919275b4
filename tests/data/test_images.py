import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rheos.core import DataError, InputError
from rheos.data import digits, open_images
from rheos.data.check import common_size


def everything(images):
    return images.read(torch.arange(len(images)))


def zipped(folder, path, below=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, below + file.relative_to(folder).as_posix())
    return path


def test_class_folders_become_sorted_labels(classes, draw):
    images = open_images(classes)
    assert images.shape == (1, 8, 8)
    assert images.classes == ("ant", "bee", "cat")
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    x, labels = images.take(torch.tensor([9, 0]))
    assert labels.tolist() == [2, 0]
    assert x.dtype == torch.uint8
    assert np.array_equal(x[0, 0], draw(1))
    assert np.array_equal(x[1, 0], draw(20))
    assert (images.report.found, images.report.readable, images.report.ignored) == (12, 12, 1)


def test_a_flat_folder_has_no_labels(classes):
    images = open_images(classes / "cat")
    assert images.labels is None
    assert images.classes == ()
    assert images.take(torch.tensor([0]))[1] is None


def test_folders_that_all_images_share_are_no_classes(classes, tmp_path):
    (tmp_path / "outer" / "train").mkdir(parents=True)
    classes.rename(tmp_path / "outer" / "train" / "data")
    assert open_images(tmp_path / "outer").classes == ("ant", "bee", "cat")


def test_parts_of_a_data_set_are_no_classes(classes, tmp_path, draw):
    (tmp_path / "set").mkdir()
    classes.rename(tmp_path / "set" / "train")
    (tmp_path / "set" / "test" / "ant").mkdir(parents=True)
    Image.fromarray(draw(50)).save(tmp_path / "set" / "test" / "ant" / "0.png")
    for path in (tmp_path / "set", zipped(tmp_path / "set", tmp_path / "set.zip")):
        images = open_images(path)
        assert images.classes == ("ant", "bee", "cat")
        assert len(images) == 12
        assert images.report.ignored == 2
    (tmp_path / "set" / "test").rename(tmp_path / "set" / "bus")
    assert open_images(tmp_path / "set").classes == ("bus", "train")


def test_images_beside_class_folders_are_refused(classes):
    (classes / "cat" / "0.png").rename(classes / "stray.png")
    with pytest.raises(DataError, match=r"1 images beside them, such as stray\.png"):
        open_images(classes)


@pytest.mark.parametrize("below", ["", "top/"])
def test_a_zip_equals_its_folder(classes, tmp_path, below):
    folder, archive = open_images(classes), open_images(zipped(classes, tmp_path / "c.zip", below))
    assert torch.equal(everything(folder), everything(archive))
    assert torch.equal(folder.labels, archive.labels)
    assert folder.classes == archive.classes
    assert folder.fingerprint == archive.fingerprint


def test_fingerprint_follows_content(classes, draw):
    before = open_images(classes).fingerprint
    assert open_images(classes, size=4, cache_bytes=0).fingerprint == before
    (classes / "ant").rename(classes / "asp")
    renamed = open_images(classes).fingerprint
    Image.fromarray(draw(99)).save(classes / "asp" / "0.png")
    assert len({before, renamed, open_images(classes).fingerprint}) == 3


def test_decoding_on_demand_equals_the_cache(classes, tmp_path):
    for path in (classes, zipped(classes, tmp_path / "c.zip")):
        cached, lazy = open_images(path, size=6), open_images(path, size=6, cache_bytes=12 * 36 - 1)
        assert lazy._pixels is None
        assert cached._pixels is not None
        index = torch.tensor([7, 3, 3, 11])
        assert torch.equal(cached.read(index), lazy.read(index))
        copy = pickle.loads(pickle.dumps(lazy))
        assert torch.equal(copy.read(index), cached.read(index))


def test_a_file_lost_after_the_check_is_named(classes):
    images = open_images(classes, cache_bytes=0)
    (classes / "bee" / "2.png").unlink()
    assert images.read(torch.tensor([5])).shape == (1, 1, 8, 8)
    with pytest.raises(DataError, match=r"bee/2\.png was readable and no longer is"):
        images.read(torch.tensor([5, 6]))


def test_subset(classes):
    images = open_images(classes)
    some = images.subset(torch.tensor([8, 2]))
    assert len(some) == 2
    assert torch.equal(everything(some), images.read(torch.tensor([8, 2])))
    assert some.labels.tolist() == [2, 0]
    assert some.classes == images.classes
    assert some.fingerprint != images.subset(torch.tensor([2, 8])).fingerprint
    assert some.subset(torch.tensor([1])).read(torch.tensor([0])).equal(images.read(torch.tensor([2])))


def test_mixed_sizes_are_cropped_to_the_centre(tmp_path):
    # White beside a black central square: only the square may be seen, at any size.
    for number, (height, width) in enumerate([(16, 16), (16, 40), (90, 30), (5, 7)]):
        side = min(height, width)
        picture = np.full((height, width), 255, np.uint8)
        top, left = (height - side) // 2, (width - side) // 2
        picture[top : top + side, left : left + side] = 0
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    images = open_images(tmp_path)
    assert images.shape == (1, 16, 16)
    assert int(everything(images).max()) == 0


def test_shrinking_smooths(tmp_path):
    # A fine chequered pattern of black and white has mean 127.5; picking pixels would give black or white.
    picture = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for number in range(2):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    x = everything(open_images(tmp_path, size=8)).float()
    assert (x - 127.5).abs().max() < 4


def test_common_size():
    assert common_size([28, 28, 500]) == 28
    assert common_size([30]) == 28
    assert common_size([3, 3, 8]) == 3
    assert common_size([64]) == 64
    assert common_size([100, 90]) == 64
    assert common_size([4000]) == 256
    assert common_size([32, 16, 16, 32]) == 16


def test_grey_stays_grey_and_colour_makes_all_colour(tmp_path, draw):
    for number in range(2):
        Image.fromarray(draw(number)).save(tmp_path / f"{number}.png")
    assert open_images(tmp_path).shape[0] == 1
    assert open_images(tmp_path, channels=3).shape[0] == 3
    Image.fromarray(draw(2, channels=3)).save(tmp_path / "2.png")
    images = open_images(tmp_path)
    x = everything(images)
    assert images.shape == (3, 8, 8)
    assert torch.equal(x[0], torch.from_numpy(draw(0)).expand(3, 8, 8))
    assert np.array_equal(x[2].permute(1, 2, 0), draw(2, channels=3))
    assert open_images(tmp_path, channels=1).shape[0] == 1


def test_modes_of_files(tmp_path):
    white, half = (255, 255, 255), 0.5 * 255
    shades = {
        "a_rgba_clear.png": (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), white),
        "b_rgba_solid.png": (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), (10, 20, 30)),
        "c_la_half.png": (Image.new("LA", (8, 8), (0, 128)), (half, half, half)),
        "d_grey16.png": (Image.fromarray(np.full((8, 8), 0x8080, np.uint16)), (128, 128, 128)),
        "e_bits.png": (Image.new("1", (8, 8), 1), white),
        "f_palette.png": (
            Image.new("RGB", (8, 8), (200, 0, 7)).convert("P", palette=Image.Palette.ADAPTIVE),
            (200, 0, 7),
        ),
        "g_cmyk.tif": (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), white),
        "h.gif": (Image.new("L", (8, 8), 0), (0, 0, 0)),
    }
    for name, (image, _) in shades.items():
        image.save(tmp_path / name)
    x = everything(open_images(tmp_path)).float()
    expected = torch.tensor([shade for _, shade in shades.values()])
    assert (x - expected[:, :, None, None]).abs().max() <= 1


def test_grey_16_bits_covers_the_range(tmp_path):
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    for number in range(2):
        Image.fromarray(ramp).save(tmp_path / f"{number}.png")
    images = open_images(tmp_path)
    assert images.shape == (1, 8, 8)
    x = everything(images)[0].flatten().double()
    assert (x - torch.linspace(0, 255, 64)).abs().max() <= 0.51


def test_orientation_is_respected(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(draw(0))
    turned.save(tmp_path / "0.png", exif=exif)
    turned.save(tmp_path / "1.png")
    x = everything(open_images(tmp_path))
    # Orientation 6: the stored rows are the picture's columns, from right to left.
    assert torch.equal(x[0, 0], torch.rot90(x[1, 0], -1))


def test_large_jpegs_shrink_to_their_mean(tmp_path):
    for number in range(2):
        Image.new("RGB", (640, 480), (200, 100, 50)).save(tmp_path / f"{number}.jpg")
    x = everything(open_images(tmp_path, size=16)).float()
    assert (x - torch.tensor([200.0, 100, 50])[:, None, None]).abs().max() <= 2


def test_few_unreadable_files_are_left_out_and_named(tmp_path, draw):
    for number in range(40):
        Image.fromarray(draw(number)).save(tmp_path / f"{number:02d}.png")
    cut = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "11.png").write_bytes(b"no image at all")
    seen = []
    for cache_bytes in (1 << 30, 0):
        images = open_images(tmp_path, cache_bytes=cache_bytes, progress=lambda *done: seen.append(done))
        assert len(images) == 38
        assert [item.name for item in images.report.unreadable] == ["07.png", "11.png"]
        assert all(item.reason for item in images.report.unreadable)
        assert "07.png" in str(images.report)
        assert np.array_equal(images.read(torch.tensor([7]))[0, 0], draw(8))
        assert np.array_equal(images.read(torch.tensor([37]))[0, 0], draw(39))
    assert seen[-1] == (40, 40)


def test_many_unreadable_files_stop(classes):
    for number in range(2):
        (classes / "ant" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 12 images cannot be read, more than 5%: ant/0\.png .*ant/1\.png"):
        open_images(classes)
    with pytest.raises(DataError, match="2 of 12"):
        open_images(classes, size=8, channels=1)


def test_labels_follow_the_images_that_remain(tmp_path, draw):
    for label in range(2):
        (tmp_path / str(label)).mkdir()
        for number in range(15):
            Image.fromarray(draw(number)).save(tmp_path / str(label) / f"{number:02d}.png")
    (tmp_path / "0" / "03.png").write_bytes(b"x")
    assert open_images(tmp_path).labels.tolist() == [0] * 14 + [1] * 15


def test_image_bomb_is_unreadable(tmp_path, monkeypatch, draw):
    for number in range(30):
        Image.fromarray(draw(number)).save(tmp_path / f"{number:02d}.png")
    Image.new("1", (9000, 8000)).save(tmp_path / "30.png")
    images = open_images(tmp_path)
    assert len(images) == 30
    assert "9000 x 8000 pixels" in images.report.unreadable[0].reason


def test_empty_one_and_missing(tmp_path, draw):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_images(tmp_path / "photos")
    (tmp_path / "photos" / "list.txt").write_text("x")
    with pytest.raises(DataError, match="no images among 1 other files"):
        open_images(tmp_path / "photos")
    Image.fromarray(draw(0)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match="holds one image"):
        open_images(tmp_path / "photos")
    with pytest.raises(DataError, match=r"does not exist; did you mean .*photos\?"):
        open_images(tmp_path / "photo")
    with pytest.raises(DataError, match="does not exist; give a folder"):
        open_images(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(DataError, match="is not a set of images"):
        open_images(tmp_path / "photos" / "a.png")


def test_bad_arguments(classes):
    with pytest.raises(InputError, match="size"):
        open_images(classes, size=0)
    with pytest.raises(InputError, match="channel"):
        open_images(classes, channels=2)


def test_hidden_files_and_loops_of_links(classes):
    (classes / "ant" / "._0.png").write_bytes(b"resource fork")
    (classes / "ant" / "loop").symlink_to(classes)
    assert len(open_images(classes)) == 12


def test_digits():
    images = digits()
    assert len(images) == 1797
    assert images.shape == (1, 8, 8)
    assert images.classes == tuple("0123456789")
    assert torch.bincount(images.labels).sum() == 1797
    x = everything(images)
    assert x.unique().tolist() == [round(level * 255 / 16) for level in range(17)]
    assert images.labels[:10].tolist() == list(range(10))
    assert digits().fingerprint == images.fingerprint
