# SPDX-License-Identifier: Apache-2.0
"""A range that ends one byte early."""
from proxy import DATA, ranged

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"another range"
answer = ranged("bytes 100-198/2000", DATA[100:199])
