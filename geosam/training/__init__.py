"""Training of geosam's own networks: `python -m geosam.training --help`."""
