"""The command line of 0.1.0: an `up` of that release starts processes of this one by `-m quickcomm.entrypoints.cli`."""

from quickcomm.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
