"""The command line of the specification, frozen."""

import argparse
import subprocess
import sys

import pytest

from modified_lisa.config import TrainingConfig
from modified_lisa.errors import ConfigError
from modified_lisa.training.arguments import build_parser, parse

SPECIFICATION = {
    "--vlm_name": "llava-hf/llava-1.5-7b-hf",
    "--sam_name": "facebook/sam-vit-base",
    "--use_vlm_vision": False,
    "--dtype": "bf16",
    "--no_quantization": False,
    "--data_dir": ".",
    "--max_train_samples": None,
    "--max_val_samples": None,
    "--epochs": 20,
    "--batch_size": 1,
    "--lr": 3e-4,
    "--weight_decay": 0.01,
    "--grad_clip": 1.0,
    "--warmup_steps": 100,
    "--bce_weight": 1.0,
    "--dice_weight": 1.0,
    "--iou_weight": 1.0,
    "--output_dir": "outputs",
    "--checkpoint_dir": "checkpoints",
    "--save_every": 1,
    "--seed": 42,
    "--num_workers": 0,
}
OURS = {
    "--balance": 0.0,
    "--vision_source": None,
    "--quantization": None,
    "--bridge": None,
    "--bridge_layers": None,
    "--image_side": None,
    "--train_mask_decoder": False,
    "--train_projector": False,
    "--train_vision": False,
    "--lora_r": 0,
    "--lora_alpha": None,
    "--lora_dropout": 0.05,
    "--dataset": "reasonseg",
    "--split_by": None,
    "--images_dir": None,
    "--skip_bad_samples": False,
    "--no_target_answer": "There is no such thing in this image.",
    "--ce_weight": 0.0,
    "--gradient_accumulation_steps": 1,
    "--gradient_checkpointing": False,
    "--cache_dir": None,
    "--cache_limit_gb": None,
    "--init_from": None,
    "--resume": None,
    "--log_with": None,
}


def _actions() -> dict[str, argparse.Action]:
    return {action.option_strings[0]: action for action in build_parser()._actions if action.dest != "help"}


def test_names_and_defaults_are_frozen() -> None:
    found = {name: action.default for name, action in _actions().items()}
    assert {name: found[name] for name in SPECIFICATION} == SPECIFICATION
    assert found == SPECIFICATION | OURS


def test_every_flag_has_one_spelling() -> None:
    assert all(len(action.option_strings) == 1 for action in _actions().values())


def test_full_command_of_the_specification() -> None:
    words = (
        "--vlm_name llava-hf/llava-1.5-7b-hf --sam_name facebook/sam-vit-base --use_vlm_vision --dtype bf16 "
        "--data_dir . --max_train_samples 1000 --max_val_samples 200 --epochs 20 --batch_size 1 --lr 3e-4 "
        "--weight_decay 0.01 --grad_clip 1.0 --warmup_steps 100 --bce_weight 1.0 --dice_weight 1.0 "
        "--iou_weight 1.0 --output_dir outputs --checkpoint_dir checkpoints --save_every 1 --seed 42 "
        "--num_workers 0"
    )
    assert parse(words.split()) == TrainingConfig(max_train_samples=1000, max_val_samples=200)


def test_without_the_flag_it_is_sams_encoder() -> None:
    config = parse(["--no_quantization", "--epochs", "20", "--batch_size", "1"])
    assert config.model.vision_source == "sam"
    assert not config.model.quantize
    assert parse(["--use_vlm_vision"]).model.vision_source == "vlm"


def test_every_value_reaches_its_field() -> None:
    words = (
        "--vision_source vlm --dtype fp16 --bridge linear --bridge_layers=-2,6 --train_mask_decoder "
        "--train_projector --lora_r 8 --lora_alpha 4 --lora_dropout 0.1 --skip_bad_samples "
        "--gradient_accumulation_steps 4 --gradient_checkpointing --resume --log_with tensorboard "
        "--bce_weight 2 --dice_weight 3 --iou_weight 0 --grad_clip 0 --seed 7 --balance 0.25"
    )
    config = parse(words.split())
    model, loss = config.model, config.loss
    assert (model.vision_source, model.dtype, model.bridge, model.bridge_layers) == (
        "vlm",
        "fp16",
        "linear",
        (-2, 6),
    )
    assert model.train_mask_decoder
    assert model.train_projector
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (8, 4.0, 0.1)
    assert (loss.bce, loss.dice, loss.iou) == (2, 3, 0)
    assert (config.skip_bad_samples, config.gradient_checkpointing) == (True, True)
    assert (config.gradient_accumulation_steps, config.grad_clip, config.seed) == (4, 0, 7)
    assert config.balance == 0.25
    assert (config.resume, config.log_with) == ("latest", "tensorboard")
    assert parse(["--resume", "some.pt"]).resume == "some.pt"


def test_contradiction_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--use_vlm_vision .*'dual'"):
        parse(["--use_vlm_vision", "--vision_source", "dual"])
    assert parse(["--use_vlm_vision", "--vision_source", "vlm"]).model.vision_source == "vlm"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--epoch 3", "unrecognized arguments: --epoch 3"),
        ("--epochs three", "--epochs: invalid int value: 'three'"),
        ("--dtype fp64", "--dtype: invalid choice: 'fp64'"),
        ("--bridge_layers 1,x", "--bridge_layers: '1,x' is not a list of layer numbers"),
    ],
)
def test_typing_errors(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_help_shows_groups_and_every_default() -> None:
    text = build_parser().format_help()
    for group in ("model", "data", "training", "output"):
        assert f"{group} configuration:" in text
    assert "loss weights:" in text
    assert all("(default: " in (action.help or "") for action in _actions().values())


def test_parsing_imports_no_torch() -> None:
    code = (
        "import sys; from modified_lisa.training.arguments import parse; import modified_lisa.training.command; "
        "parse([]); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
