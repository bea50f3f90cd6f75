"""How well wordings teach wordings: the language model alone learns from `wordings.txt` which kind of thing is meant.

    python experiments/street/words_only.py --data_dir DATA --out runs/street/words.json

No image is seen, and none of the data's own wordings is trained on: all of them are the test. What trains is what trains
in `run.py` on the way from the words to the prompt: LoRA, the ``<SEG>`` row and the seg projection, with a layer behind it
that names the kind. Minutes on a CPU; for choosing wordings and settings before photos are involved.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from assemble import assemble
from photos import kind_of
from run import RATES
from torch import nn
from training import make_optimizer
from wordings import FILE, read_wordings, shortened

from modified_lisa.config import ModelConfig
from modified_lisa.data.check import check_split
from modified_lisa.errors import ConfigError, DataError, ModifiedLISAError
from modified_lisa.files import write_json
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.reading import embed_words


def prompts(model: ModifiedLISA, texts: Sequence[str]) -> torch.Tensor:
    """The mask decoder's prompts (N, C) of queries without their image."""
    processor = model.processor
    rows = [
        torch.tensor([token for token in processor.encode(text) if token != processor.image_token_id])
        for text in texts
    ]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    last = torch.tensor([len(row) - 1 for row in rows], device=model.device)  # a prompt ends with its <SEG>
    is_seg = torch.arange(ids.shape[1], device=model.device)[None] == last[:, None]
    states = model.language_model(inputs_embeds=embed_words(model, ids, is_seg), use_cache=False)
    every = torch.arange(len(rows), device=model.device)
    found: torch.Tensor = model.seg_projection(states.last_hidden_state[every, last].float())
    return found


def own_wordings(root: Path) -> dict[str, list[str]]:
    """{kind: the data's wordings of it, sorted}; DataError for a folder without samples."""
    found: dict[str, set[str]] = {}
    for split in ("train", "val"):
        for pair in check_split(root, split)[0]:
            found.setdefault(kind_of(pair.image), set()).update(pair.texts)
    if not found:
        raise DataError(f"{root} has no samples in train/ and val/")
    return {kind: sorted(texts) for kind, texts in sorted(found.items())}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure; what is written."""
    torch.manual_seed(options.seed)
    test = own_wordings(options.data_dir)
    bank = read_wordings(options.wordings)
    kinds = sorted(test)
    if missing := [kind for kind in kinds if kind not in bank]:
        raise ConfigError(
            f"{options.wordings} has no wording of {', '.join(missing)}, which the data asks for"
        )
    if options.steps < 1:
        raise ConfigError(f"--steps is {options.steps}; give at least 1")
    vlm, sam = assemble(options.models, options.wheels, 640, 128)
    model = ModifiedLISA.from_config(
        ModelConfig(vlm_name=str(vlm), sam_name=str(sam), quantize=False, bridge="fpn", lora_r=16)
    )
    tell = nn.Linear(model.seg_projection[-1].out_features, len(kinds), device=model.device)
    optimizer = make_optimizer(model, RATES)
    optimizer.add_param_group({"params": list(tell.parameters()), "lr": RATES[""], "weight_decay": 0.0})
    base = [group["lr"] for group in optimizer.param_groups]
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    dice_roll = np.random.default_rng(options.seed)
    history: list[dict[str, float]] = []
    began, losses = time.monotonic(), 0.0
    model.train()
    for step in range(1, options.steps + 1):
        share = 0.02 + 0.98 * (1 + math.cos(math.pi * step / options.steps)) / 2
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * min(1.0, step / 15) * share
        chosen = dice_roll.integers(len(kinds), size=options.batch_size)
        texts = [
            shortened(str(dice_roll.choice(bank[kinds[k]])), options.drop_words, dice_roll) for k in chosen
        ]
        loss = F.cross_entropy(tell(prompts(model, texts)), torch.as_tensor(chosen, device=model.device))
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses += float(loss.detach())
        if step % 30 == 0 or step == options.steps:
            wrong = mistaken(model, tell, kinds, test)
            total = sum(map(len, test.values()))
            right = round(1 - len(wrong) / total, 4)
            history.append({"step": step, "loss": round(losses / (step % 30 or 30), 4), "accuracy": right})
            print(f"{history[-1]}  {time.monotonic() - began:.0f} s", flush=True)
            losses = 0.0
    return {
        "accuracy": right,
        "test_wordings": total,
        "trained_wordings": {kind: len(bank[kind]) for kind in kinds},
        "mistaken": wrong,
        "history": history,
        "options": {name: str(value) for name, value in vars(options).items()},
    }


@torch.no_grad()
def mistaken(
    model: ModifiedLISA, tell: nn.Module, kinds: list[str], test: dict[str, list[str]]
) -> dict[str, str]:
    """{wording: the kind that it was taken for}."""
    model.eval()
    found = {}
    for kind, texts in test.items():
        for text, guess in zip(texts, tell(prompts(model, texts)).argmax(dim=1).tolist(), strict=True):
            if kinds[guess] != kind:
                found[text] = kinds[guess]
    model.train()
    return found


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/street/words.json"))
    parser.add_argument("--models", type=Path, default=Path("runs/street/models"))
    parser.add_argument("--wheels", type=Path, help="folder of the wheels; without it they are downloaded")
    parser.add_argument("--wordings", type=Path, default=FILE, help="file of wordings to train on")
    parser.add_argument("--drop_words", type=float, default=0.2, help="share of a query's words left out")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        report = run(options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, report)
    print(json.dumps({key: report[key] for key in ("accuracy", "test_wordings", "mistaken")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
