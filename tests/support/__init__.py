"""What tests, torture runs and benchmarks share: private servers and bounded waiting."""
