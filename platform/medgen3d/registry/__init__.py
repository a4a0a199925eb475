"""MLflow: runs, bundle versions and pipelines. Nothing else imports it."""
