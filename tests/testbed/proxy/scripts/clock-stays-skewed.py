# SPDX-License-Identifier: Apache-2.0
"""The correction does not help."""
from proxy import skewed

operation, most, deadline = "get", 2, 10
ends = "permission"
says = r"clock is wrong"
answer = skewed(False)
