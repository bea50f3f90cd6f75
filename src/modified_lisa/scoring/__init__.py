"""From the records of single samples to numbers: metrics with intervals, groups, calibration, several seeds."""
