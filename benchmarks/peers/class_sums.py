"""Moments of classes by what PyTorch and scikit-learn offer: counts, means, within-class squares.

Each takes features [N, D], labels [N] and the number of classes, and returns counts [K], means
[K, D] and the sums of squared distances from the mean [K]. All but the last are exact formulas in
two passes; the textbook formula is here for its speed, and is wrong for collapsed features.
"""

import numpy as np
import torch
from sklearn.neighbors import NearestCentroid


def one_hot_product(features, labels, num_classes):
    """Sum classes by a matrix product with one-hot labels."""
    one_hot = torch.nn.functional.one_hot(labels, num_classes).to(features.dtype)
    counts = one_hot.sum(0)
    means = (one_hot.T @ features) / counts[:, None]
    squares = (features - means[labels]).square().sum(1)
    return counts, means, one_hot.T @ squares


def index_add(features, labels, num_classes):
    """Sum classes by scattered additions."""
    counts = torch.bincount(labels, minlength=num_classes)
    means = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    means = means / counts[:, None]
    squares = (features - means[labels]).square().sum(1)
    return counts, means, features.new_zeros(num_classes).index_add_(0, labels, squares)


def textbook(features, labels, num_classes):
    """Sum rows and their squared lengths, and subtract: fast, and unstable."""
    counts = torch.bincount(labels, minlength=num_classes)
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    means = sums / counts[:, None]
    lengths = torch.linalg.vector_norm(features, dim=1).square()
    squares = features.new_zeros(num_classes).index_add_(0, labels, lengths)
    return counts, means, squares - counts * means.square().sum(1)


def dense(features, labels, num_classes):
    """Form both D x D matrices, as published code for NC1 does, and take the pseudo-inverse.

    The published code forms an outer product for each sample; this is its fast equivalent, one
    matrix product. Returned beside NC1 are the same three results as from the others.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    means = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    means = means / counts[:, None]
    deviations = features - means[labels]
    within = deviations.T @ deviations / len(features)
    centred = means - features.mean(0)
    between = centred.T @ centred / num_classes
    nc1 = torch.trace(within @ torch.linalg.pinv(between))
    squares = deviations.square().sum(1)
    return counts, means, features.new_zeros(num_classes).index_add_(0, labels, squares), nc1


def nearest_centroid(features, labels, num_classes):
    """Fit scikit-learn's nearest-centroid classifier: means, and one deviation for each feature."""
    fitted = NearestCentroid().fit(features.numpy(), labels.numpy())
    freedom = len(features) - len(fitted.classes_)
    pooled = (fitted.within_class_std_dev_.astype(np.float64) ** 2).sum() * freedom
    return torch.bincount(labels, minlength=num_classes), fitted.centroids_, pooled
