# SPDX-License-Identifier: Apache-2.0
"""A trusted certificate of another host."""
from proxy import good

operation, most, deadline = "get", 0, 10
ends = "bad config"
says = r"AWS_CA_BUNDLE"
answer = lambda s, c, r: good(c, r)
tls = "other-host"
