"""Front door of a checkout: `python cli.py ...` is `dm-inspect ...` without installing anything. Not in the wheel."""

from inspector.__main__ import main

if __name__ == "__main__":
    main()
