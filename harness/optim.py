"""Optimisers and schedules of the papers: LARS, AdamW, Adam and SGD, warm-up and cosine, clipping, frozen groups.

What is done to every tensor is done to all at once (torch._foreach_*): on a GPU a few kernels instead of thousands.

Weight decay and LARS adaptation skip 1-D tensors (biases and norms), and nothing else, not even scalars:
facebookresearch/vicreg@4e12602, main_vicreg.py, exclude_bias_and_norm; so do SkrighYZ/AdaSSL@8f7148f6 and DINO.
Clipping is over all parameters, those of groups with an Adam of their own too.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Clock, Method
from harness.nn.schedules import cosine, warmup_cosine
from harness.recipe import Optimiser


class LARS(torch.optim.Optimizer):
    """SGD whose update of each tensor is scaled by trust * |w| / |g + wd * w| (You et al., arXiv:1708.03888).

    The learning rate is applied after momentum, no Nesterov; the ratio is 1 where either norm is 0. Groups with
    `adapt=False` skip weight decay and ratio (facebookresearch/vicreg@4e12602, main_vicreg.py, LARS).
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = [p.grad for p in params]
            if group["adapt"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
                norms = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(updates))
                ratio = torch.where((norms[0] > 0) & (norms[1] > 0), group["trust"] * norms[0] / norms[1], 1.0)
                torch._foreach_mul_(updates, list(ratio.unbind()))
            for p in params:
                if p not in self.state:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])


def clip_per_tensor(params: Iterable[nn.Parameter], limit: float) -> None:
    """Scale each tensor's gradient to norm at most `limit` (facebookresearch/dino@7c446df, clip_gradients)."""
    grads = [p.grad for p in params if p.grad is not None]
    scales = limit / (torch.stack(torch._foreach_norm(grads)) + 1e-6)
    torch._foreach_mul_(grads, list(scales.clamp(max=1.0).unbind()))


class Training:
    """The optimisers of one run: the recipe's for most parameters, a constant Adam for groups that ask for one."""

    def __init__(self, method: Method[Any], settings: Optimiser, batch: int, warmup_steps: int) -> None:
        self.settings, self.warmup_steps = settings, warmup_steps
        self.peak = settings.lr * (batch / settings.lr_batch if settings.lr_batch else 1.0)
        groups: list[dict[str, Any]] = []
        own: list[dict[str, Any]] = []
        self.params: list[nn.Parameter] = []
        self.frozen: list[tuple[int, list[nn.Parameter]]] = []
        for group in method.param_groups():
            self.params += group.params
            if group.frozen_epochs:
                self.frozen.append((group.frozen_epochs, group.params))
            if group.own_adam is not None:
                own.append({"params": group.params, "lr": group.own_adam})
                continue
            shared = {"lr_scale": group.lr_scale, "fixed_lr": group.fixed_lr}
            for decayed in (True, False):
                params = [p for p in group.params if (p.ndim != 1) == decayed]
                if params:
                    groups.append({"params": params, "decayed": decayed, **shared})
        self.main = self._main(groups) if groups else None  # raw pixels have nothing to train
        self.own = torch.optim.Adam(own) if own else None

    def _main(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        s = self.settings
        if s.name == "lars":
            optimiser: torch.optim.Optimizer = LARS(groups, lr=self.peak, momentum=s.momentum, trust=s.trust)
            for group in optimiser.param_groups:
                group["adapt"] = group["decayed"]
            return optimiser
        if s.name == "sgd":
            return torch.optim.SGD(groups, lr=self.peak, momentum=s.momentum)
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[s.name](groups, lr=self.peak, fused=True)

    def lr(self, clock: Clock) -> float:
        """Learning rate of this step for a group of scale 1."""
        s = self.settings
        if s.schedule == "constant":
            return self.peak * min(1.0, clock.step / self.warmup_steps) if self.warmup_steps else self.peak
        return warmup_cosine(
            clock.step,
            steps=clock.steps,
            warmup=self.warmup_steps,
            peak=self.peak,
            final=self.peak * s.final_lr,
            reach_peak_early=s.reach_peak_early,
        )

    def weight_decay(self, clock: Clock) -> float:
        s = self.settings
        return (
            s.weight_decay if s.weight_decay_end is None else cosine(s.weight_decay, s.weight_decay_end, clock.progress)
        )

    def step(self, loss: Tensor, clock: Clock) -> None:
        """Backward, clip, freeze, schedule, update."""
        for optimiser in filter(None, (self.main, self.own)):
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_tensor:
            clip_per_tensor(self.params, self.settings.clip_tensor)
        if self.settings.clip_global:
            nn.utils.clip_grad_norm_(self.params, self.settings.clip_global)
        for epochs, params in self.frozen:
            if clock.epoch < epochs:
                for p in params:
                    p.grad = None  # DINO freezes after clipping (main_dino.py, cancel_gradients_last_layer)
        lr, decay = self.lr(clock), self.weight_decay(clock)
        for group in self.main.param_groups if self.main else ():
            group["lr"] = (self.peak if group["fixed_lr"] else lr) * group["lr_scale"]
            group["weight_decay"] = decay if group["decayed"] else 0.0
        for optimiser in filter(None, (self.main, self.own)):
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "main": self.main.state_dict() if self.main else None,
            "own": self.own.state_dict() if self.own else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.main:
            self.main.load_state_dict(state["main"])
        if self.own:
            self.own.load_state_dict(state["own"])
