"""An HTML page about a training run: `report` writes it, and `compare` one about several runs.

`gather` collects its data on the trained network, `add_images` adds any images.
"""

from jaxcnn.report._callback import write_report as write_report
from jaxcnn.report._compare import compare as compare
from jaxcnn.report._gather import gather as gather
from jaxcnn.report._images import add_images as add_images
from jaxcnn.report._report import report as report

__all__ = ["add_images", "compare", "gather", "report", "write_report"]
