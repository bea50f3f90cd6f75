"""From two encoders to one, without labels: `run.distill` is where to start reading."""
