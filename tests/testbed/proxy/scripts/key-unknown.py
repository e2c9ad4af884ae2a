# SPDX-License-Identifier: Apache-2.0
"""The access key is not known."""
from proxy import always

operation, most, deadline = "get", 1, 10
ends = "permission"
says = r"does not know the access key from the environment"
answer = always(403, "InvalidAccessKeyId")
