# SPDX-License-Identifier: Apache-2.0
"""The object is shorter than its user thought."""
from proxy import DATA, ranged

operation, most, deadline = "get", 1, 10
ends = "bad data"
says = r"50 of 100 bytes"
answer = ranged("bytes 100-149/150", DATA[100:150])
