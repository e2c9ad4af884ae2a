# SPDX-License-Identifier: Apache-2.0
"""The key exists."""
from proxy import always

operation, most, deadline = "create", 1, 10
ends = "exists already"
says = r"412"
answer = always(412, "PreconditionFailed")
