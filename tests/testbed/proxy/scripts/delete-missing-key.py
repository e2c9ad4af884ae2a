# SPDX-License-Identifier: Apache-2.0
"""DELETE of a key that is not there is done."""
from proxy import always

operation, most, deadline = "delete", 1, 10
ends = "ok"
says = r""
answer = always(404, "NoSuchKey")
