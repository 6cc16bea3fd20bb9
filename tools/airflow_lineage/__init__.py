"""A real Airflow that tells Runway what its tasks read and write: install, run, record."""
