"""The memory of the simulated GPU: what lives in it, what pools of graphs keep, and when there is no more."""

from dataclasses import dataclass, field

import torch

PoolId = tuple[int, int]
GIB = 1 << 30


@dataclass(slots=True)
class Pool:
    """A graphs' pool of memory: it keeps the most that its tensors took at once until no graph uses it."""

    uses: int = 0
    live: int = 0
    kept: int = 0


@dataclass(slots=True, eq=False)
class Block:
    """A storage, while tensors on the device refer to it."""

    size: int
    pool: Pool | None
    tensors: int = 0


class Held:
    """What a tensor on the device has of its block: given back when the tensor goes."""

    __slots__ = ("address", "block", "memory")

    def __init__(self, memory: "Memory", address: int, block: Block) -> None:
        self.memory, self.address, self.block = memory, address, block

    def __del__(self) -> None:
        self.memory.give_back(self.address, self.block)


@dataclass(slots=True)
class Memory:
    """Bytes by PyTorch's words: allocated is what tensors take, reserved what the allocator keeps for them.

    `under_way` are the pools that the allocator takes for those of captures under way; torch 2.11 keeps one there
    whose capture failed.
    """

    total: int = 139 * GIB
    pool: Pool | None = None
    pools: dict[PoolId, Pool] = field(default_factory=dict)
    under_way: list[PoolId] = field(default_factory=list)
    outside: int = 0
    cached: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    peak_needed: int = 0
    _blocks: dict[int, Block] = field(default_factory=dict)
    _made: int = 0

    @property
    def allocated(self) -> int:
        return self.outside + sum(pool.live for pool in self.pools.values())

    @property
    def reserved(self) -> int:
        return self.cached + self.kept_by_pools

    @property
    def needed(self) -> int:
        """What is left of reserved memory where the cache is given up."""
        return self.outside + self.kept_by_pools

    @property
    def kept_by_pools(self) -> int:
        return sum(pool.kept for pool in self.pools.values())

    def hold(self, tensor: torch.Tensor) -> Held | None:
        """Count a tensor's storage in; None where it has none.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
        """
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if not address:
            return None
        block = self._blocks.get(address) or self._take(address, storage.nbytes())
        block.tensors += 1
        return Held(self, address, block)

    def block_of(self, tensor: torch.Tensor) -> Block | None:
        return self._blocks.get(tensor.untyped_storage().data_ptr())

    def give_back(self, address: int, block: Block) -> None:
        block.tensors -= 1
        if block.tensors:
            return
        del self._blocks[address]
        if block.pool is None:
            self.outside -= block.size
        else:
            block.pool.live -= block.size

    def new_pool(self) -> PoolId:
        self._made += 1
        return (0, self._made)

    def begin_pool(self, identity: PoolId) -> None:
        pool = self.pools.setdefault(identity, Pool())
        pool.uses += 1
        self.pool = pool
        self.under_way.append(identity)

    def end_pool(self, identity: PoolId) -> None:
        """Take no more memory from a pool.

        Raises:
            RuntimeError: none is taken from it.
        """
        if identity not in self.under_way:
            raise RuntimeError(f"endAllocatePool: not currently recording to mempool_id {identity}")
        self.under_way.remove(identity)
        self.pool = None

    def release_pool(self, identity: PoolId) -> None:
        """Let a graph no more use a pool.

        Raises:
            RuntimeError: none does.
        """
        pool = self.pools.get(identity)
        if pool is None:
            raise RuntimeError("INTERNAL ASSERT FAILED: there is no such pool")
        pool.uses -= 1
        if pool.uses < 0:
            raise RuntimeError("INTERNAL ASSERT FAILED: uc >= 0")

    def empty_cache(self) -> None:
        if self.under_way:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        if any(pool.uses < 0 for pool in self.pools.values()):
            raise RuntimeError("use_count == 0 INTERNAL ASSERT FAILED")
        self.cached = self.outside
        self.pools = {identity: pool for identity, pool in self.pools.items() if pool.uses}

    def reset_peaks(self) -> None:
        self.peak_allocated, self.peak_reserved, self.peak_needed = self.allocated, self.reserved, self.needed

    def _take(self, address: int, size: int) -> Block:
        pool = self.pool
        more = size if pool is None else max(0, pool.live + size - pool.kept)
        if self.needed + more > self.total and not self.under_way:
            self.empty_cache()
        if self.needed + more > self.total:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        if pool is None:
            self.outside += size
            self.cached = max(self.cached, self.outside)
        else:
            pool.live += size
            pool.kept += more
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self.peak_needed = max(self.peak_needed, self.needed)
        self._blocks[address] = Block(size=size, pool=pool)
        return self._blocks[address]
