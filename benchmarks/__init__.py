"""The operations of `kempe_nb.kernels` beside their peers and the physical limit.

`python -m benchmarks` tests, checks and measures; `book/speed.md` is made from `results/*.csv`.
"""
