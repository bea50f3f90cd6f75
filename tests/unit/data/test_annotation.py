import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modified_lisa.data import Annotation, Shape, rasterize, read_annotation
from modified_lisa.errors import DataError

SQUARE = [[1, 1], [3, 1], [3, 3], [1, 3]]


def shape(points=SQUARE, label="target", **more):
    return {"label": label, "points": points, **more}


def write(folder, *shapes, text=("what?",), name="a.json", **more):
    path = folder / name
    path.write_text(json.dumps({"text": list(text), "shapes": list(shapes), **more}))
    return path


def draw(*shapes, height=8, width=10):
    return rasterize(Annotation(shapes=tuple(Shape(*one) for one in shapes)), height, width)


def test_reads_all_of_it(tmp_path):
    path = write(
        tmp_path,
        shape(shape_type="polygon", flags={}, group_id=None),
        shape([[0, 0], [5.5, 6.25]], "Ignore this", shape_type="rectangle"),
        shape([[4, 4], [4, 6]], "dog", shape_type="circle"),
        shape("nonsense", "Flag", shape_type="point"),
        text=["one", " two\n", "  "],
        is_sentence=True,
        version="5.0",
    )
    annotation = read_annotation(str(path))
    assert annotation.path == path
    assert annotation.texts == ("one", "two")
    assert annotation.is_sentence is True
    assert [one.label for one in annotation.shapes] == ["target", "Ignore this", "dog"]
    assert [one.kind for one in annotation.shapes] == ["polygon", "rectangle", "circle"]
    assert annotation.shapes[1].points.dtype == np.float64
    assert annotation.shapes[1].points.tolist() == [[0, 0], [5.5, 6.25]]


def test_what_may_be_missing(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"text": "only one", "shapes": [shape(shape_type=None), shape()]}))
    annotation = read_annotation(path)
    assert annotation.texts == ("only one",)
    assert annotation.is_sentence is None
    assert [one.kind for one in annotation.shapes] == ["polygon", "polygon"]
    assert read_annotation(write(tmp_path, text=[], is_sentence=0)).texts == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "ascii"])
