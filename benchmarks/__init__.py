"""What isolation costs, measured beside other runners: ``python -m benchmarks``."""
