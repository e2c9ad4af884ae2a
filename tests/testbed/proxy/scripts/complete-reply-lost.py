# SPDX-License-Identifier: Apache-2.0
"""The completion was carried out, its reply lost."""
from proxy import LARGE, lost_completion, upload

operation, most, deadline = "large", 9, 20
ends = "ok"
says = r""
answer = upload(lost_completion, head=LARGE)
