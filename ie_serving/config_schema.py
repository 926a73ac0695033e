"""`python -m ie_serving.config_schema FILE` writes the JSON Schema of the configuration file; `make schema` runs it."""

import json
import sys
from pathlib import Path

from common.config_format import json_schema


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str]) -> int:
    """Write the schema; the exit code."""
    if len(argv) != 1:
        print("usage: python -m ie_serving.config_schema FILE", file=sys.stderr)
        return 2
    Path(argv[0]).write_text(schema_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
