# SPDX-License-Identifier: Apache-2.0
"""A certificate that nobody vouches for."""
from proxy import good

operation, most, deadline = "get", 0, 10
ends = "bad config"
says = r"AWS_CA_BUNDLE"
answer = lambda s, c, r: good(c, r)
tls = "self-signed"
