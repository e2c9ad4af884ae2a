# SPDX-License-Identifier: Apache-2.0
"""The quota is used up."""
from proxy import always

operation, most, deadline = "put", 1, 10
ends = "input/output"
says = r"quota is used up"
answer = always(403, "QuotaExceeded")
