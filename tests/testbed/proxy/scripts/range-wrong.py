# SPDX-License-Identifier: Apache-2.0
"""Another range than was asked for."""
from proxy import DATA, ranged

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"another range"
answer = ranged("bytes 0-99/2000", DATA[:100])
