"""What the benchmarks share: processes and their CPU time, load, rounds, results."""
