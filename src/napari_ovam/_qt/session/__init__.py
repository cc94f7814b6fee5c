"""Who owns the panel's state: samples, jobs, saving; no widget."""
