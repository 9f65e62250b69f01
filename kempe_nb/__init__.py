"""Kernels, methods and notebook tools of the book of executable tutorials."""

__version__ = "0.1.0"
