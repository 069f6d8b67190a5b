"""A logit as a sum over the places of the last feature map.

The classifier reads the mean of the last feature map over its places p = 1 … P, normalised: n = norm(mean over p of
x_p). Once the forward pass is over, the mean and the deviation inside the norm are known numbers, so that n is linear
in the x_p, and no gradient is needed. With the norm's weight γ, bias β and epsilon ε, and the classifier's row W_k and
bias b_k:

    logit_k = Σ_p (1/P) W_k · (γ (x_p - μ_p) / σ)  +  W_k · β + b_k

μ_p is the mean over the channels of x_p ("layer" norms; 0 for "rms" and "simple"). σ is the root of ε plus the variance
("layer", "simple": the unbiased one) or the mean square ("rms") over the channels: of the mean of all x_p where the
norm follows the pooling, of x_p itself where it comes before. Without a norm, γ = 1, β = 0, μ_p = 0 and σ = 1.

The first term is the evidence of a place. The rest, W_k · β + b_k, belongs to no place; it is shared evenly, so each
place gets 1/P of it, and a map sums to the logit exactly.

A hidden layer in the classifier, logit = V gelu(U n + u) + v, is not linear. gelu(h) = h Φ(h), with Φ the distribution
function of the normal distribution; held at the Φ(h) of this photo, the layer is linear in n, with the same logit:
W = V diag(Φ(h)) U and b = V diag(Φ(h)) u + v. Such a map is a linearisation around the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convnext_cli.model.network import ConvNextForImageClassification


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for one class.

    Args:
        places: float64 (rows, columns) of the last feature map; its sum is the logit, less the mean of all logits
            where classes are compared.
        constant: the part of that sum that belongs to no place, and is shared evenly.
        mean_logit: the mean of all logits of this photo, by the same sum; 0 where classes are not compared.
    """

    places: np.ndarray
    constant: float
    mean_logit: float


def evidence_for(
    network: ConvNextForImageClassification, features: Tensor, classes: Sequence[int], *, compared: bool
) -> list[Evidence]:
    """The evidence for some classes in one photo, computed in float64.

    Args:
        network: whose classifier is read.
        features: (1, C, H, W), the output of the last stage.
        classes: rows of the classifier.
        compared: subtract the mean of all logits. The softmax does not change if one number is added to all logits,
            so that only differences between classes count. False for classes with scores of their own.
    """
    rows, columns = features.shape[-2:]
    with torch.inference_mode():
        normalised, shift = _normalised(network, _double(features)[0].flatten(1).T)
        weights, biases, mean_weights, mean_bias = _linear_head(network, normalised.mean(0) + shift, classes)
        mean_logit = float((normalised.mean(0) + shift) @ mean_weights + mean_bias) if compared else 0.0
        if compared:
            weights, biases = weights - mean_weights, biases - mean_bias
        constants = weights @ shift + biases
        places = (normalised @ weights.T + constants) / len(normalised)
    return [
        Evidence(places[:, i].reshape(rows, columns).numpy(), float(constants[i]), mean_logit)
        for i in range(len(classes))
    ]


def _normalised(network: ConvNextForImageClassification, x: Tensor) -> tuple[Tensor, Tensor]:
    """The share of each place, (P, C), in the normalised features, and the shift of the norm, (C,).

    The mean over the places, plus the shift, is the input of the classifier.

    Args:
        network: whose last norm is applied.
        x: (P, C), the last feature map in float64.
    """
    if network.config.head_norm == "none":
        return x, x.new_zeros(x.shape[1])
    norm = network.norm
    source = x if network.config.head_norm == "before_pool" else x.mean(0, keepdim=True)
    power = source.square().mean(-1, keepdim=True)
    if norm.kind != "rms":
        power = source.var(-1, keepdim=True, unbiased=norm.kind == "simple")
    if norm.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    shift = x.new_zeros(x.shape[1]) if norm.bias is None else _double(norm.bias)
    return x * torch.rsqrt(power + norm.eps) * _double(norm.weight), shift


def _linear_head(
    network: ConvNextForImageClassification, pooled: Tensor, classes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The classifier as a linear function: weights (N, C) and biases (N,) of N classes, and the means over all classes.

    Args:
        network: whose classifier is read.
        pooled: (C,), its input.
        classes: rows of the classifier.
    """
    head, chosen = network.head, list(classes)
    weights, mean_weights = _double(head.weight[chosen]), head.weight.mean(0, dtype=torch.float64).cpu()
    biases, mean_bias = weights.new_zeros(len(chosen)), weights.new_zeros(())
    if head.bias is not None:
        biases, mean_bias = _double(head.bias[chosen]), head.bias.mean(dtype=torch.float64).cpu()
    if not network.config.head_hidden_size:
        return weights, biases, mean_weights, mean_bias
    hidden = network.head_hidden
    inner, inner_bias = _double(hidden.weight), _double(hidden.bias)
    gates = torch.special.ndtr(inner @ pooled + inner_bias)
    weights, mean_weights = weights * gates, mean_weights * gates
    return weights @ inner, biases + weights @ inner_bias, mean_weights @ inner, mean_bias + mean_weights @ inner_bias


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)
