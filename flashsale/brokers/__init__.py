"""The transports: RabbitMQ (connections, topology, confirmed publishing) and an in-memory one."""
