"""What the scenarios share: the offered load, the servers with a worker, and the account."""
