"""Packaging. `properties/` stands at the top level and installs as `recbole_cdr_mm.properties`."""

from setuptools import find_packages, setup

PROPERTIES = "recbole_cdr_mm.properties"

setup(
    packages=[*find_packages(include=["recbole_cdr_mm*", "dataset_tools*"]), PROPERTIES],
    package_dir={PROPERTIES: "properties"},
    package_data={
        PROPERTIES: ["*.yaml", "*/*.yaml", "*/*.hyper"],
        "dataset_tools.fetch": ["*.yaml"],
        "recbole_cdr_mm.benchmark.report": ["*.html", "*.yaml"],
    },
)
