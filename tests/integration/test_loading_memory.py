"""The host's memory while a model of several files is loaded: what stays, and about one file more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factory import TEXTS, folders
from modified_lisa.model.tiny import VlmSizes, build_tokenizer, build_vlm

MIB = 2**20
LOAD = """
import json, sys
import torch
from modified_lisa.config import ModelConfig
from modified_lisa.model import loading

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

def load(folder):
    config = ModelConfig(vlm_name=folder, sam_name="tiny", quantization=sys.argv[3], dtype="bf16")
    return loading.load_vlm(config, torch.device("cpu"))

load(sys.argv[1])  # brings in the libraries
before = status("VmRSS")
vlm, report = load(sys.argv[2])
print(json.dumps({"peak": status("VmHWM") - before, "kept": report.bytes_after}))
"""


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VLM of 170 MB in files of 25 MB, in fp32 so that it takes half when read as bf16."""
    folder = tmp_path_factory.mktemp("medium")
    sizes = VlmSizes(
        image_size=56,
        vision_width=64,
        vision_layers=2,
        vision_heads=2,
        width=512,
        layers=13,
        heads=4,
        mlp=1536,
        spare_rows=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vlm = build_vlm(build_tokenizer(TEXTS, 400), sizes)
    vlm.save_pretrained(folder, max_shard_size="25MB")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of its memory from /proc")
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_the_peak_is_what_stays_and_about_one_file(medium: Path, quantization: str) -> None:
    files = [file.stat().st_size for file in medium.glob("*.safetensors")]
    assert len(files) >= 6
    # glibc keeps small blocks for itself when they are freed; the matrices of a model of full size are no small
    # blocks, these here are.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB // 4), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folders()[0], str(medium), quantization],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(quantization, {key: round(value / MIB) for key, value in found.items()}, round(sum(files) / MIB))
    assert found["peak"] < found["kept"] + max(files) + 15 * MIB
    assert found["kept"] + max(files) + 15 * MIB < sum(files), "or the test would show nothing"
