"""`python -m geosam` is the `geosam` command."""

from geosam.cli import main

main()
