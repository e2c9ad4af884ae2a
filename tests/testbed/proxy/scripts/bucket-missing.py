# SPDX-License-Identifier: Apache-2.0
"""There is no such bucket."""
from proxy import always

operation, most, deadline = "get", 1, 10
ends = "missing input"
says = r"no such bucket: create it"
answer = always(404, "NoSuchBucket")
