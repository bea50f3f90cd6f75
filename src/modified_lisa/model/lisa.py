"""ModifiedLISA: start reading here.

image -> vision source -> tokens for the language model, embedding for the mask decoder
text  -> language model -> hidden state at <SEG> -> seg projection -> mask decoder -> mask

Shapes: B images, T tokens, N masks in all (one per ``<SEG>``), P patch tokens, Dl the language model's
width, C and h = w channels and side of SAM's embedding (256, 64), so that a mask is (4h, 4w) = (256, 256).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError
from modified_lisa.images import ImageSource
from modified_lisa.model import checkpoint, loading
from modified_lisa.model.adapters import add_lora
from modified_lisa.model.answers import build_answer_head, generate_answers
from modified_lisa.model.building import build_processor, build_vision
from modified_lisa.model.describe import describe_parameters
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.mask_head import SEG_PROJECTIONS, MaskHead
from modified_lisa.model.nf4.linear import use_fast_nf4
from modified_lisa.model.original_lisa import building as original_lisa
from modified_lisa.model.prefix import split_forward
from modified_lisa.model.quantization import QuantizationReport
from modified_lisa.model.random_init import seeded
from modified_lisa.model.skipping import unread
from modified_lisa.model.sources import resolve_name
from modified_lisa.model.vision import DualVision, Encoding, VlmVision
from modified_lisa.tokens import SegEmbedding, initial_seg_row

__all__ = ["ModifiedLISA"]


class ModifiedLISA(nn.Module):
    """Reasoning segmentation with one image encoding (LISA, Lai et al. 2023, with a shared encoder).

    Args:
        vlm_name: hub name or local folder of a LLaVA, or ``tiny``.
        sam_name: hub name or local folder of a SAM, or ``tiny``.
        use_vlm_vision_encoder: True: the VLM's encoder feeds both; False: SAM's does.
        dtype: ``bf16``, ``fp16`` or ``fp32`` for the frozen parts; what trains is fp32.
        quantize: quantise the language model's linear layers; None: unless ``quantization`` is ``none``.
        vision_source: ``vlm``, ``sam`` or ``dual``, instead of ``use_vlm_vision_encoder``.
        device: where to put it; None: a GPU if there is one.
        random_init: random weights in the sizes of the two names, drawn on the device without any files
            (`from_random` with a seed).
        verbose: show sizes and progress on stderr; None: for large models, on a terminal.
        nf4_kernels: on a CUDA device, multiply 4-bit weights by this package's kernels; False: bitsandbytes'.
        parts: what `loading.load_parts` gave, so that several models share it; None: load it.
        options: any other field of `ModelConfig`.

    Raises:
        ConfigError: options that contradict each other; no such device.
        ModelLoadError: a model that cannot be found or is of another kind.
    """

    def __init__(
        self,
        vlm_name: str = ModelConfig.vlm_name,
        sam_name: str = ModelConfig.sam_name,
        use_vlm_vision_encoder: bool = True,
        dtype: str = "bf16",
        quantize: bool | None = None,
        *,
        vision_source: str | None = None,
        device: torch.device | str | None = None,
        random_init: bool = False,
        verbose: bool | None = None,
        nf4_kernels: bool = True,
        parts: tuple[Any, Any, QuantizationReport] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        source = vision_source or ("vlm" if use_vlm_vision_encoder else "sam")
        self.config = ModelConfig.from_dict(
            {
                "vlm_name": vlm_name,
                "sam_name": sam_name,
                "vision_source": source,
                "dtype": dtype,
                "quantize": quantize,
                **options,
            }
        )
        target = loading.find_device(device)
        self.processor = build_processor(self.config, random_init)
        vlm, sam, self.quantization_report = parts or loading.load_parts(
            self.config, target, random_init=random_init, with_lm_head=self.config.answers, verbose=verbose
        )

        self.language_model = vlm.model.language_model
        self.projector = vlm.model.multi_modal_projector
        self.mask_head = MaskHead(sam)
        self.vision = build_vision(self.config, vlm, sam, self.mask_head)
        width = int(vlm.config.text_config.hidden_size)
        self.seg_embedding = SegEmbedding(
            initial_seg_row(self.processor.tokenizer, self.language_model.get_input_embeddings())
        )
        projection = SEG_PROJECTIONS[self.config.seg_projection]
        self.seg_projection = projection(width, self.mask_head.foreground_point)
        self.answer_head = build_answer_head(vlm.lm_head, self.processor) if self.config.answers else None
        self._recomputes = False
        self.split_forward = split_forward  # training on a GPU puts a captured form of it here
        self._choose_what_trains()
        self.to(target)
        if nf4_kernels and target.type == "cuda":
            use_fast_nf4(self.language_model)
        self.eval()

    @classmethod
    def from_config(
        cls, config: ModelConfig, device: torch.device | str | None = None, *, random_init: bool = False
    ) -> "ModifiedLISA":
        """Build the model that ``config`` describes."""
        return cls(**config.to_dict(), device=device, random_init=random_init)

    @classmethod
    def from_random(
        cls,
        vlm_name: str = ModelConfig.vlm_name,
        sam_name: str = ModelConfig.sam_name,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> "ModifiedLISA":
        """A model of full size with random weights, by seed. Names: those of `modified_lisa.model.sizes`, or
        folders that hold a ``config.json``; ``options``: other fields of `ModelConfig`."""
        with seeded(seed):
            return cls(vlm_name, sam_name, device=device, random_init=True, **options)

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], device: torch.device | str | None = None, **overrides: Any
    ) -> "ModifiedLISA":
        """A trained model from a ``.pt`` checkpoint, a folder of `save_pretrained`, or ``tiny``; or a checkpoint in
        the original LISA's layout, from a folder or a hub name, in its files' own precision.

        ``overrides`` replace fields of its configuration, such as ``quantize=False`` or ``dtype="fp32"``.
        """
        device = loading.find_device(device)
        path = resolve_name("tiny", "lisa") if source == "tiny" else source
        found = original_lisa.read_original(path, overrides.get("seg_token_id"))
        config, weights = found if found is not None else checkpoint.read_pretrained(path)
        model = cls.from_config(config.replaced(**overrides), device)
        model.load_state_dict(weights)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the trained weights and the configuration (``model.safetensors``, ``config.json``)."""
        return checkpoint.save_folder(folder, self)

    # ------------------------------------------------------------------------------------------ forward

    def forward(
        self,
        images: Sequence[ImageSource] | ModelInputs,
        texts: Sequence[str] | None = None,
        return_mask: bool = True,
    ) -> dict[str, list[torch.Tensor]]:
        """Images and texts to masks.

        Args:
            images: B images (paths, PIL images, uint8 arrays), or what ``self.processor`` made of them.
            texts: B texts; ``<SEG>`` is appended where it is missing. None with ready inputs.
            return_mask: False: stop at the prompts for the mask decoder.

        Returns lists with one entry per image, N_i being its number of ``<SEG>``:
            seg_embeddings: float32 (N_i, C), the prompts for the mask decoder;
            pred_masks: float32 (N_i, 256, 256), logits on the model's square, positive inside;
            iou_predictions: float32 (N_i,), the mask decoder's own estimate of each mask's IoU.
        """
        inputs = self._inputs(images, texts).to(self.device)
        prompts, logits, iou = self.compute(inputs, return_mask)
        outputs = {"seg_embeddings": list(prompts.split(inputs.seg_counts))}
        if logits is not None and iou is not None:
            outputs["pred_masks"] = list(logits.split(inputs.seg_counts))
            outputs["iou_predictions"] = list(iou.split(inputs.seg_counts))
        return outputs

    generate = generate_answers

    def compute(
        self, inputs: ModelInputs, return_mask: bool = True, encoding: Encoding | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The forward pass from tensors to tensors. It never waits for the GPU, so that it can be captured.
        ``encoding``: the images', if they were looked at before.

        Returns ``seg_embeddings`` (N, C), ``pred_masks`` (N, 256, 256) and ``iou_predictions`` (N,), float32;
        None for the last two without ``return_mask``.
        """
        # Every part has its own precision; an autocast around the call must not change it.
        with torch.autocast(self.device.type, enabled=False):
            encoding = encoding or self.vision.encode(inputs)
            prompts = self.seg_projection(self.seg_states(encoding.tokens, inputs).float())
            if not return_mask:
                return prompts, None, None
            return prompts, *self.mask_head(encoding.embedding[inputs.segs[0]], prompts)

    def embed(self, tokens: torch.Tensor, inputs: ModelInputs) -> torch.Tensor:
        """What the language model reads, (B, T, Dl): words, the image's tokens, and the ``<SEG>`` row.

        Args:
            tokens: (B, P, Dv), the vision source's.
        """
        embedding, place = self.language_model.get_input_embeddings(), inputs.image_place
        weights = next(self.projector.parameters())
        image = self.projector(tokens.to(weights.dtype)).to(embedding.weight.dtype)
        # The <SEG> id may lie beyond the embedding's rows.
        ids = inputs.input_ids.masked_fill(inputs.is_seg, 0)
        embeds = torch.cat((embedding(ids[:, : place.start]), image, embedding(ids[:, place.stop :])), dim=1)
        return self.seg_embedding(embeds, inputs.is_seg)

    def seg_states(self, tokens: torch.Tensor, inputs: ModelInputs) -> torch.Tensor:
        """Hidden states (N, Dl) that become masks, in the order of the batch. ``tokens`` (B, P, Dv): the vision source's."""
        embeds = self.embed(tokens, inputs)
        rows, places = inputs.segs
        before = int(self.config.seg_state == "before")
        places = places - before
        if self.frozen_prefix and torch.is_grad_enabled():
            # Nothing before the first <SEG> depends on a trained weight: that part needs no gradient, only its
            # keys and values. The same gradients, from a backward pass over a few tokens instead of hundreds.
            cut = inputs.first_seg - before
            return self.split_forward(self.language_model, embeds, cut)[rows, places - cut]
        with unread(self.language_model, inputs.image_place.stop - 1):
            # No attention mask: padding is on the right, and a causal model does not look there.
            hidden = self.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return hidden[rows, places]

    @property
    def frozen_prefix(self) -> bool:
        """Whether the prompt before ``<SEG>`` is free of trained weights, so that it needs no gradient.

        Not with LoRA, a trained projector or vision tower, or the ``sam`` source, whose bridge makes the image's tokens.
        """
        config = self.config
        trained = config.lora_r or config.train_projector or config.train_vision
        return not (trained or config.vision_source == "sam")

    def _inputs(
        self, images: Sequence[ImageSource] | ModelInputs, texts: Sequence[str] | None
    ) -> ModelInputs:
        if isinstance(images, ModelInputs):
            if texts is not None:
                raise ConfigError("ready inputs hold their texts already; call the model with them alone")
            return images
        if texts is None:
            raise ConfigError("got images without texts; give one text for each image")
        return self.processor(images, texts)

    # --------------------------------------------------------------------- what trains, and what is saved

    def _choose_what_trains(self) -> None:
        self.requires_grad_(False)
        decoder = self.mask_head.mask_decoder
        trained: list[nn.Module] = [self.seg_embedding, self.seg_projection]
        # The predicted IoU is trained too, or users are shown noise.
        trained.append(decoder if self.config.train_mask_decoder else decoder.iou_prediction_head)
        if (bridge := getattr(self.vision, "bridge", None)) is not None:
            trained.append(bridge)
        if self.config.train_projector:
            trained.append(self.projector)
        if self.config.train_vision and isinstance(self.vision, VlmVision | DualVision):
            trained.append(self.vision.encoder)
            self.vision.encoder.trains = True
        trained += [] if self.answer_head is None else [self.answer_head.column]
        for module in trained:
            module.float().requires_grad_(True)
        if self.config.lora_r:
            add_lora(self.language_model, self.config)
            trained.append(self.language_model)
        self._trained = trained

    def train(self, mode: bool = True) -> "ModifiedLISA":
        """Only what trains enters training mode; the language model does with LoRA or checkpointing."""
        super().train(False)
        self.training = mode
        for module in self._trained:
            module.train(mode)
        if self._recomputes:  # transformers recomputes activations in training mode only
            self.language_model.train(mode)
        return self

    def trainable_state_dict(self) -> dict[str, torch.Tensor]:
        """Trained weights by name, detached copies on the CPU, float32."""
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load trained weights. A frozen weight may be missing, a trained one may not; an unknown one is an
        error (CheckpointError, with all that is wrong at once). ``strict=False`` skips that check."""
        given = dict(state_dict)
        if strict:
            checkpoint.check_keys(given, known=self.state_dict(), trained=checkpoint.needed_weights(self))
        return super().load_state_dict(given, strict=False, assign=assign)

    def describe_parameters(self) -> dict[str, Any]:
        """``trainable`` and ``total`` numbers of weights, and ``groups``: trainable ones by part."""
        return describe_parameters(self)

    # ---------------------------------------------------------------------------------- device and memory

    @property
    def device(self) -> torch.device:
        return self.seg_embedding.row.device

    def enable_gradient_checkpointing(self) -> bool:
        """Recompute the language model's activations in the backward pass: less memory, more time.

        Returns False, and leaves the model as it is, where `frozen_prefix` holds: the few tokens from
        ``<SEG>`` on keep next to nothing, so that recomputing would only cost time.
        """
        if self.frozen_prefix:
            return False
        # The old name is going to leave transformers, the new one is not in older versions of it.
        language_model = self.language_model
        enable = getattr(language_model, "activation_checkpointing_enable", None)
        (enable or language_model.gradient_checkpointing_enable)({"use_reentrant": False})
        self._recomputes = True
        self.train(self.training)
        return True
