"""Models as one page to look at: settings, curves, the schedule, samples, the chain under a slider, figures."""
