"""page: a run's report as one file for people, `report.html`, and the same as data, `report.json`."""
