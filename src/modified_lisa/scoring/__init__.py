"""From the records of single samples to numbers: intervals, groups, calibration, several runs. No torch model here."""
