# SPDX-License-Identifier: Apache-2.0
"""A trusted certificate that has expired."""
from proxy import good

operation, most, deadline = "get", 0, 10
ends = "bad config"
says = r"expired"
answer = lambda s, c, r: good(c, r)
tls = "expired"
