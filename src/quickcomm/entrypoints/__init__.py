"""Where everything is put together: the only assemblers, and the command line."""
