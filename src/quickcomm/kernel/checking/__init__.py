"""Finds what is missing, doubled or left behind between the modules of a site: `quickcomm check`."""
