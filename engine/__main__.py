"""`python -m infold`: the command line."""
from .cli import main

main()
