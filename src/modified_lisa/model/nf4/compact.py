"""4-bit weights moved together, so that the memory between them can go back to the card.

Packing and merging matrices leaves them scattered over segments of the allocator that are otherwise empty, and that no
graph can use, as graphs have segments of their own.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from modified_lisa.model.nf4.packing import Packed

__all__ = ["compact"]

CHUNK = 256 * 2**20
"""Bytes that are moved at once, and so twice in memory for a moment."""
ALIGNED = 256


class _Tenant(NamedTuple):
    """A tensor of a layer, and where it lies."""

    layer: torch.nn.Module
    name: str
    device: torch.device
    begin: int
    end: int

    @property
    def tensor(self) -> torch.Tensor:
        found: torch.Tensor = getattr(self.layer, self.name)
        return found


def compact(layers: Iterable[torch.nn.Module], chunk: int = CHUNK) -> None:
    """Move the tensors of `NF4Linear` layers into new memory, side by side. What overlaps overlaps afterwards.

    No graph that was captured before may be replayed after this: it reads at the old places.
    """
    for batch in _batches(_groups(layers), chunk):
        sizes = [_aligned(_extent(group)) for group in batch]
        room = torch.empty(sum(sizes), dtype=torch.uint8, device=batch[0][0].device)
        begin = 0
        for group, size in zip(batch, sizes, strict=True):
            _move(group, room, begin)
            begin += size
        if room.is_cuda:
            torch.cuda.empty_cache()


def _groups(layers: Iterable[torch.nn.Module]) -> list[list[_Tenant]]:
    """Tensors that overlap, group by group, in the order of their addresses: the memory before goes in that order."""
    tenants = []
    for layer in layers:
        for name in (*Packed._fields, "locks"):
            tensor: torch.Tensor = getattr(layer, name)
            if tensor.numel():
                last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
                begin = tensor.data_ptr()
                end = begin + (last + 1) * tensor.element_size()
                tenants.append(_Tenant(layer, name, tensor.device, begin, end))
    groups: list[list[_Tenant]] = []
    end = 0
    for tenant in sorted(tenants, key=lambda tenant: (str(tenant.device), tenant.begin)):
        if groups and tenant.device == groups[-1][0].device and tenant.begin < end:
            groups[-1].append(tenant)
            end = max(end, tenant.end)
        else:
            groups.append([tenant])
            end = tenant.end
    return groups


def _batches(groups: list[list[_Tenant]], chunk: int) -> Iterator[list[list[_Tenant]]]:
    """Consecutive groups of about ``chunk`` bytes, each on one device."""
    batch: list[list[_Tenant]] = []
    held = 0
    for group in groups:
        if batch and (held >= chunk or group[0].device != batch[0][0].device):
            yield batch
            batch, held = [], 0
        batch.append(group)
        held += _extent(group)
    if batch:
        yield batch


def _extent(group: list[_Tenant]) -> int:
    """Bytes from the first to the last of those that overlap."""
    return max(tenant.end for tenant in group) - group[0].begin


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _move(group: list[_Tenant], room: torch.Tensor, begin: int) -> None:
    origin, extent = group[0].begin, _extent(group)
    storage = group[0].tensor.untyped_storage()
    old = torch.empty(0, dtype=torch.uint8, device=room.device)
    room[begin : begin + extent].copy_(old.set_(storage, origin - storage.data_ptr(), (extent,), (1,)))
    for tenant in group:
        tensor = tenant.tensor
        typed = room[: len(room) // tensor.element_size() * tensor.element_size()].view(tensor.dtype)
        start = (begin + tenant.begin - origin) // tensor.element_size()
        setattr(tenant.layer, tenant.name, typed.as_strided(tensor.shape, tensor.stride(), start))
