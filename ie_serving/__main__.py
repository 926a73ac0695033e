"""`python -m ie_serving`."""

import sys

from ie_serving.cli import main

sys.exit(main())
