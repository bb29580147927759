"""The suite, installed with the package: ``pytest --pyargs identity_props.suite``."""
