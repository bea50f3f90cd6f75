"""The model: vision source, bridge, language model, mask head. Start with `lisa.py`."""
