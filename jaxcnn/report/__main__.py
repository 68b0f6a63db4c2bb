"""Write the page about a run, or one page that compares several.

python -m jaxcnn.report runs/a                          writes runs/a/report.html
python -m jaxcnn.report runs/a runs/b                   writes comparison.html
python -m jaxcnn.report runs/a runs/b --path ab.html
"""

import argparse
import sys

from jaxcnn.data import DataError
from jaxcnn.report._compare import compare
from jaxcnn.report._report import report


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m jaxcnn.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="run folders")
    parser.add_argument("--path", help="the page to write about several runs; default: comparison.html")
    options = parser.parse_args()
    one = len(options.folders) == 1
    if one and options.path:
        parser.error("--path is for several runs; the page about one run is report.html in its folder")
    try:
        print(report(options.folders[0]) if one else compare(options.folders, options.path or "comparison.html"))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
