# SPDX-License-Identifier: Apache-2.0
"""The body always ends early."""
from proxy import truncated

operation, most, deadline = "get", 40, 2
ends = "unavailable|deadline passed"  # the last attempt may meet the deadline on a loaded machine
says = r"bytes=100-199.*\d+ attempts"
answer = truncated
