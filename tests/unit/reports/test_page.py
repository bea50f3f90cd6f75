"""The report page: complete, self-contained, safe with any text, the same for the same results."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from fake_lisa import FakeLISA, FakeSet
from modified_lisa.evaluation import evaluate
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.reports.page import EXPLAINED, Example, Gallery, write_page
from modified_lisa.reports.writing import choose_examples, write_results
from modified_lisa.scoring.ratios import METRICS
from modified_lisa.scoring.summary import summarize
from records import random_records, record

ABOUT = {"checkpoint": "tiny", "split": "val"}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags and texts of a page; checks that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path, records: list[dict[str, Any]], *galleries: Gallery) -> str:
    result = {
        "samples": len(records),
        **summarize(records),
        "losses": {"loss": 1.5, "iou_prediction": 0.25},
        "records": records,
    }
    return write_page(folder / "page.html", ABOUT, result, galleries).read_text(encoding="utf-8")


def test_all_numbers_are_on_it(tmp_path: Path) -> None:
    records = random_records(0)
    page = Page(page_of(tmp_path, records))
    found = summarize(records)
    for name, row in found["estimates"].items():
        shown = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]".replace("-", "−")
        assert shown in re.sub(r"\s+", " ", page.text)
        assert EXPLAINED[name] in page.text
    for group, row in found["groups"]["type"].items():
        assert group in page.text
        assert f"{row['estimates']['boundary_IoU']['value']:.3f}" in page.text
    assert f"{found['calibration']['ECE']:.3f}" in page.text


def test_every_metric_is_explained() -> None:
    assert EXPLAINED.keys() == METRICS.keys()


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = page_of(
        tmp_path, random_records(0), Gallery("The best", [Example(record("a#0"), [("image", b"x")])])
    )
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object"}
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert "url(" not in html
    assert "http" not in html
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    for source in sources[:2]:
        ElementTree.fromstring(base64.b64decode(source.split(",")[1]))  # the plots are whole SVG


def test_texts_cannot_break_out(tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script> \" onerror=\"x & <b>"
    records = [record(f"{nasty}{i}#0", text=nasty, groups={"type": nasty + str(i)}) for i in range(2)]
    page = Page(page_of(tmp_path, records, Gallery(nasty, [Example(records[0], [(nasty, b"x")])])))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert page.text.count(nasty) >= 4


@pytest.mark.parametrize("records", [[record("a#0")], [record("a#0", 0, 0)], [record("a#0", giou=-1.0)] * 2])
def test_small_sets(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    Page(page_of(tmp_path, records))


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    assert page_of(tmp_path, random_records(5)) == page_of(tmp_path, random_records(5))


def test_best_worst_and_random() -> None:
    records = [record(f"{i}#0", i, 100) for i in (50, 0, 99, 20, 70, 10, 90, 30, 60, 40)]
    chosen = choose_examples(records, each=2)
    ious = {heading: [records[i]["intersection"] for i in indices] for heading, indices in chosen.items()}
    assert ious["The best"] == [99, 90]
    assert ious["The worst"] == [0, 10]
    assert len(set(ious["Random ones"]) - {99, 90, 0, 10}) == 2
    assert choose_examples(records, each=2) == chosen


@pytest.mark.parametrize("number", [1, 2, 3, 4, 20])
def test_no_sample_is_shown_twice(number: int) -> None:
    chosen = choose_examples([record(f"{i}#0") for i in range(number)])
    shown = [index for indices in chosen.values() for index in indices]
    assert len(shown) == len(set(shown)) == min(number, 12)


def test_all_files_of_an_evaluation(tmp_path: Path) -> None:
    model, samples = FakeLISA(), FakeSet(7, "val")
    result = evaluate(model, samples).to_dict()
    paths = write_results(tmp_path / "out", ABOUT, result, Segmenter(model), samples)
    assert [path.name for path in paths] == [
        "evaluation_val.json",
        "results_val.jsonl",
        "overlays_val.png",
        "report_val.html",
    ]
    page = Page(paths[-1].read_text(encoding="utf-8"))
    pictures = [a["src"] for tag, a in page.tags if tag == "img" and a["src"].startswith("data:image/jpeg")]
    assert len(pictures) == 3 * 7
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1]))) as picture:
        assert max(picture.size) <= 400
    for name in samples.names:
        assert name in page.text
