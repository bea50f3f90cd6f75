import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from modified_lisa.data import check_folder
from modified_lisa.data.check import problems_error

TRIANGLE = [[5, 5], [25, 5], [15, 15]]


def add(folder, stem, *shapes, text=("what?",), size=(40, 30), suffix=".jpg", raw=None, image=True):
    """A pair; without shapes a good triangle. ``size`` is (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    if image:
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}{suffix}")
    content = {"text": list(text), "shapes": list(shapes) or [target(TRIANGLE)]}
    (folder / f"{stem}.json").write_text(json.dumps(content) if raw is None else raw)
    return folder / f"{stem}.json"


def target(points, label="target", **more):
    return {"label": label, "points": points, **more}


def found(root, *splits):
    return [
        (problem.split, problem.file.name, problem.what)
        for problem in check_folder(root, splits or ["train"])
    ]


def test_a_good_folder(tmp_path):
    train = tmp_path / "train"
    for number, suffix in enumerate((".jpg", ".jpeg", ".png", ".JPG", ".PNG")):
        add(train, f"image_{number}.x", suffix=suffix)
    (train / "notes.txt").touch()
    (train / ".DS_Store").touch()
    (train / "._image_0.jpg").write_bytes(b"\0\5\x16\7")
    (train / "folder.json").mkdir()
    assert found(tmp_path) == []
    assert check_folder(str(tmp_path), "train") == []


def test_everything_wrong_at_once(tmp_path):
    train = tmp_path / "train"
    add(train, "a_good")
    add(train, "b_alone").unlink()
    add(train, "c_alone", image=False)
    add(train, "d_json", raw='{"text": ["x"],\n oops}')
    add(train, "e_text", text=["", " "])
    add(train, "f_text", raw=json.dumps({"shapes": [target(TRIANGLE)]}))
    add(train, "g_shapes", target(TRIANGLE, "flag"), target(TRIANGLE, "ignore"))
    add(train, "h_points", target(TRIANGLE), target([[1, 1], [5, 5]]))
    add(train, "i_outside", target([[100, 100], [120, 100], [110, 120]]))
    add(train, "j_type", target(TRIANGLE, shape_type="line"))
    add(train, "k_empty")
    (train / "k_empty.jpg").write_bytes(b"")
    add(train, "l_image")
    (train / "l_image.jpg").write_text("no image")
    add(train, "m_cut")
    (train / "m_cut.jpg").write_bytes((train / "m_cut.jpg").read_bytes()[:-200])
    add(train, "n_two")
    add(train, "n_two", suffix=".png")
    add(tmp_path / "val", "a", text=[])
    problems = found(tmp_path, "train", "val", "test")
    expected = [
        ("train", "b_alone.jpg", "has no annotation; b_alone.json is expected"),
        ("train", "c_alone.json", "has no image"),
        ("train", "d_json.json", "line 2, column 2: not valid JSON"),
        ("train", "e_text.json", '"text" is empty'),
        ("train", "f_text.json", '"text" is missing'),
        ("train", "g_shapes.json", "no polygon"),
        ("train", "h_points.json", "shape 2 of 2 (label 'target'): a polygon of 2 points"),
        ("train", "i_outside.json", "shape 1 of 1 (label 'target'): the polygon lies outside the image"),
        ("train", "j_type.json", "shape 1 of 1 (label 'target'): its shape_type is 'line'"),
        ("train", "k_empty.jpg", "is empty (0 bytes)"),
        ("train", "l_image.jpg", "is not an image"),
        ("train", "m_cut.jpg", "cannot be decoded"),
        ("train", "n_two.jpg", "is not the only image for 'n_two' (also n_two.png)"),
        ("val", "a.json", '"text" is empty'),
        ("test", "test", "has no folder 'test'; its folders are train, val"),
    ]
    assert [problem[:2] for problem in problems] == [problem[:2] for problem in expected]
    for problem, (_, _, what) in zip(problems, expected, strict=True):
        assert what in problem[2]


def test_several_problems_of_one_file(tmp_path):
    add(tmp_path / "train", "a", target([[1, 1]]), target(TRIANGLE, shape_type="mask"), text=[])
    whats = [what for _, _, what in found(tmp_path)]
    assert len(whats) == 3
    assert "shape 2 of 2" in whats[0]
    assert '"text" is empty' in whats[1]
    assert "shape 1 of 2" in whats[2]


def test_numbers_count_the_skipped_flags(tmp_path):
    add(tmp_path / "train", "a", target([], "flag"), target(TRIANGLE), target([[1, 1]]))
    assert [what[:12] for _, _, what in found(tmp_path)] == ["shape 3 of 3"]


# The image is 40 x 30, a tenth of its longer side is 4 pixels.
@pytest.mark.parametrize(
    ("points", "kind", "what"),
    [
        ([[0, 0], [39, 0], [39, 29], [0, 29]], "polygon", None),
        ([[-4, 0], [43, 0], [43, 33]], "polygon", None),
        ([[-5, 0], [39, 0], [39, 29]], "polygon", None),
        ([[-11, 0], [39, 0], [39, 29]], "polygon", "reaches 11 pixels outside"),
        ([[0, 0], [39, 0], [39, 400]], "polygon", "reaches 371 pixels outside"),
        ([[40, 0], [43, 0], [43, 20]], "polygon", "lies outside"),
        ([[-0.9, -0.9], [0, 0], [0, 1]], "polygon", None),
        # Its box meets the image, its pixels do not.
        ([[-9, 3], [3, -9], [-9, -9]], "polygon", "lies outside"),
        ([[0, 0], [41, 32]], "rectangle", None),
        ([[0, 0], [80, 60]], "rectangle", "reaches 41 pixels outside"),
        ([[-9, -9], [-1, -1]], "rectangle", "lies outside"),
        ([[20, 15], [20, 32]], "circle", None),
        ([[20, 15], [50, 15]], "circle", "reaches 16 pixels outside"),
        ([[-20, -20], [-15, -20]], "circle", "lies outside"),
    ],
)
def test_outside(tmp_path, points, kind, what):
    add(tmp_path / "train", "a", target(points, shape_type=kind))
    problems = found(tmp_path)
    assert len(problems) == (what is not None)
    if what:
        assert what in problems[0][2]
        assert "40 x 30" in problems[0][2]


def test_a_border_at_the_width_and_height_is_inside_a_tiny_image_too(tmp_path):
    add(tmp_path / "train", "a", target([[0, 0], [8, 0], [8, 6], [0, 6]]), size=(8, 6))
    add(tmp_path / "train", "b", target([[0, 0], [1, 1]], shape_type="rectangle"), size=(1, 1))
    add(tmp_path / "train", "c", target([[0, 0], [11, 0], [11, 6], [0, 6]]), size=(8, 6))
    assert [name for _, name, _ in found(tmp_path)] == ["c.json"]


def test_outside_is_judged_after_the_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    add(tmp_path / "train", "a", target([[2, 2], [20, 2], [20, 55]]))
    Image.new("RGB", (60, 24)).save(tmp_path / "train" / "a.jpg", exif=exif)
    assert found(tmp_path) == []
    Image.new("RGB", (60, 24)).save(tmp_path / "train" / "a.jpg")
    assert "reaches 32 pixels" in found(tmp_path)[0][2]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_that_are_cut_short(tmp_path, suffix):
    add(tmp_path / "train", "a", suffix=suffix, size=(200, 150))
    path = tmp_path / "train" / f"a{suffix}"
    data = path.read_bytes()
    for kept in (100, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:kept])
        assert [name for _, name, _ in found(tmp_path)] == [path.name]
    path.write_bytes(data + b"\0" * 100)  # something after the end does no harm
    assert found(tmp_path) == []


def test_a_jpeg_with_a_thumbnail_that_is_cut_short(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    add(tmp_path / "train", "a")
    path = tmp_path / "train" / "a.jpg"
    Image.open(path).save(path, exif=b"Exif\0\0" + thumbnail.getvalue())
    path.write_bytes(path.read_bytes()[:-300])
    assert "cut short" in found(tmp_path)[0][2]


def test_other_formats_under_these_names_are_decoded(tmp_path):
    add(tmp_path / "train", "a")
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "a.jpg", "WEBP")
    assert found(tmp_path) == []


def test_folders_that_are_not_there(tmp_path):
    assert "does not exist" in found(tmp_path / "nowhere")[0][2]
    add(tmp_path, "a")
    assert "images lie in it directly" in found(tmp_path)[0][2]
    (tmp_path / "train").mkdir()
    assert "holds no images" in found(tmp_path)[0][2]


def test_the_error_lists_fifty(tmp_path):
    for number in range(60):
        add(tmp_path / "train", f"image_{number:02}", text=[], image=False)
    message = str(problems_error(check_folder(tmp_path, ["train"])))
    assert message.startswith("120 problems")
    assert "image_24.json" in message
    assert "image_25.json" not in message
    assert "and 70 more" in message
    assert "--skip_bad_samples" in message


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["what is it? <SEG>"], None),
        (["<SEG> what is it?", "and this?"], None),
        (["what?", "this <SEG> and that <SEG>"], "text 2 of 2: it holds 2 <SEG>"),
        ([" <SEG> "], "text 1 of 1: the query is empty"),
        (["half a pair \ud800"], "text 1 of 1: the query"),
    ],
)
def test_texts_that_would_stop_the_training(tmp_path, texts, what):
    add(tmp_path / "train", "a", text=texts)
    whats = [problem[2] for problem in found(tmp_path)]
    assert len(whats) == (what is not None)
    assert not whats or whats[0].startswith(what)


def test_a_name_that_is_not_utf_8(tmp_path):
    try:
        add(tmp_path / "train", os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert found(tmp_path) == [
        ("train", f"caf\\udce9{ending}", "its name is not UTF-8; rename it") for ending in (".jpg", ".json")
    ]
    str(problems_error(check_folder(tmp_path, "train"))).encode()  # can be printed


def test_a_png_damaged_in_the_middle(tmp_path):
    train = add(tmp_path / "train", "a", suffix=".png").parent
    data = bytearray((train / "a.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    (train / "a.png").write_bytes(data)
    ((split, name, what),) = found(tmp_path)
    assert (split, name) == ("train", "a.png")
    assert "cannot be decoded" in what


@pytest.mark.parametrize(("said", "problems"), [({}, 1), ({"no_target": False}, 1), ({"no_target": True}, 0)])
def test_no_shape_is_fine_only_where_the_file_says_so(tmp_path, said, problems):
    add(tmp_path / "train", "a", raw=json.dumps({"text": ["the blue umbrella"], "shapes": [], **said}))
    listed = found(tmp_path)
    assert len(listed) == problems
    assert all("no polygon" in what and '"no_target": true' in what for _, _, what in listed)


def test_a_target_that_nothing_is_counted_of(tmp_path):
    train = tmp_path / "train"
    add(train, "covered", target(TRIANGLE, "ignore"), target(TRIANGLE))
    add(train, "partly", target([[0, 0], [12, 0], [12, 29], [0, 29]], "ignore"), target(TRIANGLE))
    ((_, file, what),) = found(tmp_path)
    assert (file, what[:42]) == ("covered.json", "its target is completely covered by 'ignor")
