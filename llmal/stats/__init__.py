"""Statistics that the reports rest on: intervals, agreement with gold, calibration."""