def test_encodings(tmp_path, encoding):
    text = "a cafe" if encoding == "ascii" else "the café’s sign"
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"text": [text], "shapes": []}, ensure_ascii=False).encode(encoding))
    assert read_annotation(path).texts == (text,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": ["x"],\n "shapes": [}', r"a\.json: line 2, column 13: not valid JSON"),
        (b"", "line 1, column 1: not valid JSON"),
        (b'{"text": ["x"],\n\n"a": "\x81\xff"}', "line 3: the text is neither UTF-8 nor cp1252"),
        (b'{"text": ["x"], "shapes": []', "not valid JSON"),
        ('{"text": ["x"], "shapes": []}'.encode("utf-16"), "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "an object with"),
        (b"null", "an object with"),
        (b'{"shapes": []}', '"text" is missing'),
        (b'{"text": 3, "shapes": []}', '"text" is 3'),
        (b'{"text": null, "shapes": []}', '"text" is None'),
        (b'{"text": ["a", 1], "shapes": []}', "list of strings"),
        (b'{"text": ["a"]}', '"shapes" is missing'),
        (b'{"text": ["a"], "shapes": {}}', '"shapes" is {}'),
        (b'{"text": ["a"], "shapes": null}', '"shapes" is None'),
        (b'{"text": ["a"], "shapes": [], "is_sentence": "yes"}', "is_sentence"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (shape(shape_type="linestrip"), "linestrip"),
        (shape(shape_type=["polygon"]), "shape_type"),
        (shape([[1, 1]] * 3, shape_type="rectangle"), "rectangle of 3 points"),
        (shape([[1, 1]], shape_type="circle"), "circle of 1 points"),
        (shape([]), "no points"),
        (shape(None), "points are None"),
        (shape([1, 2, 3]), "point 1 is 1"),
        (shape([[1, 2], [1, 2, 3]]), "point 2"),
        (shape([[1, 2], [1, "2"]]), "two numbers"),
        (shape([[1, None]]), "two numbers"),
        (shape([[1, True]]), "two numbers"),
        (shape([[1, math.nan]]), "finite"),
        (shape([[1, -math.inf]]), "finite"),
        (shape([[1, 3e9]]), "finite pixel coordinates"),
        (shape([[1, 10**400]]), "finite pixel coordinates"),
        (shape(label=None), "label"),
        ({"points": SQUARE}, "no label"),
        ({"label": "target"}, "no points"),
        ("target", "an object"),
    ],
)
def test_bad_shapes_are_named_with_their_number(tmp_path, bad, message):
    path = write(tmp_path, shape(label="flag"), bad, shape())
    with pytest.raises(DataError, match=f"a.json.*shape 2 of 3.*{message}"):
        read_annotation(path)


def test_all_that_is_wrong_is_listed(tmp_path):
    path = write(tmp_path, shape([]), shape(), shape(shape_type="mask"), is_sentence=7)
    with pytest.raises(DataError, match=r"is_sentence.*shape 1 of 3.*shape 3 of 3"):
        read_annotation(path)


def test_unreadable_paths(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_annotation(tmp_path / "missing.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_annotation(tmp_path)


def test_shape_checks_itself():
    with pytest.raises(DataError, match="shape_type"):
        Shape("target", np.zeros((3, 2)), "ellipse")
    with pytest.raises(DataError, match="points"):
        Shape("target", np.zeros((3, 2), bool))
    with pytest.raises(DataError, match=r"\[x, y\]"):
        Shape("target", np.zeros((3, 3)))


def test_polygon_includes_its_outline_and_truncates():
    mask = draw(("target", [[1.9, 1.2], [3.99, 1.0], [3.5, 3.9], [1.1, 3.0]]))
    expected = np.zeros((8, 10), np.uint8)
    expected[1:4, 1:4] = 1
    np.testing.assert_array_equal(mask, expected)
    # Towards zero, so a point a little left of the image lies on its first column.
    assert draw(("target", [[-0.9, -0.9], [0.5, -0.5], [0.5, 0.5]])).sum() == 1


def test_one_and_two_points_are_a_dot_and_a_line():
    assert np.argwhere(draw(("target", [[4, 2]]))).tolist() == [[2, 4]]
    assert np.argwhere(draw(("target", [[4, 2], [6, 2]]))).tolist() == [[2, 4], [2, 5], [2, 6]]


@pytest.mark.parametrize(
    "corners", [[[2, 1], [5, 3]], [[5, 3], [2, 1]], [[2, 3], [5, 1]], [[5.9, 1.9], [2.1, 3.2]]]
)
def test_rectangle_in_any_order_of_corners(corners):
    expected = np.zeros((8, 10), np.uint8)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(draw(("target", corners, "rectangle")), expected)


def test_circle_is_the_disc():
    mask = draw(("target", [[20, 15], [23, 19]], "circle"), height=40, width=50)
    rows, columns = np.mgrid[:40, :50]
    np.testing.assert_array_equal(mask, (rows - 15) ** 2 + (columns - 20) ** 2 <= 25)
    assert draw(("target", [[4, 2], [4, 2]], "circle")).sum() == 1
    assert draw(("target", [[-900_000, 0], [5, 0]], "circle"))[0].tolist() == [1] * 6 + [0] * 4


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("target", 1),
        ("dog", 1),
        ("", 1),
        ("IGNORE", 255),
        ("please ignore me", 255),
        ("flag", 0),
        ("FlAg", 0),
        # Only the label "flag" itself is skipped, as in the original.
        ("red flag", 1),
        ("flags", 1),
    ],
)
def test_labels(label, value):
    assert draw((label, SQUARE))[2, 2] == value


def test_smaller_shapes_lie_on_larger_ones_whatever_the_order():
    large, small = [[0, 0], [7, 0], [7, 7], [0, 7]], [[2, 2], [4, 2], [4, 4], [2, 4]]
    for one, other in ((("target", large), ("ignore", small)), (("ignore", large), ("target", small))):
        np.testing.assert_array_equal(draw(one, other), draw(other, one))
        assert draw(one, other)[3, 3] == (255 if other[0] == "ignore" else 1)
        assert draw(one, other)[6, 6] == (255 if one[0] == "ignore" else 1)


def test_area_is_that_inside_the_image():
    # Larger on paper, but fewer of its pixels are in the image: it lies on top.
    wide, inside = [[6, 2], [5000, 2], [5000, 4], [6, 4]], [[0, 0], [8, 0], [8, 7], [0, 7]]
    assert draw(("ignore", wide), ("target", inside))[3, 7] == 255


def test_of_equal_areas_the_first_ends_on_top():
    for labels in (("target", "ignore"), ("ignore", "target")):
        mask = draw(*((label, SQUARE) for label in labels))
        assert mask[2, 2] == (1 if labels[0] == "target" else 255)
    assert draw(("target", SQUARE), *[("ignore", SQUARE)] * 30)[2, 2] == 1


def test_outside_is_cut_off():
    assert draw(("target", [[50, 50], [60, 50], [60, 60]])).sum() == 0
    assert draw(("target", [[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]])).all()


def test_no_shapes():
    mask = rasterize(Annotation(), 3, 4)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0] * 4] * 3


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (2.0, 5), (True, 5), (None, 5)])
def test_bad_sizes(size):
    with pytest.raises(DataError, match="whole number"):
        rasterize(Annotation(), *size)


