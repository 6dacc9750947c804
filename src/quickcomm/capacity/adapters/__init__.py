"""Files: samples that come with QuickComm, and charts."""
