"""`python -m medgen3d` is `medgen3d`."""

from medgen3d.cli import main

main()
