"""Time, memory and operations of every phase beside those of the release's way: `python -m benchmarks.run`."""
