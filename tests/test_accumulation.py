"""Gradient accumulation: the loss of the whole batch, its gradients, and the memory of a part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from same_end import assert_same_end
from torch import Tensor, nn

from harness import backbones, registry, train
from harness.api import Backbone
from harness.errors import BadRecipe
from harness.nn import in_parts
from harness.recipe import Encoder, Recipe, check_processes
from harness.runs import RunDirectory

VIT = Encoder(name="test_vit", options=(("img_size", 16), ("patch_size", 4)))


def built(encoder: Encoder, parts: int) -> Backbone:
    torch.manual_seed(0)
    backbone = backbones.build(encoder, 16).double()
    backbone.parts = parts
    return backbone


def images(B: int = 12) -> Tensor:
    return torch.rand(B, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def coupled(z: Tensor) -> Tensor:
    """A loss of the whole batch that no mean over parts would give."""
    return (z.T @ z).logsumexp(1).mean() + z.var(0).sqrt().sum()


def test_loss_and_gradients_are_those_of_the_whole_batch() -> None:
    whole, parted = built(VIT, 1), built(VIT, 4)
    losses = [coupled(one(images())) for one in (whole, parted)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)
    for (name, a), (_, b) in zip(whole.named_parameters(), parted.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_batch_norms_see_one_part_at_a_time_and_count_it_once() -> None:
    x = images()
    a, b = built(Encoder(name="convnet"), 1), built(Encoder(name="convnet"), 3)
    outputs = torch.cat([a(part) for part in x.chunk(3)])
    joined = b(x)
    assert torch.equal(joined, outputs)
    joined.sum().backward()
    for (name, own), (_, other) in zip(a.named_buffers(), b.named_buffers(), strict=True):
        assert torch.equal(own, other), name
    assert {int(v) for name, v in b.named_buffers() if "tracked" in name} == {3}


def test_without_gradient_it_is_in_parts_too_and_in_evaluation_it_is_whole() -> None:
    x, seen = images(), []
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 2).double())
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    with torch.no_grad():
        in_parts(network, x, 3)
        in_parts(network.eval(), x, 3)
    assert seen == [4, 4, 4, 12]


def test_what_is_kept_for_the_backward_pass_shrinks() -> None:
    def kept(parts: int) -> int:
        stored: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            stored[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            built(Encoder(name="convnet"), parts)(images(32)).sum()
        return sum(stored.values())

    assert kept(4) < kept(1) / 10


def accumulating(parts: int, **changes: Any) -> Recipe:
    recipe = registry.recipe("vicreg_digits_r10w16_e50")
    budget = replace(recipe.budget, epochs=2, batch=64, warmup=1, accumulate=parts)
    return replace(recipe, data=replace(recipe.data, train_images=256), budget=budget, evals=(), **changes)


def test_a_run_accumulates_and_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    recipe = accumulating(4)
    one_step, paths = train.Attempt.one_step, []
    for place, cut in (("whole", -1), ("cut", 3)):

        def step(self: train.Attempt, bar: Any, cut: int = cut) -> tuple[str, str]:
            out = one_step(self, bar)
            if self.step == cut:
                self.save()
                raise KeyboardInterrupt
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train.Attempt, "one_step", step)
            if cut > 0:
                with pytest.raises(KeyboardInterrupt):
                    train.run(recipe, 0, tmp_path / place, device="cpu", show=False)
        train.run(recipe, 0, tmp_path / place, device="cpu", show=False)
        paths.append(RunDirectory(tmp_path / place, recipe, 0).path)
    assert_same_end(*paths)


def test_bad_parts_are_one_line() -> None:
    with pytest.raises(BadRecipe, match=r"budget.accumulate is 0, expected 1 or more parts"):
        registry.recipe("vicreg_digits_r10w16_e50", ("budget.accumulate=0",))
    message = r"the 32 images of a process do not divide into budget.accumulate = 5 equal parts; use a divisor"
    with pytest.raises(BadRecipe, match=message):
        check_processes(accumulating(5), 2)
    digests = {accumulating(parts).digest for parts in (1, 2, 4)}
    assert len(digests) == 3