POINTS = st.lists(st.tuples(st.floats(-30, 60), st.floats(-30, 60)), min_size=1, max_size=6)
LABELS = st.sampled_from(["target", "ignore", "flag"])


@given(shapes=st.lists(st.tuples(LABELS, POINTS), max_size=5), dx=st.integers(0, 9), dy=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_properties(shapes, dx, dy):
    mask = draw(*shapes, height=20, width=24)
    assert set(np.unique(mask)) <= {0, 1, 255}
    # Flags do nothing.
    np.testing.assert_array_equal(
        mask, draw(*[one for one in shapes if one[0] != "flag"], height=20, width=24)
    )
    # Every vertex inside the image is covered by something.
    for label, points in shapes:
        for x, y in np.array(points).astype(np.int32):
            if label != "flag" and 0 <= x < 24 and 0 <= y < 20:
                assert mask[y, x] != 0
    # One shape alone: moving it moves its pixels.
    for label, points in shapes[:1]:
        whole = np.array(points).astype(np.int32)
        if (whole >= 0).all() and (whole < 10).all():
            moved = draw((label, whole + np.array([dx, dy])), height=30, width=30)
            np.testing.assert_array_equal(
                np.roll(moved, (-dy, -dx), (0, 1)), draw((label, whole), height=30, width=30)
            )


def test_nothing_may_be_the_answer(tmp_path):
    assert read_annotation(write(tmp_path, no_target=True)).no_target
    assert read_annotation(write(tmp_path, shape(label="ignore"), no_target=True)).no_target
    assert not rasterize(read_annotation(write(tmp_path, no_target=True)), 6, 6).any()
    for value in (False, None):
        assert not read_annotation(write(tmp_path, shape(), no_target=value)).no_target
    assert not read_annotation(write(tmp_path, shape())).no_target


@pytest.mark.parametrize(
    ("shapes", "value", "message"),
    [
        ((shape(),), True, r"true, and there is something to segment: shape 1 of 1 \(label 'target'\)"),
        ((), "yes", "\"no_target\" is 'yes'; true, false or nothing"),
        ((), 1, '"no_target" is 1'),
    ],
)
def test_no_target_must_be_meant(tmp_path, shapes, value, message):
    with pytest.raises(DataError, match=message):
        read_annotation(write(tmp_path, *shapes, no_target=value))
