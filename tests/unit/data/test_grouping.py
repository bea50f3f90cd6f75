"""Which groups an annotation's samples are reported in."""

import json

import numpy as np
from PIL import Image

from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.grouping import groups_of
from modified_lisa.data.scenes.generate import make_sample, to_labelme


def test_generated_scenes_say_what_they_are() -> None:
    scene, query = make_sample(0, "val", 1)
    content = to_labelme(scene, query, "x.jpg")
    groups = groups_of(content, content["is_sentence"])
    assert groups["type"] == query.kind
    assert groups["length"] == ("long" if query.is_sentence else "short")
    assert groups["wording"] == ("held out" if query.wording_held_out else "seen")
    assert groups["combination"] == ("held out" if query.combination_held_out else "seen")


def test_other_files_have_what_they_have() -> None:
    assert groups_of({}, None) == {}
    assert groups_of({"scene": "a street"}, True) == {"length": "long"}
    odd = {"scene": {"kind": 3, "wording_held_out": "yes", "object_held_out": True}}
    assert groups_of(odd, None) == {"object": "held out"}


def test_samples_carry_them(tmp_path) -> None:
    (tmp_path / "val").mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "val" / "a.png")
    shape = {"label": "target", "points": [[2, 2], [9, 2], [9, 9]]}
    content = {"text": ["it"], "is_sentence": 0, "shapes": [shape], "scene": {"kind": "use"}}
    (tmp_path / "val" / "a.json").write_text(json.dumps(content))
    assert ReasonSegDataset(tmp_path, "val")[0].groups == {"length": "short", "type": "use"}
