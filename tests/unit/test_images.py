import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from modified_lisa.errors import ImageError
from modified_lisa.images import image_size, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
WHITE = [255, 255, 255]


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def check(image, shape=(6, 9, 3)):
    assert image.dtype == np.uint8
    assert image.shape == shape
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_file_pil_and_array_are_the_same(tmp_path, as_type):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    for source in (as_type(path), Image.fromarray(COLOURS), COLOURS, Image.open(path)):
        image = read_image(source)
        check(image)
        np.testing.assert_array_equal(image, COLOURS)


def test_the_result_is_a_copy():
    for source in (COLOURS.copy(), COLOURS[..., :1].copy(), Image.fromarray(COLOURS)):
        before = np.array(source)
        read_image(source)[:] = 7
        np.testing.assert_array_equal(np.array(source), before)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    # Large flat areas, so that JPEG keeps them apart.
    corners = np.zeros((16, 32, 3), np.uint8)
    corners[:8, :16], corners[8:, :16], corners[8:, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(corners).save(path, exif=with_orientation(orientation))
    plain = Image.fromarray(corners)
    plain.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain)).astype(int)
    image = read_image(path)
    assert image.shape == ((32, 16, 3) if orientation > 4 else (16, 32, 3))
    assert image_size(path) == image.shape[:2]
    assert np.abs(image - expected).mean() < 12
    np.testing.assert_array_equal(read_image(plain), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_of_16_bits(tmp_path, suffix, orientation):
    grey = (COLOURS[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey).save(path, exif=with_orientation(orientation))
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    np.testing.assert_array_equal(read_image(path)[..., 1], np.rot90(COLOURS[..., 0], turns))


def test_grey_modes():
    grey = COLOURS[..., 0]
    expected = np.stack([grey] * 3, axis=2)
    np.testing.assert_array_equal(read_image(Image.fromarray(grey)), expected)
    np.testing.assert_array_equal(read_image(Image.fromarray(grey > 100)), (expected > 100) * np.uint8(255))
    for values in (
        grey,
        grey[..., None],
        grey.astype(np.uint16) * 257,
        (grey / 255).astype(np.float32),
        grey / 255,
    ):
        np.testing.assert_array_equal(read_image(values), expected)
    np.testing.assert_array_equal(read_image(grey > 100), (expected > 100) * np.uint8(255))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bits_have_the_full_range(mode):
    values = [0, 128, 129, 257, 1000, 65535]
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    assert read_image(image)[0, :, 0].tolist() == [0, 0, 1, 1, 4, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.5, 255.0], [0, 0, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([1e6, 2e6, 3e6], [0, 128, 255]),
        ([-4.0, -4.0, -4.0], [0, 0, 0]),
    ],
)
def test_32_bits_by_their_values(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    assert read_image(image)[0, :, 2].tolist() == expected


def test_32_bit_integers():
    for values, expected in (([0, 1, 255], [0, 1, 255]), ([0, 257, 65535], [0, 1, 255])):
        image = Image.fromarray(np.array([values], np.int32))
        assert image.mode == "I"
        assert read_image(image)[0, :, 0].tolist() == expected


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = 0, 51, 255
    expected = [[WHITE, [244, 204, 204], [200, 0, 0]]]
    np.testing.assert_array_equal(read_image(rgba), expected)
    np.testing.assert_array_equal(read_image(rgba / 255), expected)
    np.testing.assert_array_equal(read_image(rgba.astype(np.uint16) * 257), expected)
    np.testing.assert_array_equal(read_image(Image.fromarray(rgba)), expected)
    grey_alpha = Image.merge("LA", [Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])])
    assert read_image(grey_alpha)[0, :, 1].tolist() == [255, 244, 200]
    assert read_image(rgba > 0).tolist() == [[WHITE, [255, 0, 0], [255, 0, 0]]]


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_and_without_transparency(tmp_path, suffix):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    assert read_image(path).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    image.save(path, transparency=0)
    assert read_image(path).tolist() == [[WHITE, [40, 50, 60]]]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    assert read_image(image)[0, 0].tolist() == [255, 0, 0]
    image.save(tmp_path / "a.jpg")
    pixel = read_image(tmp_path / "a.jpg")[4, 4].astype(int)
    assert np.abs(pixel - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr",
                                  "LAB", "HSV", "I", "F", "I;16"])  # fmt: skip
def test_every_mode_gives_rgb(mode):
    check(read_image(Image.new(mode, (9, 6))))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {})
    )
    assert read_image(path)[2, 2].tolist() == [255, 0, 0]


def test_arrays_that_are_not_in_order():
    view = COLOURS[::-1, ::2].astype(">u2") * 257
    check(read_image(view), (6, 5, 3))
    np.testing.assert_array_equal(read_image(view), COLOURS[::-1, ::2])
    np.testing.assert_array_equal(read_image(COLOURS.transpose(1, 0, 2)), COLOURS.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels to the end"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "expected"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 8, 3), np.int64), "int64.*astype"),
        (np.zeros((8, 8), np.complex64), "complex64"),
        (np.full((8, 8), "x"), "expected"),
        (np.full((8, 8, 3), 200.0), "divide by 255"),
        (np.full((8, 8), -0.5), "0..1"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.array([[0.5, np.nan]]), "NaN"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ImageError, match=message):
        read_image(array)


@pytest.mark.parametrize("source", [None, 3, b"a.png", [[1]]])
def test_other_types(source):
    with pytest.raises(ImageError, match=type(source).__name__):
        read_image(source)


def test_bad_pil_images():
    with pytest.raises(ImageError, match="no pixels"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="NaN"):
        read_image(Image.fromarray(np.array([[0, np.nan]], np.float32)))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_bad_files_are_named(tmp_path, read):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image at all")
    (tmp_path / "folder.jpg").mkdir()
    for name, message in (
        ("missing.jpg", "there is no image"),
        ("empty.jpg", "empty"),
        ("text.jpg", "not an image"),
        ("folder.jpg", "folder"),
        ("nul\0l.jpg", "cannot be read"),
        (f"{'long' * 70}.jpg", "cannot be read"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    for share in (0.05, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match=f"a.{suffix}"):
            read_image(path)


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=r"bomb\.png is too large"):
            read(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_hide_the_picture(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    check(read_image(path))
    assert image_size(path) == (6, 9)


def test_exif_that_cannot_be_written_again_still_turns_the_picture(tmp_path):
    """Some cameras give a resolution as text: Pillow reads it, and fails to write it without the orientation."""
    turned_right = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    resolution = struct.pack(">HHI4s", 0x011A, 2, 4, b"72\0\0")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + turned_right + resolution + bytes(4)
    for name in ("a.jpg", "a.png"):
        path = tmp_path / name
        Image.fromarray(COLOURS).save(path, exif=exif)
        with Image.open(path) as plain:
            expected = np.rot90(np.asarray(plain), -1)
        np.testing.assert_array_equal(read_image(path), expected)
        assert image_size(path) == expected.shape[:2]
