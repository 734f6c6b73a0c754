"""`python -m helpers …` is `hybrid-serving …`."""

from helpers.cli import main

if __name__ == "__main__":
    main()
