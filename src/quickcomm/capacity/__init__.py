"""When to split a site, what that costs, and when not to: unit costs, the load of a day, prices, what follows."""
