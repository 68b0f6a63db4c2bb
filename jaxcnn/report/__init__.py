"""An HTML page about a training run: `report` writes it, `gather` collects its data on the trained network."""

from jaxcnn.report._callback import write_report as write_report
from jaxcnn.report._gather import gather as gather
from jaxcnn.report._report import report as report

__all__ = ["gather", "report", "write_report"]
