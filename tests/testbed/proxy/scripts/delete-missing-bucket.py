# SPDX-License-Identifier: Apache-2.0
"""DELETE in a bucket that is not there."""
from proxy import always

operation, most, deadline = "delete", 1, 10
ends = "missing input"
says = r"no such bucket"
answer = always(404, "NoSuchBucket")
