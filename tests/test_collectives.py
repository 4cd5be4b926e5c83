"""Collectives: the identity on one process; on two, values and gradients of the joined batch."""

import torch
from contracts import norm_input, norm_layers, normalised, two_processes
from torch import nn

from harness.nn import all_gather, all_mean, all_sum, rank, world_size
from harness.nn.collectives import SyncBatchNorm, synchronise_batch_norm

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def test_one_process_is_the_identity() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    for collective in (all_gather, all_sum):
        assert collective(x) is x
    assert torch.equal(all_mean(x), x)


def test_gather_joins_in_rank_order_and_sums_the_gradients() -> None:
    parts = [torch.arange(6, dtype=torch.float64).reshape(3, 2).add(10 * r) for r in (0, 1)]
    x = torch.cat(parts).requires_grad_()
    (x.square() * torch.arange(12).reshape(6, 2)).sum().backward()
    for process, mine in zip(two_processes(), x.grad.chunk(2), strict=True):
        y, gradient = process["collectives"]["gather"]
        assert torch.equal(y, x.detach())
        assert torch.equal(gradient, 2 * mine)  # both processes compute the loss; averaging halves it again


def test_sum_and_mean_over_processes() -> None:
    weight = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    total = 2 * weight + 10
    for process in two_processes():
        y, gradient = process["collectives"]["sum"]
        assert torch.equal(y, total)
        assert torch.equal(gradient, 2 * (2 * total * weight))  # two losses depend on each input
        y, gradient = process["collectives"]["mean"]
        assert torch.equal(y, total / 2)
        assert torch.equal(gradient, 2 * (total * weight) / 2)


def test_sync_batch_norm_is_batch_norm_of_the_joined_batch() -> None:
    joined = normalised(norm_layers(), norm_input())
    for half, process in enumerate(two_processes()):
        found = process["norm"]
        for name in ("y", "evaluated"):
            torch.testing.assert_close(found[name], joined[name].chunk(2)[half], **EXACT)
        torch.testing.assert_close(found["gradient"], joined["gradient"].chunk(2)[half], **EXACT)
        torch.testing.assert_close(found["state"], joined["state"], **EXACT)


def test_synchronise_keeps_parameters_and_names() -> None:
    layers = norm_layers()
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    plain = normalised(norm_layers(), norm_input())
    synchronise_batch_norm(layers)
    assert sum(type(module) is SyncBatchNorm for module in layers) == 3
    assert not any(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in layers)
    torch.testing.assert_close(dict(layers.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(normalised(layers, norm_input()), plain, rtol=0, atol=0)
