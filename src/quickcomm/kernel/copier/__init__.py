"""The table copier: one resumable, checked way for rows to move between databases, services and Valkey.

`copier.py` has the loop, `sql.py`, `http.py` and `valkey.py` the two ends, `transfer.py` what is exported. A module
declares its tables and how a page of rows is written; see docs/adr/0036.
"""
