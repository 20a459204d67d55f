"""`python -m lavida`: the command line."""

from lavida.cli import main

if __name__ == "__main__":
    main()
