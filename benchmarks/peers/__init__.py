"""What the operations are measured beside: the same results from other libraries.

All peers so far come with torch and NumPy, which the book needs anyway. A peer that needs more
names it in a `requirements.txt` in this folder, installed for the benchmarks only.
"""
