# SPDX-License-Identifier: Apache-2.0
"""The session token has expired."""
from proxy import always

operation, most, deadline = "get", 1, 10
ends = "permission"
says = r"session token from the environment has expired: get a new one"
answer = always(400, "ExpiredToken")
env = {"AWS_SESSION_TOKEN": "the-token"}
