"""The command line as its users meet it: what goes to which stream, and the exit status."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import factory
from factory import picture, tiny_model
from modified_lisa import ConfigError, Segmenter, __version__
from modified_lisa.apps import cli, commands
from refcoco_folder import make_refcoco


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """A folder with the trained weights of a tiny model."""
    return str(tiny_model().save_pretrained(tmp_path_factory.mktemp("model") / "trained"))


@pytest.fixture
def photo(tmp_path, monkeypatch) -> str:
    """photo.png in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save("photo.png")
    return "photo.png"


def refused(capsys, *command: str) -> str:
    """The message that a command ends with; checks that it is all there is."""
    assert cli.main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("modified-lisa: error: ")
    assert "Traceback" not in err
    return err


# ------------------------------------------------------------------------------------------ segment


def test_segment_draws_the_answer(photo, trained, capsys):
    assert cli.main(["segment", photo, "the red one", "--checkpoint", trained, "--device", "cpu"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "wrote photo_overlay.png"
    assert out[1].startswith("mask 1: score 0.")
    assert out[1].endswith("% of the image")
    expected = Segmenter.from_pretrained(trained, device="cpu").segment(photo, "the red one").overlay()
    with Image.open("photo_overlay.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))


def test_segment_writes_what_it_is_asked_for(photo, trained, capsys):
    query = "one <SEG> and another <SEG>"
    options = ["--out", "deep/answer.npz", "--json", "answer.json", "--threshold", "-1000"]
    assert cli.main(["segment", photo, query, "--checkpoint", trained, *options]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["wrote deep/answer.npz", "wrote answer.json"]
    saved = json.loads(Path("answer.json").read_text(encoding="utf-8"))
    assert saved["text"] == query
    assert [mask["share"] for mask in saved["masks"]] == [1.0, 1.0]
    assert np.load("deep/answer.npz")["masks"].all()
    assert not Path("photo_overlay.png").exists()


def test_json_alone_is_all_there_is_on_stdout(photo, trained, capsys, monkeypatch):
    segment = Segmenter.segment

    def chatty(self, *given, **options):
        print("a library says hello")
        return segment(self, *given, **options)

    monkeypatch.setattr(Segmenter, "segment", chatty)
    assert cli.main(["segment", photo, "it", "--checkpoint", trained, "--json", "--out", "drawn.jpg"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == "it"
    assert "a library says hello" in err
    assert "wrote drawn.jpg" in err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such.png", "it"], "no-such.png"),
        (["photo.png", "  "], "the query is empty"),
        (["photo.png", "it", "--out", "answer.gif"], ".png, .jpg or .jpeg"),
        (["photo.png", "it", "--checkpoint", "best_model_epoch_9.pt"], "best_model_epoch_9.pt"),
        (["photo.png", "it", "--device", "gpu"], "cuda:0"),
        (["text.txt", "it"], "text.txt"),
        (["photo.png", "it", "--threshold", "nan"], "finite"),
        (["photo.png", "it", "--out", "photo.png"], "it is the image itself, which would be lost"),
        (["photo.png", "it", "--out", "folder.png"], "it is a folder; name a file"),
        (["photo.png", "it", "--out", "text.txt/deep/a.png"], "text.txt is a file; name a folder"),
    ],
)
def test_segment_refuses_before_a_model_is_built(photo, capsys, monkeypatch, command, says):
    Path("text.txt").write_text("not an image", encoding="utf-8")
    Path("folder.png").mkdir()
    before = Path("photo.png").read_bytes()
    monkeypatch.setattr("modified_lisa.model.lisa.ModifiedLISA.__init__", None)
    assert says in refused(capsys, "segment", *command)
    assert Path("photo.png").read_bytes() == before


def test_options_replace_those_of_the_checkpoint(photo, monkeypatch):
    seen = {}

    def from_pretrained(source, *, device, fast, **overrides):
        assert fast is False, "one question is not worth capturing graphs for"
        seen.update(overrides, source=source, device=device)
        raise ConfigError("far enough")

    monkeypatch.setattr(Segmenter, "from_pretrained", from_pretrained)
    assert cli.main(["segment", photo, "it"]) == 2
    assert seen == {"source": None, "device": None}
    assert (
        cli.main(["segment", photo, "it", "--dtype", "fp32", "--no_quantization", "--vlm_name", "here"]) == 2
    )
    assert seen == {"source": None, "device": None, "dtype": "fp32", "quantize": False, "vlm_name": "here"}


# ------------------------------------------------------------------------------------------ the other commands


def test_scenes_makes_a_folder_that_evaluate_measures(tmp_path, monkeypatch, trained, capsys):
    monkeypatch.chdir(tmp_path)
    numbers = ["--train", "1", "--val", "2", "--test", "0", "--seed", "3", "--workers", "1"]
    assert cli.main(["scenes", "made", *numbers]) == 0
    assert "made" in capsys.readouterr().out
    assert len(list(Path("made/val").glob("*.json"))) == 2
    assert "--overwrite" in refused(capsys, "scenes", "made", *numbers)

    measure = ["evaluate", trained, "--data_dir", "made", "--output_dir", "measured", "--device", "cpu"]
    assert cli.main(measure) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "val of made: 2 samples"
    saved = json.loads(Path("measured/evaluation_val.json").read_text(encoding="utf-8"))
    shown = {line.split()[0]: line.split()[1] for line in table[1:9]}
    for name in ("mIoU", "cIoU", "gIoU", "boundary_IoU"):
        assert shown[name] == f"{saved['estimates'][name]['value']:.4f}"
    assert saved["metrics"] == {name: saved["estimates"][name]["value"] for name in ("mIoU", "cIoU", "gIoU")}
    assert Path("measured/overlays_val.png").is_file()
    lines = Path("measured/results_val.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == saved["records"]
    annotation = json.loads(Path("made/val/scene_00001.json").read_text(encoding="utf-8"))
    assert saved["records"][0]["type"] == annotation["scene"]["kind"]
    page = Path("measured/report_val.html").read_text(encoding="utf-8")
    assert annotation["text"][0].replace("'", "&#39;") in page

    # The same again as another seed, and merged.
    assert cli.main([*measure[:-4], "--per_sample", "again.jsonl", "--device", "cpu"]) == 0
    assert Path("again.jsonl").read_text(encoding="utf-8").splitlines() == lines
    capsys.readouterr()
    merge = ["merge-results", "measured", "again.jsonl", "--against", "measured", "--out", "merged.json"]
    assert cli.main(merge) == 0
    out = capsys.readouterr().out
    merged = json.loads(Path("merged.json").read_text(encoding="utf-8"))
    assert merged["metrics"]["mIoU"]["mean"] == pytest.approx(saved["metrics"]["mIoU"])
    assert merged["metrics"]["mIoU"]["std"] == 0
    assert merged["difference"]["mIoU"]["low"] == merged["difference"]["mIoU"]["high"] == 0
    assert f"{merged['metrics']['mIoU']['mean']:.4f}" in out
    assert "no-such" in refused(capsys, "merge-results", "measured", "no-such")


def test_evaluate_reads_refcoco(tmp_path, monkeypatch, trained, capsys):
    monkeypatch.chdir(tmp_path)
    make_refcoco(tmp_path, "grefcoco")
    measure = ["evaluate", trained, "--dataset", "grefcoco", "--output_dir", "measured", "--device", "cpu"]
    assert cli.main(measure) == 0
    saved = json.loads(Path("measured/evaluation_val.json").read_text(encoding="utf-8"))
    assert saved["protocol"].startswith("each sentence")
    assert {"N_acc", "T_acc"} <= saved["estimates"].keys()
    assert set(saved["groups"]["type"]) == {"no target", "one target", "several targets"}
    assert "N_acc" in capsys.readouterr().out
    assert "--split_by" in refused(capsys, "evaluate", trained, "--split_by", "unc")
    assert "its splits are train, val" in refused(capsys, *measure, "--split", "testA")


def test_train_learns_from_refcoco_files_and_targets_that_are_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_refcoco(tmp_path, "grefcoco")
    vlm, sam = factory.folders()
    model = ["--vlm_name", vlm, "--sam_name", sam, "--use_vlm_vision", "--no_quantization", "--dtype", "fp32"]
    data = ["--dataset", "grefcoco", "--max_val_samples", "2"]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert cli.main(["train", *model, *data, "--epochs", "1", "--warmup_steps", "0"]) == 0
    assert "2 train and 2 val samples" in capsys.readouterr().out
    record = json.loads(Path("outputs/metrics_epoch_1.json").read_text(encoding="utf-8"))
    assert set(record["val"]) >= {"val_loss", "val_mIoU", "val_cIoU", "val_gIoU"}
    assert np.isfinite(record["train"]["loss"])


def test_train_passes_its_configuration_on(monkeypatch):
    seen = []
    monkeypatch.setattr("modified_lisa.training.run.train", seen.append)
    assert cli.main(["train", "--vlm_name", "tiny", "--use_vlm_vision", "--epochs", "3", "--lr", "1e-4"]) == 0
    (config,) = seen
    assert (config.model.vlm_name, config.model.vision_source, config.epochs, config.lr) == (
        "tiny",
        "vlm",
        3,
        1e-4,
    )


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train", "--data_dir", "no-such-folder"], "no-such-folder"),
        (["train", "--epochs", "0"], "--epochs"),
        (["evaluate", "tiny", "--data_dir", "no-such-folder"], "no-such-folder"),
        (["evaluate", "tiny", "--batch_size", "0"], "--batch_size"),
        (["evaluate", "tiny", "--per_sample", "."], "--per_sample is '.', a folder"),
        (["evaluate", "tiny", "--per_sample", "file/a"], "the folder of --per_sample is 'file', a file"),
        (["evaluate", "tiny", "--output_dir", "file/a/b"], "'file/a/b', and file is a file; name a folder"),
        (["train", "--output_dir", "file"], "--output_dir is 'file', a file; name a folder"),
        (["train", "--checkpoint_dir", "file/a"], "--checkpoint_dir is 'file/a', and file is a file"),
        (["train", "--cache_dir", "file"], "--cache_dir is 'file', a file"),
        (["evaluate", "tiny", "--dataset", "refcoco"], "no folder refcoco"),
        (["merge-results", "no-such"], "no-such"),
        (["scenes", "out", "--train", "-1"], "--train"),
        (["scenes", "out", "--workers", "0"], "--workers"),
    ],
)
def test_the_others_refuse_in_one_message(tmp_path, monkeypatch, capsys, command, says):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert says in refused(capsys, *command)


# ------------------------------------------------------------------------------------------ streams and status


@pytest.mark.parametrize("command", [["nonsense"], [], ["segment"], ["train", "--epoch", "3"], ["--ver"]])
def test_a_mistyped_command_gets_argparses_message(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    assert "usage: modified-lisa" in capsys.readouterr().err


def test_json_before_the_image_is_explained(capsys):
    with pytest.raises(SystemExit):
        cli.main(["segment", "--json", "photo.jpg", "it"])
    assert "put --json after IMAGE and QUERY" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"modified-lisa {__version__}\n"


def test_interrupted(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "segment", interrupt)
    assert cli.main(["segment", "a.png", "it"]) == 130
    assert capsys.readouterr().err == "modified-lisa: interrupted\n"


@pytest.mark.parametrize(
    "bug", [RuntimeError("broken"), OSError("no file has to do with it"), ValueError("x")]
)
def test_a_bug_shows_its_traceback(monkeypatch, bug):
    def fail(_):
        raise bug

    monkeypatch.setattr(commands, "segment", fail)
    with pytest.raises(type(bug)):
        cli.main(["segment", "a.png", "it"])


def test_a_reader_that_stops_reading_is_no_error():
    code = (
        "import sys\n"
        "from modified_lisa.apps import cli, commands\n"
        "commands.segment = lambda _: print('x' * 2_000_000)\n"
        "sys.exit(cli.main(['segment', 'a.png', 'it']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("ascii", "café.png", r"caf\xe9.png"),
        ("utf-8", "café.png", "café.png"),
        ("utf-8", "caf\udce9.png", r"caf\udce9.png"),
    ],
    ids=["ascii", "utf-8", "no UTF-8 in the name"],
)
def test_a_name_that_the_output_cannot_show(encoding, name, shown, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(commands, "segment", lambda _: print(f"wrote {name}"))
    assert cli.main(["segment", "a.png", "it"]) == 0
    assert out.buffer.getvalue().decode(encoding).strip() == f"wrote {shown}"


def test_json_for_an_output_without_unicode(photo, trained, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    command = ["segment", photo, "日本 é", "--json", "--checkpoint", trained, "--device", "cpu"]
    assert cli.main(command) == 0
    assert json.loads(out.buffer.getvalue().decode("latin-1"))["text"] == "日本 é"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(("into", "status", "said"), [("/dev/full", 2, b"no space left"), (None, 0, b"")])
def test_an_output_that_is_full_or_closed(into, status, said):
    code = (
        "import sys; from modified_lisa.apps import cli, commands\n"
        "commands.segment = lambda _: print('x')\n"
        "sys.exit(cli.main(['segment', 'a.png', 'it']))\n"
    )
    redirect = f"> {into}" if into else ">&-"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, code],
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == status
    assert said in done.stderr
    assert b"Traceback" not in done.stderr
