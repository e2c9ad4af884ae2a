# SPDX-License-Identifier: Apache-2.0
"""HEAD refused: no body says why."""
from proxy import reply

operation, most, deadline = "head", 1, 10
ends = "permission"
says = r"the environment"
answer = lambda s, c, r: reply(c, 403, head=True)
