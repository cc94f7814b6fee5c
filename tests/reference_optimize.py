"""OVAM's token optimization as it is written down, slow and obvious, in float64."""

from __future__ import annotations

import reference
import torch


def losses(traces, start, masks, *, steps, learning_rate, gamma, every):
    """Return the losses before each update; masks are (H, W), 255 = not counted."""
    embedding = start.double().clone()
    found = []
    for step in range(steps):
        embedding.requires_grad_()
        maps = [
            reference.maps(trace, embedding, size=tuple(trace.image_size))
            for trace in traces
        ]
        everything = torch.cat([m.flatten() for m in maps])
        low, high = everything.min(), everything.max()
        total, count = torch.zeros((), dtype=torch.float64), 0
        for each, mask in zip(maps, masks, strict=True):
            logits = (each - low) / (high - low)
            chances = torch.log(torch.exp(logits) / torch.exp(logits).sum(0))
            known, inside = torch.tensor(mask != 255), torch.tensor(mask == 1)
            entropy = -torch.where(inside, chances[1], chances[0])
            total = total + entropy[known].sum()
            count += int(known.sum())
        loss = total / count
        (gradient,) = torch.autograd.grad(loss, embedding)
        found.append(loss.item())
        rate = learning_rate * gamma ** (step // every)
        embedding = (embedding - rate * gradient).detach()
    return found
