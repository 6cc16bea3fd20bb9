"""The flights fleet: real models on a year of real flights from New York, replayed as a serving system sends it."""
