"""What Airflow and Metaflow load belongs to their environments, not to this one."""

collect_ignore = ["dags", "flows"]
