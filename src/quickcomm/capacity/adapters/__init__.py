"""Files: samples that come with QuickComm, and charts; figures from the metrics of running processes."""
