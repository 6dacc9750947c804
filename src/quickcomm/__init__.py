"""QuickComm: live operations talk, heard, understood and shown."""

__version__ = "0.1.0"
