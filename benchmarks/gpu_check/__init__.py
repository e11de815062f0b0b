"""What needs a GPU to be known: python -m benchmarks.gpu_check checks and measures it."""
