"""The lifecycle of a process, the same in all deployments: parts are opened, work, are asked, drained and closed."""
