"""`quickcomm up`: a whole site on one machine; the edge, the store, and the processes behind them."""
