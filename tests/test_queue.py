"""The ring queue: whole batches in, the oldest rows out, and a loss that outlives a push."""

import copy

import pytest
import torch

from harness.nn import RingQueue


def rows(first: int, count: int, width: int = 3) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, width)


def test_starts_with_random_unit_rows() -> None:
    torch.manual_seed(0)
    queue = RingQueue(64, 5)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(64))
    assert len(queue.rows.unique(dim=0)) == 64


def test_a_push_overwrites_the_oldest_rows() -> None:
    queue = RingQueue(6, 3)
    before = queue.read()
    queue.push(rows(0, 2))
    assert torch.equal(queue.rows[:2], rows(0, 2))
    assert torch.equal(queue.rows[2:], before[2:])
    queue.push(rows(2, 2))
    queue.push(rows(4, 2))
    assert torch.equal(queue.rows, rows(0, 6))
    queue.push(rows(6, 2))
    assert torch.equal(queue.rows[:, 0], torch.tensor([6.0, 7, 2, 3, 4, 5]))


def test_what_was_read_outlives_a_push() -> None:
    queue = RingQueue(4, 3)
    query = torch.ones(2, 3, requires_grad=True)
    seen = queue.read()
    loss = (query @ seen.T).sum()
    queue.push(query)
    loss.backward()
    assert torch.equal(query.grad, seen.sum(0).expand(2, 3))
    assert not queue.rows.requires_grad


def test_state_goes_on_where_it_was() -> None:
    queue = RingQueue(4, 3)
    queue.push(rows(0, 2))
    again = RingQueue(4, 3)
    again.load_state_dict(copy.deepcopy(queue.state_dict()))
    for one in (queue, again):
        one.push(rows(2, 2))
    assert torch.equal(again.rows, queue.rows)
    assert torch.equal(again.rows, rows(0, 4))


def test_part_of_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a queue of 6 does not take whole batches of 4$"):
        RingQueue(6, 3).push(rows(0, 4))
