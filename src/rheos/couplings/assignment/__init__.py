"""Solvers of the assignment problem, one a file: which noise goes with which datum, every one once.

Rows are data and columns noise, everywhere here. A solver gives the noise of each datum, int64 (n,).
"""
