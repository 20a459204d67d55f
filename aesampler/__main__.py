"""`python -m aesampler`: the command line."""

from aesampler.cli import main

if __name__ == "__main__":
    main()
