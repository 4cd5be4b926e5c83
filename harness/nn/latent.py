"""Latent pair: what changed between two views (posterior, prior, samplers), and editors that apply it (AdaSSL).

Source   SkrighYZ/AdaSSL@8f7148f6, models/sampler.py, models/wrapper.py and utils/sampling_utils.py.
Shapes   B images on this process, D the width of an embedding, R the width of the latent r.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Draws
from harness.nn.heads import mlp
from harness.nn.precision import full_precision

# ---------------------------------------------------------------------------------------------- samplers


def gaussian(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A reparametrised sample from standard normal noise; all (B, R)."""
    return mean + noise * torch.exp(log_variance / 2)


def bernoulli(logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
    """0 or 1 with probability sigmoid(logits), from noise uniform in [0, 1); all (B, R).

    Forward a hard threshold, backward the gradient of sigmoid((logits + logistic noise) / temperature).
    """
    u = uniform.clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + u.log() - (-u).log1p()) / temperature)
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


# ---------------------------------------------------------------------------------------------- regularisers


@full_precision
def kl_divergence(q_mean: Tensor, q_log_variance: Tensor, p_mean: Tensor, p_log_variance: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians (B, R), summed over R: (B,), in nats."""
    ratio = torch.exp(q_log_variance - p_log_variance) + (q_mean - p_mean).square() * torch.exp(-p_log_variance)
    return (ratio - 1 + p_log_variance - q_log_variance).sum(1) / 2


def expected_l0(logits: Tensor) -> Tensor:
    """Expected number of ones of the mask, (B, R) -> (B,)."""
    return logits.sigmoid().sum(1)


# ---------------------------------------------------------------------------------------------- latents


def latent_mlp(*widths: int, last_bias: bool = True) -> nn.Sequential:
    """Hidden layers Linear without bias, batch norm, ReLU; Xavier-uniform weights with the gain of ReLU, biases 0."""
    net = mlp(*widths, hidden_bias=False, last_bias=last_bias)
    for module in net:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("relu"))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


class GaussianLatent(nn.Module):
    """r ~ q(r | context, target), held to a learned prior p(r | context) (AdaSSL-V).

    The first half of each net's output is the mean, the second becomes the log-variance.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.posterior = latent_mlp(2 * width, *hidden, 2 * latent)
        self.prior = latent_mlp(width, *hidden, 2 * latent)

    def forward(self, context: Tensor, target: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) twice -> r (B, R) and KL(q || p) per image (B,)."""
        p_mean, p_raw = self.prior(context).chunk(2, dim=1)
        q_mean, q_raw = self.posterior(torch.cat([context, target], dim=1)).chunk(2, dim=1)
        q, p = (q_mean, log_variance(q_raw)), (p_mean, log_variance(p_raw))
        return gaussian(*q, draws.normal(*q_mean.shape)), kl_divergence(*q, *p)


@full_precision
def log_variance(raw: Tensor) -> Tensor:
    """Log-variance in [-10, 10] of a standard deviation softplus(raw) + 1e-6."""
    return (2 * (F.softplus(raw) + 1e-6).log()).clamp(-10, 10)


class SparseLatent(nn.Module):
    """r = mask * content with a stochastic binary mask, held to few ones; no prior (AdaSSL-S).

    The first half of the net's output is the mask's logits, the second the content.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.posterior = latent_mlp(2 * width, *hidden, 2 * latent)

    def forward(self, context: Tensor, target: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) twice -> r (B, R) and the expected L0 norm of the mask per image (B,)."""
        logits, content = self.posterior(torch.cat([context, target], dim=1)).chunk(2, dim=1)
        return bernoulli(logits, draws.uniform(*logits.shape)) * content, expected_l0(logits)


# ---------------------------------------------------------------------------------------------- editors


class ConcatEditor(nn.Module):
    """A linear map, or with hidden widths an MLP, of (embedding, r); no bias."""

    def __init__(self, width: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.net = latent_mlp(width + latent, *hidden, width, last_bias=False)

    def forward(self, z: Tensor, r: Tensor) -> Tensor:
        return self.net(torch.cat([z, r], dim=1))


class AdditiveEditor(nn.Module):
    """embedding + r. Errors: ValueError where their widths differ."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        if latent != width:
            raise ValueError(
                f"the additive editor adds r to the embedding, but r is {latent} wide and the embedding {width}; "
                f"set latent={width} or choose another editor"
            )

    def forward(self, z: Tensor, r: Tensor) -> Tensor:
        return z + r


class RankOneEditor(nn.Module):
    """z + B(tanh(r) * (A z + a)): each r_i scales a rank-1 change of z. B starts at 0, so that edits start at none."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, latent)
        self.write = nn.Linear(latent, width, bias=False)
        nn.init.zeros_(self.write.weight)

    def forward(self, z: Tensor, r: Tensor) -> Tensor:
        return z + self.write(torch.tanh(r) * self.read(z))
