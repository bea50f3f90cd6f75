"""A training run from a configuration: processes, data, seed, model, loop."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from modified_lisa.benchmark.measure import reset_peak_memory
from modified_lisa.company import raise_together
from modified_lisa.config import ModelConfig, TrainingConfig
from modified_lisa.data.answers import read_explanations
from modified_lisa.data.asking import check_queries
from modified_lisa.data.opening import DataSet, open_dataset
from modified_lisa.errors import CheckpointError, ConfigError, DataError
from modified_lisa.files import alone_in, check_folder
from modified_lisa.model.checkpoint import load_checkpoint, read_pretrained
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.sharding import check_can_shard, shard_frozen
from modified_lisa.model.sources import resolve_name
from modified_lisa.training.captured import capture_parts
from modified_lisa.training.loop import Trainer
from modified_lisa.training.report import make_accelerator, wants_sharding
from modified_lisa.training.resume import find_checkpoint, seed_everything

__all__ = ["deterministic", "train"]


def train(config: TrainingConfig) -> dict[str, Any]:
    """Train as ``config`` says; returns what ``training_history.json`` holds.

    Runs in one process, or in each of those that ``accelerate launch`` or ``torchrun`` has started.

    Raises:
        ConfigError, DataError, ModelLoadError, CheckpointError: before training; see the message.
        TrainingError: a loss that is not finite; the checkpoints on disk are good.
    """
    # Before a model is loaded, and before the files of an earlier run are set aside for this one's.
    check_folder("--output_dir", config.output_dir)
    check_folder("--checkpoint_dir", config.checkpoint_dir)
    if config.cache_dir is not None:
        check_folder("--cache_dir", config.cache_dir)
    accelerator = make_accelerator(config)
    try:
        if sharded := wants_sharding(accelerator):
            check_can_shard(str(config.model.quantization))
        # Data before the model: what is wrong with it is known in seconds; a model may take minutes to load.
        sets = _open(config, accelerator.print)
        explained = config.loss.ce > 0 and config.dataset == "reasonseg"
        explanations = read_explanations(config.data_dir) if explained else {}
        seed_everything(config.seed)
        reset_peak_memory(accelerator.device)
        # Read first: what is wrong with it is known before a model is loaded.
        source, given = (None, {}) if config.init_from is None else _given_weights(config.init_from)
        if source is not None and source.vision_source == config.model.vision_source == "vlm":
            config = _with_bridge_of(source, config)
        if config.resume is not None and (path := find_checkpoint(config.resume, config.checkpoint_dir)):
            load_checkpoint(path)
        # A model that is dealt out need not fit on one GPU.
        model = ModifiedLISA.from_config(config.model, device="cpu" if sharded else accelerator.device)
        _check_queries(model, sets, accelerator.print)
        own = model.trainable_state_dict()
        if lost := sorted(set(given) & set(model.state_dict()) - set(own)):
            raise ConfigError(
                f"--init_from {config.init_from} brings {len(lost)} weights that do not train here, such as {lost[0]}, "
                "and a checkpoint holds what trains only: they would be lost. Train what was trained there "
                "(--train_mask_decoder, --train_projector, --lora_r)"
            )
        model.load_state_dict({**own, **given})
        if config.gradient_checkpointing and not model.enable_gradient_checkpointing():
            accelerator.print(
                "--gradient_checkpointing is not needed here: nothing before <SEG> trains, so the language model "
                "keeps the activations of a few tokens only, and there is nothing worth recomputing"
            )
        if sharded:
            names = [name for name in os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "").split(",") if name]
            said = shard_frozen(
                model,
                accelerator.device,
                accelerator.num_processes,
                names,
                encoders=config.cache_dir is None,
            )
            accelerator.print(f"{said}. No CUDA graphs with it")
        else:
            accelerator.print(capture_parts(model))
        with deterministic(), _alone(config, accelerator):
            cache = _open_cache(config, accelerator, model, sets)
            return Trainer(
                config, accelerator, model, sets["train"], sets["val"], explanations=explanations, cache=cache
            ).run()
    finally:
        accelerator.end_training()


def _check_queries(model: ModifiedLISA, sets: dict[str, DataSet], say: Callable[[str], Any]) -> None:
    known = {split: len(samples.problems) for split, samples in sets.items()}
    check_queries(model.processor, *sets.values())
    for split, samples in sets.items():
        for problem in samples.problems[known[split] :]:
            say(f"skipped: {problem}")


@contextlib.contextmanager
def _alone(config: TrainingConfig, accelerator: Any) -> Iterator[None]:
    """Meanwhile, no other run writes into the folders of this one: their files would be of both."""
    folders = {os.path.realpath(folder): folder for folder in (config.output_dir, config.checkpoint_dir)}
    with contextlib.ExitStack() as held:
        problem = None
        try:
            for folder in folders.values() if accelerator.is_main_process else ():
                held.enter_context(alone_in(folder))
        except ConfigError as error:
            problem = error
        raise_together(problem, accelerator)
        yield


def _given_weights(source: str) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    return read_pretrained(resolve_name("tiny", "lisa") if source == "tiny" else source)


def _with_bridge_of(source: ModelConfig, config: TrainingConfig) -> TrainingConfig:
    """``config``, with the bridge of ``init_from``'s model where that is asked for; CheckpointError where they differ."""
    if config.same_bridge:
        layers = config.model.bridge_layers or source.bridge_layers
        model_config = config.model.replaced(bridge=source.bridge, bridge_layers=layers)
        return replace(config, model=model_config, same_bridge=False)
    if source.bridge != config.model.bridge:
        raise CheckpointError(
            f"{config.init_from} has the bridge {source.bridge!r} and this training {config.model.bridge!r}: its weights do "
            f"not fit this model; add --bridge {source.bridge}, or leave --bridge out (in Python: same_bridge=True)"
        )
    return config


def _open(config: TrainingConfig, say: Callable[[str], Any]) -> dict[str, DataSet]:
    """Both sets; one DataError with everything that is wrong in either."""
    sets: dict[str, DataSet] = {}
    errors = []
    for split, limit in (("train", config.max_train_samples), ("val", config.max_val_samples)):
        try:
            opened = open_dataset(
                config.data_dir,
                split,
                dataset=config.dataset,
                split_by=config.split_by,
                images_dir=config.images_dir,
                every_text=None,
                max_samples=limit,
                skip_bad_samples=config.skip_bad_samples,
            )
        except DataError as error:
            errors.append(str(error))
            continue
        sets[split] = opened
        for problem in opened.problems:
            say(f"skipped: {problem}")
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return sets


def _open_cache(
    config: TrainingConfig, accelerator: Any, model: ModifiedLISA, sets: dict[str, DataSet]
) -> FeatureCache | None:
    """The cache of ``--cache_dir``, if there is one; says what it will take."""
    if config.cache_dir is None:
        return None
    cache = FeatureCache(
        model, config.cache_dir, limit_gb=config.cache_limit_gb, processes=accelerator.num_processes
    )
    # Samples of one image are named by it, and by the number of their text.
    images = {name.rpartition("#")[0] for samples in sets.values() for name in samples.names}
    accelerator.print(f"--cache_dir: {cache.announce(len(images))}")
    return cache


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Meanwhile, operations give the same result every time; one that cannot on a GPU warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    asked = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    tries = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    deterministic_options: Any = torch.utils.deterministic
    fills = deterministic_options.fill_uninitialized_memory
    deterministic_options.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warns)
        torch.backends.cudnn.benchmark = tries
        deterministic_options.fill_uninitialized_memory = fills
