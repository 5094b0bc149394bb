"""The dashboard: a read-only page in the browser with the metrics of the pipeline."""
