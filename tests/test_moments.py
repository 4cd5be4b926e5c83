"""The running mean: an exponential moving average from 0, without gradient."""

import torch

from harness.nn import RunningMean


def test_it_is_the_weighted_sum_of_what_it_has_seen() -> None:
    running = RunningMean(2, momentum=0.75).double()
    values = [torch.tensor([float(k), -2.0 * k], dtype=torch.float64) for k in (1, 5, 3)]
    for value in values:
        running.update(value.requires_grad_())
    expected = sum(0.25 * 0.75**age * value.detach() for age, value in enumerate(reversed(values)))
    torch.testing.assert_close(running.mean, expected, rtol=1e-12, atol=0)
    assert not running.mean.requires_grad


def test_without_momentum_it_is_the_newest_value() -> None:
    running = RunningMean(2, momentum=0.0)
    running.update(torch.ones(2))
    running.update(torch.tensor([3.0, 4.0]))
    assert torch.equal(running.mean, torch.tensor([3.0, 4.0]))
