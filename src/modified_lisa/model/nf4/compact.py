"""4-bit weights moved together, so that the memory between them can go back to the card.

Packing and merging matrices leaves them scattered over segments of the allocator that are otherwise empty, and that no
graph can use, as graphs have segments of their own. Before, a 7B model in NF4 as graphs had 2 GiB on the card beside the
allocator's peak, in bf16 1 (H100).
"""

from collections.abc import Iterable

import torch

from modified_lisa.model.nf4.packing import Packed

__all__ = ["compact"]

CHUNK = 256 * 2**20
"""Bytes that are moved at once, and so twice in memory for a moment."""
ALIGNED = 256


def compact(layers: Iterable[torch.nn.Module], chunk: int = CHUNK) -> None:
    """Move the tensors of `NF4Linear` layers into new memory, side by side. What shared memory shares it afterwards.

    No graph that was captured before may be replayed after this: it reads at the old places.
    """
    tenants: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for layer in layers:
        for name in (*Packed._fields, "locks"):
            tensor = getattr(layer, name)
            if tensor.numel():
                tenants.setdefault(tensor.untyped_storage().data_ptr(), []).append((layer, name))
    for batch in _batches(list(tenants.values()), chunk):
        sizes = [_aligned(_storage(owners)) for owners in batch]
        first, name = batch[0][0]
        room = torch.empty(sum(sizes), dtype=torch.uint8, device=getattr(first, name).device)
        begin = 0
        for owners, size in zip(batch, sizes, strict=True):
            _move(owners, room, begin)
            begin += size
        if room.is_cuda:
            torch.cuda.empty_cache()


def _batches(
    groups: list[list[tuple[torch.nn.Module, str]]], chunk: int
) -> Iterable[list[list[tuple[torch.nn.Module, str]]]]:
    """Consecutive groups of about ``chunk`` bytes, each on one device."""
    batch: list[list[tuple[torch.nn.Module, str]]] = []
    held, device = 0, None
    for owners in groups:
        layer, name = owners[0]
        here = getattr(layer, name).device
        if batch and (held >= chunk or here != device):
            yield batch
            batch, held = [], 0
        batch.append(owners)
        held, device = held + _storage(owners), here
    if batch:
        yield batch


def _storage(owners: list[tuple[torch.nn.Module, str]]) -> int:
    """Bytes of the memory that they share."""
    layer, name = owners[0]
    size: int = getattr(layer, name).untyped_storage().nbytes()
    return size


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _move(owners: list[tuple[torch.nn.Module, str]], room: torch.Tensor, begin: int) -> None:
    layer, name = owners[0]
    storage = getattr(layer, name).untyped_storage()
    whole = torch.empty(0, dtype=torch.uint8, device=room.device).set_(storage)
    room[begin : begin + len(whole)].copy_(whole)
    for layer, name in owners:
        old = getattr(layer, name)
        start = begin // old.element_size() + old.storage_offset()
        typed = room[: len(room) // old.element_size() * old.element_size()].view(old.dtype)
        setattr(layer, name, typed.as_strided(old.shape, old.stride(), start))
