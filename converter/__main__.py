"""`python -m converter` is `ckconv`."""

from converter.cli import main

if __name__ == "__main__":
    main()
