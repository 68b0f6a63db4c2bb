"""The sources of the documentation site; README says how to build it."""
