"""One process or several, under Accelerate: what each does of a step, and how their work comes together.

Every process draws the same batch from the same seed, works on its share of the views, and computes the loss on the
gathered whole. So the loss does not depend on how many there are.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from skinclip.core.config import TrainConfig
from skinclip.data.cases import DataError

PATIENCE = datetime.timedelta(hours=6)  # for which the others wait while the first process decodes photos


class DistributedContext:
    """The processes that train together, often just this one; see `own_rows` and `gather_rows`."""

    def __init__(self, device: str = "cpu") -> None:
        """
        Args:
            device: "cpu", or "cuda" for the GPU of this process.
        """
        handlers = [
            # no buffer ever changes; gradients need not be held twice
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ]
        # no mixed precision of Accelerate's own: `Reasoner.compute_type` says where it is wanted
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=handlers)
        self.replicated: list[nn.Parameter] = []

    @property
    def size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """True for the process that writes files."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> str:
        """ "cpu", or "cuda:N"."""
        given = self.accelerator.device
        return "cpu" if given.type == "cpu" else str(given)  # Accelerate numbers CPUs as well

    @property
    def sharded(self) -> bool:
        """True where each process holds a part of every weight only (FSDP)."""
        return self.accelerator.distributed_type == DistributedType.FSDP

    def own_rows(self, rows: Tensor, rank: int | None = None) -> Tensor:
        """Every `size`-th of `rows`: this process's, or that of another."""
        return rows[self.rank if rank is None else rank :: self.size]

    def gather_rows(self, own: Tensor) -> Tensor:
        """The rows of all processes [size * k, ...], those of the first first; each has equally many [k, ...]."""
        return self.accelerator.gather(own.contiguous())

    def gather_objects(self, own: list[Any]) -> list[Any]:
        """The lists of all processes in one, those of the first first; of anything that can be pickled."""
        return gather_object(own) if self.size > 1 else own

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def shut_down(self) -> None:
        """The end of working together: the first process may go on as long as it likes, the others need not wait."""
        if self.size > 1:
            self.wait()
            torch.distributed.destroy_process_group()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The first process goes through before the others, which then find what it wrote."""
        with self.accelerator.main_process_first():
            yield

    def broadcast_weights(self, module: nn.Module) -> None:
        """Gives every process the first one's weights of a module that is not prepared."""
        if self.size > 1:
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def prepare(self, module: nn.Module, optimizer: Any, replicated: list[nn.Parameter]) -> tuple[Any, Any]:
        """Puts DDP or FSDP around the module where there are several processes.

        Args:
            replicated: parameters that FSDP leaves whole on every process, because they are small or, being scalars,
                cannot be shared out. `average_gradients` is for them.

        Raises DataError for the first version of FSDP, which knows no parameters of different types.
        """
        if self.sharded:
            if not self.accelerator.is_fsdp2:
                raise DataError("only FSDP2 can share out quantized weights: set `fsdp_version: 2`, as in fsdp.yaml")
            self.accelerator.state.fsdp_plugin.ignored_modules = [nn.ParameterList(replicated)]
            self.replicated = [p for p in replicated if p.requires_grad]
        return self.accelerator.prepare(module, optimizer)

    def average_gradients(self) -> None:
        """Averages the gradients that FSDP does not: those of the parameters that every process holds whole."""
        for gradient in (p.grad for p in self.replicated if p.grad is not None):
            torch.distributed.all_reduce(gradient)
            gradient.div_(self.size)

    def optimizer_state(self, module: nn.Module, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state, whole, on the first process; all must ask."""
        if not self.sharded:
            return optimizer.state_dict()
        return get_optimizer_state_dict(module, optimizer.optimizer, options=_WHOLE)

    def load_optimizer_state(self, module: nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
        if self.sharded:
            set_optimizer_state_dict(module, optimizer.optimizer, state, options=_WHOLE)
        else:
            optimizer.load_state_dict(state)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with what FSDP has shared out put together again; all processes must ask."""
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}


def check_even(distributed: DistributedContext, recipe: TrainConfig) -> None:
    """Raises DataError where the photos of a step cannot be shared out evenly.

    Processes that have different things to do would wait for one another.
    """
    cfg, size = recipe.stage2, distributed.size
    views = cfg.batch_size + cfg.second_views
    if cfg.rationale_targets % size or (views - cfg.rationale_targets) % size:
        raise DataError(
            f"{size} processes cannot share {views} views evenly, {cfg.rationale_targets} of them with a rationale: "
            "make `rationale_targets` and `batch_size + second_views - rationale_targets` of the recipe's stage2 "
            "multiples of the number of processes"
        )
    if recipe.masks.batch_size % size:
        raise DataError(
            f"{size} processes cannot share {recipe.masks.batch_size} photos evenly: make `batch_size` of the recipe's "
            "masks a multiple of the number of processes"
        )
