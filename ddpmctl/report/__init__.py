"""Models on one HTML page: settings, curves, schedule, samples, denoising and previews under sliders, metrics."""
