"""Lets `python -m ablation` run the command line."""

from ablation.cli import main

if __name__ == "__main__":
    main()
