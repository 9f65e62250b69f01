"""Products with the Hessian of the cross-entropy by what PyTorch offers.

Each takes logits [N, K] and vectors [V, N, K], and returns (diag(p) - p p^T) v for each, [V, N, K].
"""

import torch
from torch.nn import functional as F


def formula(logits, vectors):
    """Take the formula as it is written."""
    p = logits.softmax(-1)
    return p * vectors - p * (p * vectors).sum(-1, keepdim=True)


def double_backward(logits, vectors):
    """Differentiate the cross-entropy twice, one vector after another."""
    logits = logits.detach().requires_grad_()
    labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    return torch.stack(
        [torch.autograd.grad(gradient, logits, v, retain_graph=True)[0] for v in vectors]
    )
