"""Loss and gradients on two processes equal those on one with the joined batch, for every method."""

import pytest
import torch
from contracts import trained_cases, two_processes, two_steps

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("case", trained_cases())
def test_two_processes_train_like_one(case: str) -> None:
    joined = two_steps(case)
    assert any(gradient.abs().max() > 1e-6 for gradient in joined["gradients"].values())
    for process in two_processes():
        halves = process["methods"][case]
        torch.testing.assert_close(halves["losses"], joined["losses"], **EXACT)
        torch.testing.assert_close(halves["gradients"], joined["gradients"], **EXACT)
        torch.testing.assert_close(dict(halves["state"]), dict(joined["state"]), **EXACT)
