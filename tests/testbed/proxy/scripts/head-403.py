# SPDX-License-Identifier: Apache-2.0
"""HEAD refused without a body: asked once more as a GET, whose body may say why."""
from proxy import reply

operation, most, deadline = "head", 2, 10
ends = "permission"
says = r"the environment"
answer = lambda s, c, r: reply(c, 403, head=True)
