"""Kernels, methods and notebook tools of the book of executable tutorials.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "DirichletLaw": "kempe_nb.kernels.simplex_laws",
    "LogisticNormalLaw": "kempe_nb.kernels.simplex_laws",
    "Traffic": "kempe_nb.traffic",
    "ZipfLaw": "kempe_nb.kernels.zipf",
    "affine_augment": "kempe_nb.kernels.affine_augment",
    "class_moments": "kempe_nb.kernels.class_moments",
    "ensemble_moments": "kempe_nb.kernels.ensemble_moments",
    "ensemble_nll": "kempe_nb.kernels.ensemble_moments",
    "integers": "kempe_nb.kernels.philox",
    "neural_collapse_metrics": "kempe_nb.methods.neural_collapse",
    "norm_relu_pool": "kempe_nb.kernels.norm_relu_pool",
    "projected_curvature": "kempe_nb.kernels.projected_curvature",
    "random_bits": "kempe_nb.kernels.philox",
    "resampling_chain": "kempe_nb.kernels.resampling_chain",
    "simplex_probability": "kempe_nb.kernels.simplex_probability",
    "softmax_hessian": "kempe_nb.kernels.softmax_hessian",
    "uniform": "kempe_nb.kernels.philox",
    "use": "kempe_nb.dispatch",
    "which": "kempe_nb.dispatch",
    "zipf_counts": "kempe_nb.kernels.zipf",
    "zipf_samples": "kempe_nb.kernels.zipf",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
