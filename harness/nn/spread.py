"""What keeps a batch of embeddings from collapsing: each dimension alive, and no two of them alike (VICReg).

Source   Bardes, Ponce & LeCun, ICLR 2022, arXiv:2105.04906, eqs. 1 to 4; facebookresearch/vicreg@4e12602.
Shapes   N rows, those of the joined batch of all processes, D dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def hinge_std(z_ND: Tensor) -> Tensor:
    """Mean over dimensions of how far the standard deviation falls short of 1 (eqs. 1 and 2, eps = 1e-4)."""
    return F.relu(1 - torch.sqrt(z_ND.var(dim=0) + 1e-4)).mean()


def off_diagonal_energy(z_ND: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of the covariance matrix C, over D (eqs. 3 and 4)."""
    N, D = z_ND.shape
    z_ND = z_ND - z_ND.mean(dim=0)
    # |Z'Z| = |ZZ'|: the smaller of the two products gives sum C^2; C_jj = |z_j|^2 / (N - 1)
    product = z_ND @ z_ND.T if N < D else z_ND.T @ z_ND
    diagonal_D = z_ND.square().sum(dim=0)
    return (product.square().sum() - diagonal_D.square().sum()) / ((N - 1) ** 2 * D)
