"""Models on one HTML page: settings, curves, schedule, samples, a chain and the training under sliders, metrics."""
