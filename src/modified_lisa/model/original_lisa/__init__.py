"""Checkpoints in the layout of the original LISA (Lai et al. 2023) -> this package's ``dual`` model.

- `shards`: weight files, read one tensor at a time; `layout`: sizes, from the configuration and the shapes;
- `keys`: whose name is whose; `source`: all of it together, every key accounted for;
- `vocabulary`: its tokenizer; `protocol`: its prompts, its preprocessing and its post-processing;
- `importing`: ``modified-lisa import-lisa``.

The layout: ``model.layers.*``, ``model.embed_tokens``, ``model.norm``, ``lm_head``, ``model.mm_projector.*``,
``model.visual_model.*`` (segment-anything's own names), ``model.text_hidden_fcs.0.{0,2}.*``, and sometimes
``model.vision_tower.*``; where that is absent, ``config.mm_vision_tower`` names the CLIP.
"""
