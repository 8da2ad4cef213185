"""``python -m nri_fast``: the command line."""

from nri_fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
