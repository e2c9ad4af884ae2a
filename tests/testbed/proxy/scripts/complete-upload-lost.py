# SPDX-License-Identifier: Apache-2.0
"""The upload is gone, and no object of our size is there."""
from proxy import lost_completion, upload

operation, most, deadline = "large", 17, 20
ends = "missing input"
says = r"NoSuchUpload"
answer = upload(lost_completion, head=5)
