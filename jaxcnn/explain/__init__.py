"""What a network is and does, shown."""

from jaxcnn.explain._summary import Summary as Summary
from jaxcnn.explain._summary import summary as summary

__all__ = ["Summary", "summary"]
