"""What keeps a site: its processes, its stores, backups and moves between deployments."""
