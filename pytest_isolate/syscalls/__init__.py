"""System calls: the only place that knows numbers, flags and errno of the C side."""
