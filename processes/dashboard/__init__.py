"""The dashboard: the pipeline's metrics on one page in the browser, read only."""
